#!/usr/bin/env python3
"""Compares the ids of `gemma-sft tokenize` with those of transformers, and of sentencepiece, for one model folder.

    python3 tests/compat/tokenizer_check.py --program build/release/bin/gemma-sft --model DIR [--texts FILE] [--original FILE]

DIR holds tokenizer_config.json and tokenizer.model, or tokenizer.json, or both. The texts are those of tests/golden/tokens.py,
random ones out of awkward parts, out of the vocabulary, and out of all of Unicode (--seed); --texts adds the lines of a file. --original is the
tokenizer.model that DIR's tokenizer.json was made of: ids must be those of sentencepiece with that one, also of text read
literally. Where transformers is not installed, the environment of environment.sh is made and used.
Exit status 0: equal wherever they must be; the texts in which transformers may differ are those with a run of more than 31
spaces or with U+2581 in them.
"""
import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
SPELT_OUT = ("<bos>", "<eos>", "<pad>", "<unk>")  # by sentencepiece alone


def use_own_environment():
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "environment.sh")
    python = subprocess.run([script], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    if sys.executable == python:
        sys.exit("tokenizer_check: %s lacks transformers; remove its folder and try again" % python)
    os.execv(python, [python] + sys.argv)


def built_in_texts():
    sys.path.insert(0, str(GOLDEN))
    import tokens

    texts = tokens.texts()
    random.seed(1)
    parts = ["a", "e", "the", " ", "  ", "\n", "1", "<b>", "<start_of_turn>", "\u00e9", "\u65e5", "\U0001f600", ".", "?",
             "is", "What", "ing", "\u2581", "\t", "<unused1>", "<", "<bos>", "<eos>", "s", "t", "h", "in"]
    return texts + ["".join(random.choice(parts) for _ in range(random.randint(1, 30))) for _ in range(3000)]


def texts_of_pieces(tokenizer):
    """Pieces in a row, so that neighbours are joined and cut anew."""
    pieces = [piece.replace("\u2581", " ") for piece in tokenizer.get_vocab() if not piece.startswith("<")]
    chosen = random.Random(2)
    return ["".join(chosen.choices(pieces, k=chosen.randint(2, 60))) for _ in range(3000)]


def texts_of_unicode(seed, count=4000):
    """Characters from everywhere: any code point, the alphabets, marks, controls, spaces of all kinds, pieces of markup."""
    choose = random.Random(seed)
    ranges = [(0x20, 0x7E), (0x00, 0x1F), (0x7F, 0xFF), (0x100, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF),
              (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x20D0, 0x20FF), (0x2580, 0x2584), (0x2600, 0x27BF), (0x3000, 0x30FF),
              (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0xFE00, 0xFE0F), (0xFFF0, 0xFFFF), (0x1F1E6, 0x1F1FF),
              (0x1F300, 0x1FAFF), (0xE0000, 0xE007F), (0x10000, 0x10FFFF)]
    parts = [" ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u200d", "\ufeff", "<", ">", "</", "<start_of_turn>", "<end_of_turn>", "<unused",
             "5>", "<0x0A>", "<h1>", "[multimodal]", "<mask>", "\u2581", "the", "ing ", "2024", "<bos>", "<eos>"]

    def one():
        if choose.random() < 0.35:
            return choose.choice(parts) * choose.choice([1, 1, 1, 2, 5, 31, 32, 40][: 5 if choose.random() < 0.9 else 8])
        first, last = choose.choice(ranges)
        return "".join(chr(choose.randint(first, last)) for _ in range(choose.randint(1, 6)))

    return ["".join(one() for _ in range(choose.randint(1, 40))) for _ in range(count)]


def our_ids(program, model, texts, *flags):
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "texts.jsonl"), os.path.join(folder, "ids.jsonl")
        with open(source, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        subprocess.run([program, "tokenize", "--model", model, "--input", source, "--output", target, "--quiet", *flags],
                       check=True)
        with open(target, encoding="utf-8") as file:
            ids = [json.loads(line)["input_ids"] for line in file]
    assert len(ids) == len(texts), "%d rows for %d texts" % (len(ids), len(texts))
    return ids


class Differences:
    def __init__(self, pieces):
        self.pieces, self.wrong, self.known = pieces, 0, 0

    def add(self, text, ours, theirs, who, may_differ=False):
        if ours == theirs:
            return
        self.known, self.wrong = self.known + may_differ, self.wrong + (not may_differ)
        shown = (lambda value: value) if isinstance(ours, str) else self.pieces
        if not may_differ and self.wrong <= 20:
            print("WRONG %.200r\n  gemma-sft    %s\n  %-12s %s" % (text, shown(ours)[:60], who, shown(theirs)[:60]))


def compare_with_original(arguments, texts, differences):
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as proto

    bytes = pathlib.Path(arguments.original).read_bytes()
    plain = sentencepiece.SentencePieceProcessor(model_proto=bytes)
    # The same without its control tokens: what literal text must be cut like.
    kept = proto.ModelProto()
    kept.ParseFromString(bytes)
    tags = [form % tag for tag in tokens_module().TAGS for form in ("<%s>", "</%s>")]
    pieces = [piece for piece in kept.pieces if piece.type != proto.ModelProto.SentencePiece.USER_DEFINED or
              piece.piece[0] + piece.piece[-1] not in ("<>", "[]") or piece.piece in tags]
    del kept.pieces[:]
    kept.pieces.extend(pieces)
    without = sentencepiece.SentencePieceProcessor(model_proto=kept.SerializeToString())
    literal = our_ids(arguments.program, arguments.model, texts)
    parsed = our_ids(arguments.program, arguments.model, texts, "--parse-control-tokens")
    compared = 0
    for text, ours, read in zip(texts, literal, parsed):
        differences.add(text, ours, [plain.piece_to_id(piece) for piece in without.encode(text, out_type=str)], "literal")
        if not any(token in text for token in SPELT_OUT):
            differences.add(text, read, plain.encode(text), "sentencepiece")
            compared += 1
    print("  %d texts read literally and %d as sentencepiece reads them: %d wrong" % (len(texts), compared, differences.wrong))


def tokens_module():
    import tokens

    return tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts")
    parser.add_argument("--original")
    parser.add_argument("--seed", type=int, default=1, help="of the random Unicode texts")
    arguments = parser.parse_args()
    try:
        import transformers
    except ImportError:
        use_own_environment()
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    texts = built_in_texts() + texts_of_pieces(tokenizer) + texts_of_unicode(arguments.seed)
    if arguments.texts:
        with open(arguments.texts, encoding="utf-8") as file:
            texts += [line.rstrip("\n") for line in file]
    differences = Differences(tokenizer.convert_ids_to_tokens)
    ours = our_ids(arguments.program, arguments.model, texts, "--parse-control-tokens")
    for text, ids in zip(texts, ours):
        theirs = tokenizer(text, add_special_tokens=False)["input_ids"]
        differences.add(text, ids, theirs, "transformers", " " * 32 in text or "\u2581" in text)
    if tokenizer.chat_template:
        messages = [{"role": "system", "content": " S "}, {"role": "user", "content": "\u00a0hi "},
                    {"role": "assistant", "content": " yo\n"}, {"role": "user", "content": "x"}]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        differences.add("the chat template", rendered, "<bos><start_of_turn>user\n S \n\nhi<end_of_turn>\n<start_of_turn>model\n"
                        "yo<end_of_turn>\n<start_of_turn>user\nx<end_of_turn>\n<start_of_turn>model\n", "expected")
    print("  %d texts: %d wrong, %d known differences (transformers %s)" % (len(texts), differences.wrong, differences.known,
                                                                          transformers.__version__))
    if arguments.original:
        compare_with_original(arguments, texts, differences)
    sys.exit(1 if differences.wrong else 0)


if __name__ == "__main__":
    main()
