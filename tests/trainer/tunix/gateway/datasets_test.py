"""Rows: announced, uploaded in parts that may be lost or repeated, checked."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable

import pytest
from account_test import problem

from conftest import Gateway, dataset_body, rows


def announce(gateway: Gateway, data: bytes, key: str, **changes: object) -> dict[str, object]:
    answer = gateway.client.post("/datasets", json=dataset_body(data) | changes, headers={"Idempotency-Key": key})
    assert answer.status_code in (200, 201), answer.text
    dataset: dict[str, object] = answer.json()
    return dataset


def test_parts_follow_one_another_and_the_last_makes_it_ready(gateway: Gateway) -> None:
    data = rows(6, token=30)
    dataset = announce(gateway, data, "parts")
    assert dataset["state"] == "awaiting_upload" and dataset["upload"]["max_part_bytes"] == 8 * 1024 * 1024
    path = f"/datasets/{dataset['id']}/content"
    assert gateway.client.head(path).headers["upload-offset"] == "0"
    assert gateway.put(str(dataset["id"]), data[:10], 0, len(data)).json()["state"] == "awaiting_upload"
    assert gateway.client.head(path).headers["upload-offset"] == "10"

    repeated = gateway.put(str(dataset["id"]), data[:10], 0, len(data))
    problem(repeated, 416, "range_not_satisfiable")
    assert repeated.headers["upload-offset"] == "10"
    problem(gateway.put(str(dataset["id"]), data[20:30], 20, len(data)), 416, "range_not_satisfiable")
    problem(gateway.put(str(dataset["id"]), data[10:20], 10, len(data) + 1), 416, "range_not_satisfiable")
    problem(gateway.put(str(dataset["id"]), data[10:] + b"x", 10, len(data)), 416, "range_not_satisfiable")
    for header in (None, "bytes 10-20", "bytes 10-9/50", "items 1-2/3", "bytes 10-12/50"):
        answer = gateway.client.put(path, content=b"ab", headers={"Content-Range": header} if header else {})
        problem(answer, 400, "bad_request")

    done = gateway.put(str(dataset["id"]), data[10:], 10, len(data)).json()
    assert done["state"] == "ready" and done["upload"] is None and done["received_bytes"] == len(data)
    assert gateway.client.get(f"/datasets/{dataset['id']}").json() == done
    problem(gateway.put(str(dataset["id"]), data[:1], 0, len(data)), 416, "range_not_satisfiable")


def test_the_same_digest_is_uploaded_once_in_a_project_and_not_shared_with_another(gateway: Gateway) -> None:
    data = rows(5, token=40)
    first = gateway.upload(data)
    again = gateway.client.post("/datasets", json=dataset_body(data), headers={"Idempotency-Key": "another-key"})
    assert again.status_code == 200 and again.json()["id"] == first["id"] and again.json()["state"] == "ready"
    other = gateway.client.post(
        "/datasets", json=dataset_body(data, "beta"), headers={"Idempotency-Key": "another-key"}
    )
    assert other.status_code == 201 and other.json()["state"] == "awaiting_upload"


def test_one_key_makes_one_data_set(gateway: Gateway) -> None:
    data = rows(5, token=50)
    first = announce(gateway, data, "one")
    replay = gateway.client.post("/datasets", json=dataset_body(data), headers={"Idempotency-Key": "one"})
    assert replay.status_code == 200 and replay.json()["id"] == first["id"]
    assert replay.headers["idempotent-replay"] == "true"
    other = gateway.client.post(
        "/datasets", json=dataset_body(data) | {"dataset_key": "x"}, headers={"Idempotency-Key": "one"}
    )
    problem(other, 409, "idempotency_conflict")
    for key in (None, "", "k" * 129, "with\ttab"):
        answer = gateway.client.post(
            "/datasets", json=dataset_body(data), headers={"Idempotency-Key": key} if key is not None else {}
        )
        problem(answer, 400, "bad_request")


GOOD = {"id": "a", "input_ids": [2, 5, 1], "loss_mask": [0, 1, 1]}


@pytest.mark.parametrize(
    ("code", "row"),
    [
        ("members", GOOD | {"text": "x"}),
        ("members", {"id": "a", "input_ids": [1]}),
        ("members", [1]),
        ("types", GOOD | {"id": 7}),
        ("types", GOOD | {"input_ids": [2, 5.0, 1]}),
        ("types", GOOD | {"loss_mask": [0, True, 1]}),
        ("types", GOOD | {"input_ids": "251"}),
        ("types", GOOD | {"input_ids": None}),
        ("lengths", GOOD | {"input_ids": [2, 5]}),
        ("lengths", GOOD | {"input_ids": [], "loss_mask": []}),
        ("range", GOOD | {"input_ids": [2, -1, 1]}),
        ("range", GOOD | {"input_ids": [2, 2**31, 1]}),
        ("mask", GOOD | {"loss_mask": [0, 2, 1]}),
        ("targets", GOOD | {"loss_mask": [0, 0, 0]}),
        ("targets", GOOD | {"loss_mask": [1, 1, 1]}),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_named_by_its_line(gateway: Gateway, code: str, row: object) -> None:
    data = (json.dumps(GOOD) + "\n" + json.dumps(row) + "\n").encode()
    dataset = gateway.upload(data)
    assert dataset["state"] == "invalid"
    assert [(error["line"], error["code"]) for error in dataset["errors"]] == [(2, code)], dataset


@pytest.mark.parametrize("line", [b"{", b"\xff\xfe", b"", b"[" * 100_000, b"\x00"])
def test_a_line_that_is_no_json_is_named_too(gateway: Gateway, line: bytes) -> None:
    data = json.dumps(GOOD).encode() + b"\n" + line + b"\n"
    dataset = gateway.upload(data)
    assert [(error["line"], error["code"]) for error in dataset["errors"]] == [(2, "not_json")]


def test_count_and_digest_must_be_as_announced(gateway: Gateway) -> None:
    data = rows(4, token=60)
    dataset = announce(gateway, data, "count", line_count=5)
    done = gateway.put(str(dataset["id"]), data, 0, len(data)).json()
    assert done["errors"] == [{"line": 4, "code": "line_count", "message": "expected 5 rows, found 4"}]
    dataset = announce(gateway, data, "digest", sha256=hashlib.sha256(b"x").hexdigest())
    done = gateway.put(str(dataset["id"]), data, 0, len(data)).json()
    assert done["state"] == "invalid" and done["errors"][0]["code"] == "sha256"
    job = gateway.post_job("invalid", gateway.job_body(dataset_id=dataset["id"]))
    problem(job, 409, "dataset_not_ready")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"format": "trace"}, "format"),
        ({"bytes": 0}, "bytes"),
        ({"bytes": "7"}, "bytes"),
        ({"sha256": "A" * 64}, "sha256"),
        ({"line_count": 1.5}, "line_count"),
        ({"extra": 1}, "extra"),
        ({"project_id": "../x"}, "project_id"),
        ({"dataset_key": ""}, "dataset_key"),
        ({"manifest": []}, "manifest"),
    ],
)
def test_an_announcement_that_is_wrong_names_the_member(
    gateway: Gateway, changes: dict[str, object], param: str
) -> None:
    answer = gateway.client.post("/datasets", json=dataset_body(rows()) | changes, headers={"Idempotency-Key": "w"})
    assert problem(answer, 422, "validation_failed")["param"] == param


def test_a_data_set_larger_than_the_service_takes_is_refused_before_its_upload(
    make_gateway: Callable[..., Gateway],
) -> None:
    gateway = make_gateway("--max-dataset-bytes", "100").start()
    answer = gateway.client.post("/datasets", json=dataset_body(rows()), headers={"Idempotency-Key": "big"})
    problem(answer, 413, "too_large")


def test_deleting_frees_the_disk_but_not_under_a_job(gateway: Gateway) -> None:
    data = rows(4, token=70)
    dataset = gateway.upload(data)
    folder = gateway.data / "datasets" / dataset["id"]
    job = gateway.submit("uses", seed=2, steps=1000, dataset_id=dataset["id"])
    problem(gateway.client.delete(f"/datasets/{dataset['id']}"), 409, "dataset_in_use")
    gateway.client.post(f"/jobs/{job['id']}/cancel", json={"save_checkpoint": False})
    gateway.wait(job["id"])
    assert gateway.client.delete(f"/datasets/{dataset['id']}").status_code == 204
    assert not folder.exists()
    problem(gateway.client.get(f"/datasets/{dataset['id']}"), 404, "not_found")
    assert gateway.upload(data)["id"] != dataset["id"]  # the key's first data set is gone: it makes another


def test_an_upload_goes_on_after_the_gateway_was_killed(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway().start()
    data = rows(50)
    dataset = announce(gateway, data, "killed")
    gateway.put(str(dataset["id"]), data[:100], 0, len(data))
    gateway.kill()
    content = gateway.data / "datasets" / str(dataset["id"]) / "content.jsonl"
    with content.open("ab") as file:  # a part that was written and whose transaction was lost
        file.write(b"lost part")
    gateway.start()
    offset = int(gateway.client.head(f"/datasets/{dataset['id']}/content").headers["upload-offset"])
    assert offset == 100
    assert gateway.put(str(dataset["id"]), data[100:], 100, len(data)).json()["state"] == "ready"
    assert content.read_bytes() == data


def test_a_check_that_was_cut_off_is_made_by_the_next_gateway(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway()
    gateway.start()
    data = rows(3)
    dataset = gateway.upload(data)
    gateway.kill()
    with sqlite3.connect(gateway.data / "gateway.db") as database:
        database.execute("UPDATE datasets SET state = 'awaiting_upload', stats = NULL")
    (gateway.data / "datasets" / "ds_left0ver").mkdir()
    gateway.start()
    assert gateway.client.get(f"/datasets/{dataset['id']}").json()["state"] == "ready"
    assert not os.path.lexists(gateway.data / "datasets" / "ds_left0ver")
