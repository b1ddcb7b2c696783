"""tokens/: a tokenizer with Gemma's settings, and what sentencepiece and transformers make of awkward text with it.

  tokenizer.model  trained here by the sentencepiece library from the corpus of the demo and a few lines below
  tokenizer.json   what transformers saves after reading it
  cases.json       "texts": {text, literal: ids of the same model with its control tokens taken out, parsed: ids that
                   transformers gives}; where transformers is known to part from sentencepiece, parsed holds sentencepiece's
                   ids and transformers its own. "conversations": {turns, parsed_ids, parsed_mask: from transformers'
                   apply_chat_template with the published template; literal_ids, literal_mask: the template's control tokens
                   and, between them, text read literally}.
"""

import io
import json
import pathlib
import random
import tempfile

import sentencepiece
import transformers
from sentencepiece import sentencepiece_model_pb2 as proto

NAME = "tokens"
PIECES = 1400
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CORPORA = ["configs/demo/corpus.txt", "tests/data/fixtures/tiny_corpus.txt"]
LINES = ["Здравствуйте, как дела? Всё хорошо, спасибо.", "Καλημέρα κόσμε, τι κάνεις;", "こんにちは、世界。元気ですか。",
         "你好，世界。今天的天气很好。", "안녕하세요, 세계.", "مرحبا بالعالم، كيف حالك؟", "שלום עולם, מה שלומך?",
         "नमस्ते दुनिया, आप कैसे हैं?", "สวัสดีชาวโลก", "Cześć, jak się masz? Zażółć gęślą jaźń.", "Việt Nam đẹp lắm.",
         "😀 👍 🎉 ❤️ 😀👍🎉", "→ ← ≤ ≥ ≠ ∞ √ π", "if x <= 10 { return x[0] + \"a\"; } // end", "<b>bold</b> <i>text</i> &amp;"]
TAGS = ["table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote",
        "strong", "em", "b", "i", "u", "s", "sub", "sup", "code"]
CONTROL = ["<mask>", "[multimodal]"] + [f"<unused{n}>" for n in range(99)] + ["<start_of_turn>", "<end_of_turn>"]
TEMPLATE = ("{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
            "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
            "{% for message in rest %}"
            "{% if message['role'] == 'assistant' %}{{ '<start_of_turn>model\n' }}"
            "{% generation %}{{ message['content'] | trim }}{{ '<end_of_turn>\n' }}{% endgeneration %}"
            "{% else %}{{ '<start_of_turn>user\n' + (first if loop.first else '') }}{{ message['content'] | trim }}"
            "{{ '<end_of_turn>\n' }}{% endif %}{% endfor %}")


def train():
    lines = [line for path in CORPORA for line in (ROOT / path).read_text(encoding="utf-8").split("\n")]
    symbols = (CONTROL + ["\n" * n for n in range(1, 32)] + ["\u2581" * n for n in range(2, 32)] +
               [form % tag for tag in TAGS for form in ("<%s>", "</%s>")])
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines + LINES * 40), model_writer=out, model_type="bpe", vocab_size=PIECES,
        byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
        split_digits=True, character_coverage=0.9995, pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>",
        eos_piece="<eos>", bos_piece="<bos>", unk_piece="<unk>", user_defined_symbols=symbols, num_threads=1, minloglevel=2)
    return out.getvalue()


def without_control_tokens(model):
    """The same tokenizer without its control tokens: what literal text must be cut like."""
    kept = proto.ModelProto()
    kept.ParseFromString(model)
    pieces = [piece for piece in kept.pieces if piece.piece not in CONTROL]
    del kept.pieces[:]
    kept.pieces.extend(pieces)
    return sentencepiece.SentencePieceProcessor(model_proto=kept.SerializeToString())


def texts():
    out = ["", " ", "\n", "\t", "\r", "\r\n", "a\r\nb\r\n", "Hello world", " leading", "trailing ", "a  b   c    d", "\t\ta\tb",
           "line\n\n\n\nline", "\n" * 31, "\n" * 32, "\n" * 70, " " * 31, "x" + " " * 30 + "y", " \n \n\n  \n", "\t \t\n\t"]
    out += ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽👍🏿", "🇩🇪🇯🇵", "text 😀 with 🧪 emoji 🪐!", "☺️☺", "1️⃣2️⃣"]  # joined, modified, flags
    out += ["𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "龘麤鱻", "ꙮ", "\U000e0041", "\x00", "a\x00b", "\x01\x02\x7f", "\ufffd", "\ufeffBOM", "<0x41><0x0A>"]  # bytes
    out += ["e\u0301", "é", "Z\u0351\u036b\u0343a\u0300\u0301\u0302l", "ä̈ȫ", "क्षि", "ำ", "\u0301 alone", "가각\u1100\u1161"]  # marks
    out += ["مرحبا بالعالم", "שָׁלוֹם עוֹלָם", "abc אבג 123 ابت", "\u202eright to left\u202c", "\u200fמימין\u200e left", "١٢٣ ۴۵۶"]
    out += ["\u00a0nbsp\u00a0", "\u3000wide\u3000", "zero\u200bwidth\u200d", "\u2028\u2029\u0085", "soft\u00adhyphen"]
    out += ["<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "[multimodal]", "<unused0>",
            "<unused98>", "<unused99>", "<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n", "a<bos>b<eos>c",
            "<start_of_turn", "start_of_turn>", "< start_of_turn>", "<start_of_turn >", "<START_OF_TURN>",
            "<<start_of_turn>>", "<start_of_turn<start_of_turn>", "<end_of_turn><end_of_turn>\n\n", "<unused1><unused11>",
            " <bos> ", "\n<eos>\n", "<|im_start|>[INST]</s>", "&lt;start_of_turn&gt;", "<start_of_turn\u200b>", "<b><bos></b>",
            "<table><tr><td>1</td></tr></table>", "<h1></h7>", "</start_of_turn>"]
    out += ["1234567890", "3.14159e-10", "1,000,000", "x" * 100, "the" * 30, "ACGT" * 20, "https://example.com/a?b=c&d=e#f",
            "def f(x):\n\treturn x  # tab\n", "{\"a\": [1, 2, {\"b\": null}]}", "$\\frac{1}{2}$", "C:\\temp\\new", "'\"`´’"]
    # Words of 10,000 characters.
    out += ["a" * 10_000, "word" * 2_500, "é" * 10_000, "😀" * 10_000, "क" * 10_000, "0123456789" * 1_000, "<" * 10_000,
            "".join(random.Random(3).choices("abcdefghijklmnopqrstuvwxyz", k=10_000)),
            "".join(random.Random(4).choices("aeiouäöü日本😀\u0301", k=10_000))]
    parts = ["a", "e", "the", "list", "Answer:", " ", "  ", "     ", "\n", "\n\n", "\n\n\n", "\t", "\r\n", "1", "42", "<b>",
             "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<unused7>", "[multimodal]", "é", "e\u0301", "日本", "😀", "👍🏽",
             "שלום", "مرحبا", "\u200b", "\u00a0", ".", "?", "<", ">", "start", "_of_", "turn", "Здравствуйте", "龘"]
    choose = random.Random(7)
    out += ["".join(choose.choice(parts) for _ in range(choose.randint(1, 30))) for _ in range(400)]
    # Where transformers is known to part from sentencepiece: runs of spaces past the longest piece, U+2581 in the text.
    out += [" " * 32, " " * 33, " " * 64, "x" + " " * 40 + "y", " " * 10_000, "a\u2581b", "\u2581\u2581x", "\u2581\u2581 x",
            "a \u2581\u2581 \u2581"]
    return out


def conversations():
    user = ["What is 6 x 7?", "\u00a0\u3000 two\r\nlines \u2003", "\u200bkept\u200b", "<start_of_turn>model\nI am<end_of_turn>\n",
            "<bos>again<eos>", "tab\tand\n\n\nnewlines", "😀 مرحبا שלום e\u0301", "   spaces     inside   ", "<b>x</b>   y",
            "龘ꙮ𝔘", "x" * 500, "\ufeffBOM first"]
    model = ["42", "\t\n an answer \u0085", "\u200b", "done<end_of_turn>", "<eos>", "    code:\n\treturn 1\n", "👩‍👩‍👧‍👦 👍🏽",
             "a\n\n\n    b", "<start_of_turn>user", "ꙮ龘", "y" * 500, "\u0301mark first"]
    out = [[["user", user[i]], ["model", model[i]]] for i in range(len(user))]
    out += [[["system", " Be brief.\n"], ["user", " Why? "], ["model", "So."]],
            [["system", "<bos>\t"], ["user", "q"], ["model", "a"]]]
    out += [[["user", user[i]], ["model", model[-i]], ["user", user[-i]], ["model", model[i]]] for i in range(1, 6)]
    return out


class Readers:
    def __init__(self, model):
        self.plain = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.without = without_control_tokens(model)
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "tokenizer.model").write_bytes(model)
            (folder / "tokenizer_config.json").write_text(json.dumps(
                {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
                 "unk_token": "<unk>", "mask_token": "<mask>"}))
            self.transformers = transformers.AutoTokenizer.from_pretrained(folder)
            self.transformers.save_pretrained(folder / "saved")
            self.saved = json.loads((folder / "saved" / "tokenizer.json").read_text(encoding="utf-8"))
        self.transformers.chat_template = TEMPLATE

    def literal(self, text):
        return [self.plain.piece_to_id(piece) for piece in self.without.encode(text, out_type=str)]

    def parsed(self, text):
        return self.transformers(text, add_special_tokens=False)["input_ids"]


def text_case(readers, text):
    case = {"text": text, "literal": readers.literal(text), "parsed": readers.parsed(text)}
    assert readers.without.decode(readers.without.encode(text)) == text.replace("\u2581", " "), repr(text)
    by_type = any(token in text for token in ("<bos>", "<eos>", "<pad>", "<unk>"))  # plain sentencepiece spells these out
    plain = readers.plain.encode(text)
    if case["parsed"] != plain and not by_type:
        assert " " * 32 in text or "\u2581" in text, f"transformers parts from sentencepiece on {text!r}"
        case |= {"parsed": plain, "transformers": case["parsed"]}
    return case


def conversation_case(readers, turns):
    messages = [{"role": "assistant" if role == "model" else role, "content": text} for role, text in turns]
    out = readers.transformers.apply_chat_template(messages, tokenize=True, return_dict=True,
                                                   return_assistant_tokens_mask=True)
    begin, end = (readers.plain.piece_to_id(piece) for piece in ("<start_of_turn>", "<end_of_turn>"))
    ids, mask = [readers.plain.bos_id()], [0]

    def add(more, trained):
        ids.extend(more)
        mask.extend([trained] * len(more))

    system = turns[0][1] + "\n\n" if turns[0][0] == "system" else ""
    for number, (role, text) in enumerate(turn for turn in turns if turn[0] != "system"):
        trained = int(role == "model")
        text = (system if number == 0 else "") + text.strip()
        add([begin], 0)
        if trained:
            add(readers.literal("model\n"), 0)
            add(readers.literal(text), 1)
        else:
            add(readers.literal("user\n" + text), 0)
        add([end], trained)
        add(readers.literal("\n"), trained)
    return {"turns": turns, "parsed_ids": out["input_ids"], "parsed_mask": out["assistant_masks"], "literal_ids": ids,
            "literal_mask": mask}


def make(folder):
    folder.mkdir(exist_ok=True)
    model = train()
    (folder / "tokenizer.model").write_bytes(model)
    readers = Readers(model)
    found = [text_case(readers, text) for text in texts()]
    talks = [conversation_case(readers, turns) for turns in conversations()]
    compact = lambda case: json.dumps(case, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(compact(readers.saved) + "\n", encoding="utf-8")
    with open(folder / "cases.json", "w", encoding="utf-8") as file:
        file.write('{"texts":[\n' + ",\n".join(map(compact, found)))
        file.write('\n],"conversations":[\n' + ",\n".join(map(compact, talks)) + "\n]}\n")
    differing = sum("transformers" in case for case in found)
    print(f"{NAME}: {readers.plain.get_piece_size()} pieces, {len(found)} texts ({differing} that transformers cuts otherwise), "
          f"{len(talks)} conversations")
