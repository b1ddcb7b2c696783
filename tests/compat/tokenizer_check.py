#!/usr/bin/env python3
"""Compares the ids of `gemma-sft tokenize` with those of transformers for one model folder.

    python3 tests/compat/tokenizer_check.py --program build/release/bin/gemma-sft --model DIR [--texts FILE]

DIR holds tokenizer.model, tokenizer.json and tokenizer_config.json. --texts adds the lines of a file to the built-in texts.
Where transformers is not installed, the environment of environment.sh is made and used.
Exit status 0: equal wherever they must be; the texts that may differ are those with a run of more than 31 spaces or with
U+2581 in them, and each that does is printed.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile


def use_own_environment():
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "environment.sh")
    python = subprocess.run([script], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    if sys.executable == python:
        sys.exit("tokenizer_check: %s lacks transformers; remove its folder and try again" % python)
    os.execv(python, [python] + sys.argv)


def built_in_texts():
    texts = ["", " ", "Hello world", "What is 12345 + 678?", "a\n\nb\n\n\nc", "x  y   z    w", "    lead", "trail   ",
             "\n", "\n" * 31, "\n" * 32, "\n" * 70, " " * 31, " " * 32, " " * 33, " " * 64, "a" + " " * 40 + "b",
             "<start_of_turn>user\nhi<end_of_turn>\n", "<bos>hi", "<eos>", "<pad>", "<unk>", "<mask>",
             "<unused0> <unused7><unused8>", "[multimodal]", "<b>bold</b>", "<table><tr>", "\t\ttab",
             "caf\u00e9 na\u00efve", "\u65e5\u672c\u8a9e\u30c6\u30ad\u30b9\u30c8", "\U0001f600\U0001f44d\U0001f3fd",
             "a\u2581b", "\u2581\u2581\u2581x", "\u2581\u2581 x", "e\u0301", "\u200bzero", "\u00a0nbsp\u3000x",
             "\r\nwin", "<0x41>", "  \n  \n", "123 456", "Reasoning:\n1. step\nAnswer: 42", "<start_of_turn",
             "< start_of_turn>", "<start_of_turn<start_of_turn>>", "\x01\x7f", "a" * 50, "hahahahaha", "the the the"]
    random.seed(1)
    parts = ["a", "e", "the", " ", "  ", "\n", "1", "<b>", "<start_of_turn>", "\u00e9", "\u65e5", "\U0001f600", ".", "?",
             "is", "What", "ing", "\u2581", "\t", "<unused1>", "<", "<bos>", "<eos>", "s", "t", "h", "in"]
    return texts + ["".join(random.choice(parts) for _ in range(random.randint(1, 30))) for _ in range(3000)]


def our_ids(program, model, texts):
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "texts.jsonl"), os.path.join(folder, "ids.jsonl")
        with open(source, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        subprocess.run([program, "tokenize", "--model", model, "--input", source, "--output", target,
                        "--parse-control-tokens"], check=True)
        with open(target, encoding="utf-8") as file:
            return [json.loads(line)["input_ids"] for line in file]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts")
    arguments = parser.parse_args()
    try:
        import transformers
    except ImportError:
        use_own_environment()
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    texts = built_in_texts()
    if arguments.texts:
        with open(arguments.texts, encoding="utf-8") as file:
            texts += [line.rstrip("\n") for line in file]
    ours = our_ids(arguments.program, arguments.model, texts)
    assert len(ours) == len(texts), "%d rows for %d texts" % (len(ours), len(texts))
    wrong = allowed = 0
    for text, ids in zip(texts, ours):
        theirs = tokenizer(text, add_special_tokens=False)["input_ids"]
        if ids == theirs:
            continue
        may_differ = " " * 32 in text or "\u2581" in text
        allowed, wrong = allowed + may_differ, wrong + (not may_differ)
        if allowed + wrong <= 20:
            print("%s %r\n  gemma-sft    %s\n  transformers %s" % ("known" if may_differ else "WRONG", text,
                                                              tokenizer.convert_ids_to_tokens(ids),
                                                              tokenizer.convert_ids_to_tokens(theirs)))
    messages = [{"role": "system", "content": " S "}, {"role": "user", "content": "\u00a0hi "},
                {"role": "assistant", "content": " yo\n"}, {"role": "user", "content": "x"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    expected = ("<bos><start_of_turn>user\n S \n\nhi<end_of_turn>\n<start_of_turn>model\nyo<end_of_turn>\n"
                "<start_of_turn>user\nx<end_of_turn>\n<start_of_turn>model\n")
    if rendered != expected:
        wrong += 1
        print("WRONG chat template: %r" % rendered)
    print("%d texts: %d wrong, %d known differences (transformers %s)" % (len(texts), wrong, allowed,
                                                                        transformers.__version__))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
