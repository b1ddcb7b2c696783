"""Keys, accelerators, quota, estimates, and what holds for every request."""

import json
import re
import sqlite3
from collections.abc import Callable

import httpx
import pytest

from conftest import GATEWAY, ROOT, Gateway, rows


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    error: dict[str, object] = answer.json()["error"]
    assert set(error) == {"code", "message", "type", "param", "request_id", "retry_after"}
    assert error["code"] == code, error
    assert error["request_id"] == answer.headers["x-request-id"]
    return error


def test_the_key_tells_who_it_is_and_never_itself(gateway: Gateway) -> None:
    answer = gateway.client.get("/auth/test")
    assert answer.json() == {
        "ok": True,
        "key": {"prefix": "tunix_sk_dev", "last4": gateway.key[-4:], "expires_at": None},
        "projects": [{"id": "alpha", "role": "member"}, {"id": "beta", "role": "member"}],
        "scopes": ["datasets:read", "datasets:write", "jobs:read", "jobs:write"],
    }
    assert answer.headers["tunix-contract"] == "1"
    assert re.fullmatch(r"req_[0-9a-f]{16}", answer.headers["x-request-id"])


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Basic abc",
        "Bearer tunix_sk_dev_nobody",
        "Bearer " + "x" * 5000,
        "Bearer tunix_sk_dev_" + "A" * 43,
    ],
)
def test_a_key_that_is_not_ours_is_refused_in_the_guides_words(gateway: Gateway, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    for path in ("/auth/test", "/jobs", "/accelerators", "/jobs/job_abc123xyz/events"):
        answer = httpx.get(f"http://127.0.0.1:{gateway.port}/v1{path}", headers=headers)
        assert problem(answer, 401, "invalid_api_key")["message"] == "Invalid API key"
        assert answer.headers["www-authenticate"] == "Bearer"


def test_expired_and_revoked_keys_are_refused_at_once(gateway: Gateway) -> None:
    short = gateway.command("keys", "create", "--project", "alpha", "--expires-in", "1h", "--kind", "prod").strip()
    assert short.startswith("tunix_sk_prod_")
    client = gateway.client_for(short)
    assert client.get("/auth/test").json()["key"]["expires_at"] is not None
    with sqlite3.connect(gateway.data / "gateway.db") as database:
        database.execute("UPDATE keys SET expires_at = '2020-01-01T00:00:00.000Z' WHERE last4 = ?", (short[-4:],))
    problem(client.get("/auth/test"), 401, "expired_api_key")

    other = gateway.command("keys", "create", "--project", "alpha", "--name", "laptop").strip()
    client = gateway.client_for(other)
    assert client.get("/auth/test").status_code == 200
    line = next(line for line in gateway.command("keys", "list").splitlines() if "laptop" in line)
    assert other not in line
    gateway.command("keys", "revoke", line.split()[0])
    problem(client.get("/auth/test"), 401, "invalid_api_key")


def test_a_key_does_what_its_scopes_say_and_no_more(gateway: Gateway) -> None:
    reader = gateway.client_for(gateway.command("keys", "create", "--project", "alpha", "--scope", "jobs:read").strip())
    assert reader.get("/jobs").status_code == 200
    body = gateway.job_body()
    problem(reader.post("/jobs", json=body, headers={"Idempotency-Key": "k"}), 403, "forbidden_scope")
    problem(reader.get(f"/datasets/{body['dataset_id']}"), 403, "forbidden_scope")


def test_other_projects_are_forbidden_and_their_things_are_not_there(gateway: Gateway) -> None:
    job = gateway.submit("mine")
    stranger = gateway.client_for(gateway.command("keys", "create", "--project", "gamma").strip())
    problem(stranger.get("/projects/alpha/quota"), 403, "forbidden_project")
    problem(stranger.get("/jobs?project_id=alpha"), 403, "forbidden_project")
    for call in (
        stranger.get(f"/jobs/{job['id']}"),
        stranger.post(f"/jobs/{job['id']}/cancel"),
        stranger.get(f"/jobs/{job['id']}/events"),
        stranger.get(f"/jobs/{job['id']}/artifacts"),
        stranger.get(f"/jobs/{job['id']}/metrics"),
        stranger.get(f"/datasets/{job['spec']['dataset_id']}"),
        stranger.delete(f"/jobs/{job['id']}/artifacts?kind=log"),
    ):
        problem(call, 404, "not_found")
    assert stranger.get("/jobs").json()["data"] == []
    body = gateway.job_body() | {"project_id": "gamma"}
    problem(stranger.post("/jobs", json=body, headers={"Idempotency-Key": "k"}), 404, "not_found")
    gateway.wait(job["id"])


def test_the_accelerators_are_those_served_with_prices_and_their_date(gateway: Gateway) -> None:
    (cpu,) = gateway.client.get("/accelerators").json()
    assert (cpu["name"], cpu["kind"], cpu["cores"], cpu["usd_per_hour"]) == ("cpu", "cpu", 1, 0)
    assert cpu["hbm_bytes_per_core"] > 2**28 and cpu["prices_as_of"]


def test_the_price_tables_of_gateway_and_client_agree_where_both_have_an_accelerator() -> None:
    ours = json.loads((GATEWAY / "accelerators.json").read_text())
    theirs = json.loads((ROOT / "configs" / "accelerators.json").read_text())
    by_name = {entry["name"]: entry for entry in theirs["accelerators"]}
    shared = [entry for entry in ours["accelerators"] if entry["name"] in by_name]
    assert len(shared) >= 2 and ours["as_of"] == theirs["as_of"]
    for entry in shared:
        other = by_name[entry["name"]]
        assert {key: entry[key] for key in other} == other


def test_quota_counts_jobs_that_have_not_ended(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway("--max-jobs", "2", "--console-url", "https://console.example.org/q").start()
    quota = gateway.client.get("/projects/alpha/quota").json()
    assert quota == {
        "limit": 2,
        "in_use": 0,
        "available": 2,
        "resets_at": None,
        "console_url": "https://console.example.org/q",
    }
    first = gateway.submit("a", seed=2, steps=1000)
    gateway.submit("b", seed=2, steps=1000)
    assert gateway.client.get("/projects/alpha/quota?accelerator=cpu").json()["available"] == 0
    answer = gateway.post_job("c", gateway.job_body())
    assert problem(answer, 429, "quota_exceeded")["message"] == "cpu quota exceeded"
    assert "retry-after" not in answer.headers
    assert gateway.client.get("/projects/beta/quota").json()["in_use"] == 0
    gateway.command("quota", "--project", "alpha", "--accelerator", "cpu", "--max-jobs", "3")
    third = gateway.submit("c")
    gateway.client.post(f"/jobs/{third['id']}/cancel", json={})
    assert gateway.client.get("/projects/alpha/quota").json() | {"console_url": None} == {
        "limit": 3,
        "in_use": 2,
        "available": 1,
        "resets_at": None,
        "console_url": None,
    }
    problem(gateway.client.get("/projects/alpha/quota?accelerator=tpu-v3-8"), 422, "validation_failed")
    gateway.client.post(f"/jobs/{first['id']}/cancel", json={"save_checkpoint": False})


def test_an_estimate_is_arithmetic_that_one_can_follow(gateway: Gateway) -> None:
    body = gateway.job_body(steps=None) | {"training": {"num_epochs": 3, "batch_size": 2}}
    made = gateway.client.post("/cost-estimates", json=body).json()
    assert made["steps"] == 6  # 4 rows, 2 a step, 3 times
    assert made["tokens"] == 48  # 4 rows of 4 tokens, 3 times
    # embeddings 512*32, 2 layers of attention 32*(2*2+2*1)*16 + mlp 3*32*64 + norms 2*32, final norm 32
    parameters = 512 * 32 + 2 * (32 * 6 * 16 + 3 * 32 * 64 + 64) + 32
    assert made["checkpoint_bytes"] == 12 * parameters and made["final_model_bytes"] == 2 * parameters
    assert made["memory"]["needed_bytes_per_core"] > 16 * parameters and made["memory"]["fits"]
    assert made["usd"] == {"low": 0, "high": 0} and made["hours"]["low"] <= made["hours"]["high"]
    assert made["assumptions"] and made["spot"] is None

    totals = gateway.client.post(
        "/cost-estimates", json=body | {"dataset_id": None, "totals": {"rows": 4, "tokens": 16, "longest_row": 4}}
    ).json()
    assert totals == made
    unknown = gateway.client.post("/cost-estimates", json=body | {"dataset_id": None}).json()
    assert unknown["steps"] is None and unknown["usd"]["high"] is None
    lora = gateway.client.post(
        "/cost-estimates", json=body | {"training": {"max_steps": 5, "lora": {"rank": 2, "target_modules": ["q_proj"]}}}
    ).json()
    assert lora["steps"] == 5 and lora["checkpoint_bytes"] == 12 * 2 * 2 * (32 + 32)


def test_more_than_max_cost_is_refused_before_anything_runs(
    make_gateway: Callable[..., Gateway], tmp_path: object
) -> None:
    gateway = make_gateway("--accelerator", "tpu-v3-8").start()
    body = gateway.job_body(max_cost_usd=0.01)
    message = problem(gateway.post_job("k", body), 402, "cost_limit_exceeded")["message"]
    assert "$0.40 to $4.00" in str(message)  # 0.05 to 0.5 hours at $8
    assert gateway.client.get("/jobs").json()["data"] == []
    job = gateway.submit("k", max_cost_usd=100)
    assert job["accelerator"] == "tpu-v3-8" and job["region"] == "us-central1"
    spot = gateway.submit("s", resources={"accelerator": "tpu-v3-8", "region": "us-central1", "spot": True})
    assert spot["spot"] is True
    for resources in ({"accelerator": "tpu-v2-8"}, {"accelerator": "tpu-v3-8", "region": "mars"}):
        problem(gateway.post_job("x", body | {"resources": resources}), 422, "validation_failed")
    quota_of_tpu = ("quota", "--project", "alpha", "--accelerator", "tpu-v3-8", "--max-jobs", "0")
    gateway.command(*quota_of_tpu)
    answer = gateway.post_job("q", gateway.job_body())
    assert problem(answer, 429, "quota_exceeded")["message"] == "TPU quota exceeded"


def test_another_major_version_of_the_contract_is_refused(gateway: Gateway) -> None:
    answer = gateway.client.get("/auth/test", headers={"Tunix-Contract": "2"})
    assert problem(answer, 400, "bad_request")["param"] == "Tunix-Contract"
    assert gateway.client.get("/auth/test", headers={"Tunix-Contract": "1.7"}).status_code == 200
    plain = httpx.get(
        f"http://127.0.0.1:{gateway.port}/v1/auth/test", headers={"Authorization": f"Bearer {gateway.key}"}
    )
    assert plain.status_code == 200 and plain.headers["tunix-contract"] == "1"


def test_bodies_are_bounded_whether_they_say_their_length_or_not(gateway: Gateway) -> None:
    big = b" " * 1_000_001
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    problem(gateway.client.post("/jobs", content=big, headers=headers), 413, "too_large")
    chunks = (b" " * 100_000 for _ in range(11))
    problem(gateway.client.post("/jobs", content=chunks, headers=headers), 413, "too_large")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"nul",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"1" * 5000,
        b'{"max_cost_usd": 1e999}',
        b'{"max_cost_usd": NaN}',
    ],
)
def test_what_is_no_job_is_an_error_and_never_a_fault(gateway: Gateway, body: bytes) -> None:
    answer = gateway.client.post(
        "/jobs", content=body, headers={"Content-Type": "application/json", "Idempotency-Key": "k"}
    )
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["error"]["code"] in ("bad_request", "validation_failed")


def test_what_is_not_there_has_the_contracts_error_body(gateway: Gateway) -> None:
    problem(gateway.client.get("/nothing"), 404, "not_found")
    problem(gateway.client.put("/jobs"), 405, "not_found")
    problem(gateway.client.get("/jobs/"), 404, "not_found")


def test_too_many_requests_are_asked_to_come_later(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway("--requests-per-second", "5").start()
    answers = [gateway.client.get("/auth/test") for _ in range(30)]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 200 in {answer.status_code for answer in answers} and refused
    assert problem(refused[0], 429, "rate_limited")["retry_after"] == 1 and refused[0].headers["retry-after"] == "1"


def test_rows_of_the_estimate_are_those_uploaded(gateway: Gateway) -> None:
    data = rows(3, token=20)
    dataset = gateway.upload(data)
    assert (dataset["tokens"], dataset["target_tokens"], dataset["longest_row"]) == (12, 6, 4)
