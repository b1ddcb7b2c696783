"""Files that a job leaves: ranges, digests, and names that lead nowhere else."""

import hashlib
import json
import os
import socket
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from account_test import problem

from conftest import Gateway
from gateway.artifacts import open_below, path_problem


@pytest.fixture(scope="module")
def finished(gateway: Gateway) -> dict[str, Any]:
    return gateway.wait(gateway.submit("finished")["id"])


def test_every_file_is_listed_with_its_digest_once_the_job_has_ended(
    gateway: Gateway, finished: dict[str, Any]
) -> None:
    page = gateway.client.get(f"/jobs/{finished['id']}/artifacts").json()
    assert page["complete"] is True
    kinds = {artifact["path"]: (artifact["kind"], artifact["step"]) for artifact in page["data"]}
    assert kinds == {
        "final_model/config.json": ("final_model", None),
        "final_model/model.safetensors": ("final_model", None),
        "final_model/sub/.hidden..name": ("final_model", None),
        "metrics.jsonl": ("metrics", None),
        "run_manifest.json": ("run_manifest", None),
        "logs/attempt-1.log": ("log", None),
        "checkpoints/9/state": ("checkpoint", 9),
        "checkpoints/10/state": ("checkpoint", 10),
    }
    for artifact in page["data"]:
        answer = gateway.download(finished["id"], artifact["path"])
        assert hashlib.sha256(answer.content).hexdigest() == artifact["sha256"]
        assert len(answer.content) == artifact["size"] == int(answer.headers["content-length"])
        assert answer.headers["etag"] == f'"{artifact["sha256"]}"' and answer.headers["accept-ranges"] == "bytes"
    manifest = json.loads(gateway.download(finished["id"], "run_manifest.json").content)
    assert manifest["spec"] == finished["spec"] and len(manifest["files"]) == 3
    metrics = gateway.download(finished["id"], "metrics.jsonl").text
    assert metrics == gateway.client.get(f"/jobs/{finished['id']}/metrics").text


def test_a_job_that_runs_has_no_files_yet(gateway: Gateway) -> None:
    job = gateway.submit("runs", seed=2, steps=100)
    assert gateway.client.get(f"/jobs/{job['id']}/artifacts").json() == {"data": [], "complete": False}
    problem(gateway.client.delete(f"/jobs/{job['id']}/artifacts?kind=checkpoint"), 409, "job_not_terminal")
    gateway.client.post(f"/jobs/{job['id']}/cancel", json={"save_checkpoint": False})
    gateway.wait(job["id"])


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-", 0, -1),
        ("bytes=100-199", 100, 199),
        ("bytes=1000-", 1000, -1),
        ("bytes=-5", -5, -1),
        ("bytes=0-0", 0, 0),
        ("bytes=262143-", 262143, -1),
        ("bytes=-9999999", 0, -1),
        ("bytes=5-99999999", 5, -1),
        ("bytes=5-99999999999999999999", 5, -1),
    ],
)
def test_a_range_gives_those_bytes(
    gateway: Gateway, finished: dict[str, Any], asked: str, first: int, last: int
) -> None:
    whole = gateway.download(finished["id"], "final_model/model.safetensors").content
    size = len(whole)
    first, last = first % size if first else 0, last % size
    part = gateway.download(finished["id"], "final_model/model.safetensors", Range=asked)
    assert (part.status_code, part.content) == (206, whole[first : last + 1])
    assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"


def test_a_range_holds_only_while_the_file_is_the_one_meant(gateway: Gateway, finished: dict[str, Any]) -> None:
    path = "final_model/model.safetensors"
    whole = gateway.download(finished["id"], path)
    same = gateway.download(finished["id"], path, **{"Range": "bytes=7-", "If-Range": whole.headers["etag"]})
    assert (same.status_code, same.content) == (206, whole.content[7:])
    for tag in ('"other"', "W/" + whole.headers["etag"], "Fri, 27 Nov 2026 00:00:00 GMT"):
        other = gateway.download(finished["id"], path, **{"Range": "bytes=7-", "If-Range": tag})
        assert (other.status_code, len(other.content)) == (200, len(whole.content))
    for ignored in ("bytes=5-2", "bytes=-", "bytes=0-1,5-6", "items=0-1", "bytes=x-y", "bytes 0-1"):
        assert gateway.download(finished["id"], path, Range=ignored).status_code == 200
    for beyond in (f"bytes={len(whole.content)}-", "bytes=999999999999-", "bytes=99999999999999999999-", "bytes=-0"):
        answer = gateway.download(finished["id"], path, Range=beyond)
        problem(answer, 416, "range_not_satisfiable")
        assert answer.headers["content-range"] == f"bytes */{len(whole.content)}"
    head = gateway.client.head(f"/jobs/{finished['id']}/artifacts/{path}")
    assert head.headers["content-length"] == str(len(whole.content)) and head.headers["etag"] == whole.headers["etag"]


def raw_get(gateway: Gateway, path: str) -> int:
    """The status of a request whose path nobody has tidied."""
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}\r\nConnection: close\r\n\r\n".encode(
                "latin-1"
            )
        )
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert b"root:" not in answer and b"SQLite" not in answer
    return int(answer.split()[1])


@pytest.mark.parametrize(
    "path",
    [
        "../foo",
        "./../foo",
        "foo/../bar",
        "foo/bar/..",
        "../../../gateway.db",
        "..%2f..%2f..%2fgateway.db",
        "%2e%2e/%2e%2e/%2e%2e/gateway.db",
        "final_model/../../job.json",
        "/etc/passwd",
        "//etc/passwd",
        "%2fetc%2fpasswd",
        "C:%5cwindows",
        "%5c%5cserver%5cshare",
        "final_model%00",
        "final_model/config.json%00",
        "final_model/config.json/",
        "final_model/config.json%0a",
        "final_model//config.json",
        "FINAL_MODEL/config.json",
        "%ff%fe",
        "x" * 3000,
        "",
        "job.json",
        "output/final_model/config.json",
        "runner.lock",
    ],
)
def test_a_name_that_is_not_in_the_list_opens_nothing(gateway: Gateway, finished: dict[str, Any], path: str) -> None:
    assert raw_get(gateway, f"/v1/jobs/{finished['id']}/artifacts/{path}") in (400, 404)


def test_the_rules_for_names_refuse_what_leads_away_and_nothing_else() -> None:
    for bad in (
        "",
        "..",
        "../foo",
        "./../foo",
        "foo/../bar",
        "foo/bar/..",
        "/abs",
        "a//b",
        "a/",
        "./a",
        "a\\b",
        "C:x",
        "a\0b",
        "a\nb",
        "a\x7fb",
        "x" * 256,
        "a/" * 16 + "b",
        "a" * 1025,
        "\udcff",
    ):
        assert path_problem(bad) is not None, repr(bad)
    for good in ("foo..bar", ".foo/.bar", "...", "a/b/c", "x" * 255, "größe", "a b"):
        assert path_problem(good) is None, repr(good)


def test_a_link_at_any_component_is_not_followed(tmp_path: Any) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "file").write_bytes(b"x")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "in" / "deep")
    (tmp_path / "in" / "deep" / "linked").symlink_to(tmp_path / "in" / "deep" / "file")
    os.mkfifo(tmp_path / "in" / "pipe")
    with open_below(tmp_path, "in/deep/file") as file:
        assert file.read() == b"x"
    for path in ("in/link/file", "in/deep/linked", "in/pipe", "in/deep", "in/nothing", "in/deep/file/x", "../x"):
        with pytest.raises((OSError, ValueError)), open_below(tmp_path, path):
            pass
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        with pytest.raises(OSError), open_below(tmp_path, "in/link/file"):
            pass
    assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208


@pytest.mark.parametrize("seed", [10, 11, 12, 13, 14, 15, 16])
def test_files_planted_among_the_results_are_never_served(gateway: Gateway, seed: int) -> None:
    done = gateway.wait(gateway.submit(f"planted-{seed}", seed=seed)["id"])
    assert (done["state"], done["error"]["code"]) == ("failed", "integrity")
    assert all(artifact["kind"] != "final_model" for artifact in gateway.artifacts(done["id"]))


def test_a_link_planted_after_the_job_has_ended_is_not_followed(gateway: Gateway) -> None:
    done = gateway.wait(gateway.submit("planted-later")["id"])
    file = gateway.data / "jobs" / done["id"] / "output" / "final_model" / "config.json"
    file.unlink()
    file.symlink_to("/etc/passwd")
    answer = gateway.download(done["id"], "final_model/config.json")
    assert answer.status_code == 500 and b"root:" not in answer.content


def test_old_checkpoints_are_deleted_and_the_rest_stays(gateway: Gateway) -> None:
    done = gateway.wait(gateway.submit("delete")["id"])
    folder = gateway.data / "jobs" / done["id"] / "checkpoints"
    path = f"/jobs/{done['id']}/artifacts"
    assert gateway.client.delete(path + "?kind=checkpoint&older_than_days=30").json() == {"deleted": [], "bytes": 0}
    gone = gateway.client.delete(path + "?kind=checkpoint").json()
    assert gone == {"deleted": ["checkpoints/10/state", "checkpoints/9/state"], "bytes": 128}
    assert [entry for entry in folder.rglob("*") if entry.is_file()] == []
    kinds = {artifact["kind"] for artifact in gateway.artifacts(done["id"])}
    assert kinds == {"final_model", "metrics", "run_manifest", "log"}
    assert gateway.download(done["id"], "checkpoints/9/state").status_code == 404
    for query in ("", "?kind=everything", "?kind=checkpoint&older_than_days=-1"):
        problem(gateway.client.delete(path + query), 422, "validation_failed")


def test_a_deletion_that_was_cut_off_is_finished_by_the_next_gateway(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway().start()
    done = gateway.wait(gateway.submit("half")["id"])
    gateway.kill()
    with sqlite3.connect(gateway.data / "gateway.db") as database:
        database.execute("UPDATE artifacts SET deleting = 1 WHERE kind = 'checkpoint'")
    gateway.start()
    assert not list((gateway.data / "jobs" / done["id"] / "checkpoints").rglob("state"))
