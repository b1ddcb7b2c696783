"""Inputs that nobody thought of, made from good ones at random (seed 7): an error for each, and never a fault."""

import copy
import json
import random
from pathlib import Path
from typing import Any

from conftest import Gateway, rows
from gateway.rows import check_rows

SEED = 7
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    2**63,
    -(2**70),
    1e308,
    "",
    "x" * 5000,
    "\u0000",
    "\ud800",
    "../../etc/passwd",
    "'; DROP TABLE jobs; --",
    "gs://b/" + "a/" * 600,
    [],
    [[]] * 100,
    {},
    {"a": {"b": {"c": []}}},
]


def mutated(value: Any, chance: random.Random) -> Any:
    """With one place changed: a member replaced, removed, doubled under another name, or a value swapped for an odd one."""
    value = copy.deepcopy(value)
    inner: Any = value
    while True:
        name = chance.choice(sorted(inner))
        if isinstance(inner[name], dict) and inner[name] and chance.random() < 0.7:
            inner = inner[name]
            continue
        what = chance.randrange(4)
        if what == 0:
            del inner[name]
        elif what == 1:
            inner[name + chance.choice(["", "_", "\n", "é"])] = chance.choice(ODD)
        elif what == 2:
            inner[chance.choice(["__proto__", "path", "command", "env", ""])] = chance.choice(ODD)
        else:
            inner[name] = chance.choice(ODD)
        return value


def test_mutated_bodies_are_refused_or_understood(gateway: Gateway) -> None:
    chance = random.Random(SEED)
    good = gateway.job_body(training={"max_steps": 1, "lora": {"rank": 2}}, labels={"a": "b"})
    before = {job["id"] for job in gateway.client.get("/jobs?limit=100").json()["data"]}
    statuses: dict[int, int] = {}
    for number in range(300):
        body = mutated(good, chance)
        path = chance.choice(["/cost-estimates", "/cost-estimates", "/jobs"])
        text = json.dumps(body)
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"mutated-{number}"}
        answer = gateway.client.post(path, content=text, headers=headers)
        assert answer.status_code < 500, (SEED, number, text, answer.text)
        assert answer.status_code < 300 or answer.json()["error"]["message"], text
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
    assert statuses[422] > 100, statuses
    for job in gateway.client.get("/jobs?limit=100").json()["data"]:
        if job["id"] not in before:
            gateway.client.post(f"/jobs/{job['id']}/cancel", json={"save_checkpoint": False})


def test_mutated_bytes_are_refused_or_understood(gateway: Gateway) -> None:
    chance = random.Random(SEED)
    good = json.dumps(gateway.job_body()).encode()
    for number in range(200):
        text = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(text))
            text[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
        answer = gateway.client.post(
            "/cost-estimates", content=bytes(text), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code < 500, (SEED, number, bytes(text), answer.text)


def test_mutated_rows_are_told_by_their_line_and_never_accepted_when_broken(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    file = tmp_path / "rows.jsonl"
    refused = 0
    for _ in range(500):
        lines = [json.loads(line) for line in rows(3).splitlines()]
        row = chance.randrange(3)
        lines[row] = mutated(lines[row], chance)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        report = check_rows(file, 3)
        ids, mask = lines[row].get("input_ids"), lines[row].get("loss_mask")
        good = (
            set(lines[row]) == {"id", "input_ids", "loss_mask"}
            and isinstance(lines[row]["id"], str)
            and ids == json.loads(rows(3).splitlines()[row])["input_ids"]
            and mask == [0, 0, 1, 1]
        )
        assert bool(report.errors) != good, lines[row]
        if report.errors:
            refused += 1
            assert [error["line"] for error in report.errors] == [row + 1]
    assert refused > 300
