#!/usr/bin/env python3
"""Makes the demo's data: train.jsonl, test.jsonl and corpus.txt. Standard library only; the same bytes every time.

The task can only be solved by learning the rule, never by remembering rows: every prompt is a random pick of words, and a
prompt goes to the test side when the SHA-256 of its set of words says so, so no prompt, and no answer, can be on both sides.
The script ends with a check of that, and with the score of answering each test prompt with the nearest training answer.
"""
import hashlib
import json
import pathlib
import random

HERE = pathlib.Path(__file__).resolve().parent
WORDS = """apple bread chair cloud dream eagle flame grape heart island jacket kettle lemon meadow needle ocean paper queen
river stone table uncle valley window yellow zebra anchor basket candle desert engine forest garden hammer igloo jungle
kitten ladder marble napkin orange pencil quartz rabbit silver tunnel violin walnut""".split()
TASKS = (
    ("Reverse the list: {}", lambda words: " ".join(reversed(words))),
    ("Repeat the list: {}", lambda words: " ".join(words)),
    ("Move the first word to the end: {}", lambda words: " ".join(words[1:] + words[:1])),
)
TRAIN_ROWS, TEST_ROWS = 4000, 240


def is_test(words):
    return hashlib.sha256(" ".join(sorted(words)).encode()).digest()[0] < 16  # one in sixteen


def make_rows():
    rng = random.Random(2024)
    train, test, seen = [], [], set()
    while len(train) < TRAIN_ROWS or len(test) < TEST_ROWS:
        words = rng.sample(WORDS, rng.choice((3, 4)))
        prompt, answer = TASKS[rng.randrange(len(TASKS))]
        prompt, answer = prompt.format(" ".join(words)), answer(words)
        side, limit, name = (test, TEST_ROWS, "test") if is_test(words) else (train, TRAIN_ROWS, "train")
        if prompt in seen or len(side) == limit:
            continue
        seen.add(prompt)
        side.append({"id": f"{name}-{len(side) + 1:05d}", "prompt": prompt, "response": "Answer: " + answer, "metadata": {}})
    return train, test


def nearest_copy_score(train, test):
    """Exact match of copying the answer of the training prompt that shares most words in most places."""
    rows = [(row["prompt"].split(), row["response"]) for row in train]
    hits = 0
    for row in test:
        words = row["prompt"].split()

        def likeness(other):
            places = sum(a == b for a, b in zip(words, other[0]))
            return places + 0.5 * len(set(words) & set(other[0]))

        hits += max(rows, key=likeness)[1] == row["response"]
    return hits / len(test)


def main():
    train, test = make_rows()
    for name, rows in (("train", train), ("test", test)):
        with open(HERE / f"{name}.jsonl", "w", encoding="utf-8") as out:
            for row in rows:
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
    with open(HERE / "corpus.txt", "w", encoding="utf-8") as out:
        for row in train[:1500]:
            out.write(row["prompt"] + "\n" + row["response"] + "\n")
        for word in WORDS:  # each word at the start of a line, too
            out.write("\n".join([word] * 20) + "\n")
    overlap = {row["prompt"] for row in train} & {row["prompt"] for row in test}
    overlap |= {row["response"] for row in train} & {row["response"] for row in test}
    assert not overlap, overlap
    print(f"{len(train)} training rows, {len(test)} test rows, no prompt and no answer on both sides")
    print(f"copying the nearest training answer scores {100 * nearest_copy_score(train, test):.1f} %")


if __name__ == "__main__":
    main()
