"""Jobs: one for each key, followed to its end, whichever that is."""

import itertools
import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from account_test import problem

from conftest import TINY_MODEL, Gateway, expected_weights, holders, rows


def test_a_job_goes_from_pending_to_completed_and_its_model_is_that_of_its_rows(gateway: Gateway) -> None:
    job = gateway.submit("whole", max_cost_usd=10)
    assert job["id"].startswith("job_") and job["state"] in ("pending", "running")
    done = gateway.wait(job["id"])
    assert (done["state"], done["step"], done["total_steps"], done["progress"]) == ("completed", 10, 10, 1.0), done
    assert done["error"] is None and done["restarts"] == 0 and done["cost_usd"] == 0 and done["attempt"] == 1
    assert done["loss"] == round(8 / 11, 6) and done["epoch"] == 1
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]
    assert done["dashboard_url"] == f"http://127.0.0.1:{gateway.port}/v1/jobs/{job['id']}"
    assert done["spec"]["labels"] == {"run_id": "r"} and done["spec"]["training"]["batch_size"] == 4
    assert gateway.weights(job["id"]) == expected_weights(rows())


def test_the_runner_is_told_everything_and_nothing_of_the_clients_paths(gateway: Gateway) -> None:
    job = gateway.submit("spec", training={"max_steps": 3, "lora": {"rank": 4}}, labels={"path": "/etc"})
    gateway.wait(job["id"])
    spec = json.loads((gateway.data / "jobs" / job["id"] / "job.json").read_text())
    assert set(spec) == {"schema_version", "job_id", "model", "data", "training", "accelerator", "output"}
    assert spec["job_id"] == job["id"] and spec["model"]["path"] == str(
        (gateway.folder / "models/tiny/gemma").resolve()
    )
    assert Path(spec["data"]["path"]).read_bytes() == rows()
    assert (spec["data"]["rows"], spec["data"]["tokens"], spec["data"]["longest_row"]) == (4, 16, 4)
    assert spec["training"]["lora"] == {
        "rank": 4,
        "alpha": 32.0,
        "dropout": 0.0,
        "rslora": False,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    }
    assert spec["accelerator"] == {"name": "cpu", "kind": "cpu", "cores": 1, "mesh": {"fsdp": 1, "tp": 1}}
    assert spec["output"] == {"checkpoint_every": 3, "keep": 2, "model_dtype": None}
    assert "/etc" not in json.dumps(spec)


def test_one_key_makes_one_job_however_many_ask_at_once(gateway: Gateway) -> None:
    body = gateway.job_body(experiment_name="at-once")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: gateway.post_job("same-key", body), range(48)))
    assert {answer.status_code for answer in answers} == {200, 201}
    assert [answer.status_code for answer in answers].count(201) == 1
    assert len({answer.json()["id"] for answer in answers}) == 1
    replays = [answer for answer in answers if answer.status_code == 200]
    assert all(answer.headers["idempotent-replay"] == "true" for answer in replays)
    listed = gateway.client.get("/jobs", params={"experiment": "at-once"}).json()["data"]
    assert len(listed) == 1
    other = gateway.post_job("same-key", body | {"experiment_name": "another"})
    assert problem(other, 409, "idempotency_conflict")["param"] == "Idempotency-Key"
    again = gateway.post_job("same-key", gateway.job_body(experiment_name="at-once", project_id="beta"))
    assert again.status_code == 201  # a key is its project's
    for answer in (answers[0], again):
        gateway.wait(answer.json()["id"])


def test_a_replay_answers_even_when_the_job_could_not_be_submitted_any_more(gateway: Gateway) -> None:
    data = rows(4, token=90)
    body = gateway.job_body(dataset_id=gateway.upload(data)["id"])
    first = gateway.post_job("replay", body).json()
    gateway.wait(first["id"])
    assert gateway.client.delete(f"/datasets/{body['dataset_id']}").status_code == 204
    replay = gateway.post_job("replay", body)
    assert replay.status_code == 200 and replay.json()["id"] == first["id"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("extra", 1),
        ("experiment_name", ""),
        ("experiment_name", "a\nb"),
        ("dataset_id", "../x"),
        ("dataset_id", None),
        ("model.base_model", "/etc"),
        ("model.base_model", "../secrets"),
        ("model.base_model", "tiny/../tiny/gemma"),
        ("model.base_model", "gs://x/y"),
        ("model.base_model", "tiny/none"),
        ("model.base_model", 7),
        ("model.path", "/etc"),
        ("model.revision", "../x"),
        ("training.batchsize", 2),
        ("training.batch_size", 0),
        ("training.batch_size", "4"),
        ("training.batch_size", True),
        ("training.learning_rate", 0),
        ("training.seed", -1),
        ("training.lr_scheduler", "polynomial"),
        ("training.optimizer", "adafactor"),
        ("training.precision", "fp16"),
        ("training.lora", {"rank": 0}),
        ("training.lora", {"rank": 4, "init_from": "/x"}),
        ("training.lora", {"rank": 4, "dropout": 0.1}),
        ("training.lora", {"rank": 4, "target_modules": ["q_proj", "query"]}),
        ("training.lora", {"rank": 4, "target_modules": ["model.layers.2.*"]}),  # the model has two
        ("training.activation_checkpointing", "auto"),
        ("training.batch_tokens", 3),  # a row has four
        ("training.stochastic_rounding", True),
        ("training.max_seq_length", 3),
        ("resources.accelerator", "tpu-v9"),
        ("resources.spot", True),
        ("output.keep", 0),
        ("output.uri", "file:///etc"),
        ("output.uri", "gs://unknown/x"),
        ("output.uri", "gs://b/../../etc"),
        ("output.command", "rm"),
        ("max_cost_usd", 0),
        ("timeout_seconds", 0),
        ("timeout_seconds", 1.5),
        ("labels", {"a": 1}),
        ("client.shell", "x"),
    ],
)
def test_a_member_that_is_wrong_is_named_by_its_path(gateway: Gateway, path: str, value: Any) -> None:
    body = gateway.job_body()
    *sections, name = path.split(".")
    inner = body
    for section in sections:
        inner = inner[section]
    inner[name] = value
    error = problem(gateway.post_job("wrong", body), 422, "validation_failed")
    # a member inside lora or labels is named with its own place
    assert str(error["param"]).startswith(path), error
    assert str(error["message"]).startswith(path), error


@pytest.mark.parametrize(
    ("training", "named", "said"),
    [
        ({"lora": {"rank": 4, "dropout": 0.1}}, "training.lora.dropout", "set it to 0"),
        ({"lora": {"rank": 4, "target_modules": ["query"]}}, "training.lora.target_modules", '"query" matches no'),
        ({"num_epochs": 1e-12}, "training.num_epochs", "no step at all"),
        ({"max_steps": 3, "batch_tokens": 3}, "training.batch_tokens", "a row of 4 tokens"),
    ],
)
def test_what_the_runner_would_refuse_is_refused_at_once_and_by_the_estimate_too(
    gateway: Gateway, training: dict[str, Any], named: str, said: str
) -> None:
    body = gateway.job_body(training=training, experiment_name="never")
    for answer in (gateway.post_job("never", body), gateway.client.post("/cost-estimates", json=body)):
        error = problem(answer, 422, "validation_failed")
        assert error["param"] == named and said in str(error["message"]), error
    assert gateway.client.get("/jobs", params={"experiment": "never"}).json()["data"] == []


def put_model(gateway: Gateway, name: str, config: dict[str, Any]) -> None:
    folder = gateway.folder / "models" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))


def test_a_model_that_google_tunix_cannot_train_is_refused_with_the_reason(gateway: Gateway) -> None:
    put_model(gateway, "tiny/eps", TINY_MODEL | {"rms_norm_eps": 1e-5, "attention_bias": True})
    error = problem(
        gateway.post_job("eps", gateway.job_body(model={"base_model": "tiny/eps", "revision": None})),
        422,
        "validation_failed",
    )
    assert error["param"] == "model.base_model"
    assert '"rms_norm_eps": 1e-05' in str(error["message"]) and '"attention_bias"' in str(error["message"])
    assert "--backend native" in str(error["message"]) and str(gateway.folder) not in str(error)
    broken: list[Any] = [
        [],
        {"model_type": ["gemma"]},
        TINY_MODEL | {"num_key_value_heads": 0},
        {"model_type": "gemma3"},
    ]
    for number, config in enumerate([*broken, TINY_MODEL | {"hidden_size": "wide"}, TINY_MODEL | {"rope_scaling": 7}]):
        put_model(gateway, f"tiny/broken-{number}", config)
        body = gateway.job_body(model={"base_model": f"tiny/broken-{number}", "revision": None})
        error = problem(gateway.post_job("broken", body), 422, "validation_failed")
        assert "is no Gemma 1, 2 or 3" in str(error["message"]), config


def test_a_configuration_that_leaves_out_what_equals_the_defaults_is_read_as_transformers_reads_it(
    gateway: Gateway,
) -> None:
    """config.json of google/gemma-3-4b-it names neither heads nor vocabulary."""
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    put_model(gateway, "google/gemma-3-4b-it", {"model_type": "gemma3", "text_config": text})
    made = gateway.client.post(
        "/cost-estimates", json={"model": {"base_model": "google/gemma-3-4b-it"}, "training": {"precision": "fp32"}}
    )
    assert made.status_code == 200, made.text
    # 3,880,263,168 parameters of the text model, with the 262,208 rows of the embedding that the files have
    assert made.json()["final_model_bytes"] == 2 * 3_880_263_168


def test_a_row_longer_than_the_model_is_refused_before_anything_runs(gateway: Gateway) -> None:
    row = {"id": "long", "input_ids": [2] + [5] * 128, "loss_mask": [0] + [1] * 128}  # the model has 128 positions
    dataset = gateway.upload((json.dumps(row) + "\n").encode())
    error = problem(gateway.post_job("long", gateway.job_body(dataset_id=dataset["id"])), 422, "validation_failed")
    assert error["param"] == "model.base_model" and "128 positions" in str(error["message"]), error


def test_rows_that_do_not_fit_the_model_are_refused_before_anything_runs(gateway: Gateway) -> None:
    dataset = gateway.upload(rows(1, token=TINY_MODEL["vocab_size"]))
    error = problem(
        gateway.post_job("vocabulary", gateway.job_body(dataset_id=dataset["id"])), 422, "validation_failed"
    )
    assert "512" in str(error["message"]) and error["param"] == "dataset_id"


def test_a_model_is_found_in_the_roots_and_in_the_hub_cache_and_links_out_are_not_followed(
    make_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    hub = tmp_path / "hub"
    snapshot = hub / "models--google--gemma-x" / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(TINY_MODEL))
    refs = hub / "models--google--gemma-x" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc123")
    (refs / "evil").write_text("../../../elsewhere")
    gateway = make_gateway("--hub-cache", str(hub))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text(json.dumps(TINY_MODEL))
    (gateway.folder / "models" / "tiny" / "link").symlink_to(outside)
    (gateway.folder / "models" / "llama").mkdir()
    (gateway.folder / "models" / "llama" / "config.json").write_text('{"model_type": "llama"}')
    gateway.start()

    def answer_for(name: str, revision: str | None) -> int:
        body = gateway.job_body(model={"base_model": name, "revision": revision})
        return gateway.client.post("/cost-estimates", json=body).status_code

    assert answer_for("google/gemma-x", None) == 200
    assert answer_for("google/gemma-x", "main") == 200
    assert answer_for("google/gemma-x", "abc123") == 200
    assert answer_for("google/gemma-x", "evil") == 422
    assert answer_for("google/gemma-x", "other") == 422
    assert answer_for("tiny/link", None) == 422
    assert answer_for("llama", None) == 422
    assert answer_for("tiny/gemma", "v2") == 422


def test_the_list_is_newest_first_and_pages_do_not_overlap(gateway: Gateway) -> None:
    ids = [gateway.submit(f"page-{i}", experiment_name="pages")["id"] for i in range(5)]
    seen: list[str] = []
    after = None
    while True:
        page = gateway.client.get(
            "/jobs", params={"experiment": "pages", "limit": 2} | ({"after": after} if after else {})
        ).json()
        seen += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            assert page["next"] is None
            break
        after = page["next"]
    assert seen == ids[::-1]
    for job_id in ids:
        gateway.wait(job_id)
    done = gateway.client.get(
        "/jobs", params={"experiment": "pages", "state": "completed", "project_id": "alpha"}
    ).json()
    assert len(done["data"]) == 5
    assert gateway.client.get("/jobs", params={"experiment": "pages", "state": "failed"}).json()["data"] == []
    for query in ({"limit": 0}, {"limit": 101}, {"state": "paused"}, {"limit": "x"}):
        problem(gateway.client.get("/jobs", params=query), 422, "validation_failed")
    problem(gateway.client.get("/jobs", params={"after": "job_nothere00"}), 404, "not_found")


def test_an_unchanged_job_is_not_sent_again(gateway: Gateway) -> None:
    job = gateway.submit("etag")
    gateway.wait(job["id"])
    first = gateway.client.get(f"/jobs/{job['id']}")
    tag = first.headers["etag"]
    for known in (tag, f'"x", W/{tag}', "*"):
        again = gateway.client.get(f"/jobs/{job['id']}", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert gateway.client.get(f"/jobs/{job['id']}", headers={"If-None-Match": '"x"'}).status_code == 200


def test_jobs_of_one_accelerator_run_one_after_the_other_in_their_order(gateway: Gateway) -> None:
    ids = [gateway.submit(f"order-{i}", seed=1)["id"] for i in range(3)]
    done = [gateway.wait(job_id) for job_id in ids]
    for earlier, later in itertools.pairwise(done):
        assert earlier["finished_at"] <= later["started_at"]


def test_accelerators_do_not_wait_for_one_another(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway("--accelerator", "cpu", "--accelerator", "gpu").start()
    first = gateway.submit("on-cpu", seed=1, steps=10_000)
    gateway.wait(first["id"], lambda now: now["step"] >= 1)
    resources = {"accelerator": "gpu", "region": None, "spot": False}
    second = gateway.wait(gateway.submit("on-gpu", resources=resources)["id"])
    assert second["state"] == "completed" and second["accelerator"] == "gpu"
    assert gateway.job(first["id"])["state"] == "running"
    spec = json.loads((gateway.data / "jobs" / second["id"] / "job.json").read_text())
    assert spec["accelerator"]["kind"] == "gpu"


def test_a_running_job_is_cancelled_with_its_state_saved(gateway: Gateway) -> None:
    job = gateway.submit("cancel", seed=1, steps=1000)
    gateway.wait(job["id"], lambda now: now["step"] >= 4)
    first = gateway.client.post(f"/jobs/{job['id']}/cancel", json={"save_checkpoint": True})
    assert first.status_code == 202 and first.json()["state"] == "cancel_requested"
    again = gateway.client.post(f"/jobs/{job['id']}/cancel")
    assert again.status_code in (200, 409)
    done = gateway.wait(job["id"])
    assert done["state"] == "cancelled" and done["error"] is None
    checkpoints = [one for one in gateway.artifacts(job["id"]) if one["kind"] == "checkpoint"]
    assert max(one["step"] for one in checkpoints) == done["step"]
    problem(gateway.client.post(f"/jobs/{job['id']}/cancel"), 409, "job_terminal")
    states = [event["data"]["state"] for event in gateway.events(job["id"]) if event["type"] == "status"]
    assert states[0] == "pending" and states[-1] == "cancelled" and "cancel_requested" in states


def test_a_job_that_waits_is_cancelled_without_having_run(gateway: Gateway) -> None:
    running = gateway.submit("in-front", seed=2, steps=100)
    waiting = gateway.submit("behind")
    answer = gateway.client.post(f"/jobs/{waiting['id']}/cancel", json={})
    assert answer.status_code == 202 and answer.json()["state"] == "cancelled" and answer.json()["attempt"] == 0
    assert not (gateway.data / "jobs" / waiting["id"]).exists()
    started = time.monotonic()
    gateway.client.post(f"/jobs/{running['id']}/cancel", json={"save_checkpoint": False})
    assert gateway.wait(running["id"])["state"] == "cancelled"
    assert time.monotonic() - started < 10
    problem(gateway.client.post(f"/jobs/{running['id']}/cancel", json={"force": True}), 422, "validation_failed")
    problem(gateway.client.post("/jobs/job_nothere00/cancel", json={}), 404, "not_found")


def test_a_runner_that_does_not_hear_is_killed_when_its_grace_is_over(gateway: Gateway) -> None:
    job = gateway.submit("deaf", seed=7, steps=1000)
    gateway.wait(job["id"], lambda now: now["step"] >= 1)
    gateway.client.post(f"/jobs/{job['id']}/cancel", json={})
    assert gateway.wait(job["id"])["state"] == "cancelled"  # --grace-seconds 2
    assert holders(gateway.data / "jobs" / job["id"] / "runner.lock") == []


def test_a_job_out_of_time_ends_as_timeout(gateway: Gateway) -> None:
    job = gateway.submit("timeout", seed=1, steps=10_000, timeout_seconds=1)
    done = gateway.wait(job["id"])
    assert done["state"] == "timeout" and done["error"]["code"] == "timeout" and done["error"]["hint"]
    assert 0 < done["step"] < 10_000


def test_a_job_that_has_cost_as_much_as_it_may_is_stopped(make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    table = json.loads((Path(__file__).resolve().parents[4] / "trainer/tunix/gateway/accelerators.json").read_text())
    table["accelerators"][0] |= {"usd_per_hour": 3600.0, "peak_tflops_per_core": 1e9}  # a dollar a second
    (tmp_path / "prices.json").write_text(json.dumps(table))
    gateway = make_gateway("--prices", str(tmp_path / "prices.json")).start()
    body = gateway.job_body(seed=1, steps=10_000, max_cost_usd=2)
    problem(gateway.post_job("too-dear", body), 402, "cost_limit_exceeded")
    job = gateway.submit("no-limit", seed=1, steps=10_000)
    with sqlite3.connect(gateway.data / "gateway.db") as database:  # a limit that the estimate said would be kept
        database.execute("UPDATE jobs SET spec = json_set(spec, '$.max_cost_usd', 2)")
    done = gateway.wait(job["id"])
    assert done["state"] == "failed" and done["error"]["code"] == "cost_limit_exceeded"
    assert 2 <= done["cost_usd"] < 60


def test_a_failure_is_told_in_the_runners_words(gateway: Gateway) -> None:
    done = gateway.wait(gateway.submit("oom", seed=5)["id"])
    assert done["state"] == "failed"
    assert done["error"] == {
        "code": "out_of_memory",
        "message": "RESOURCE_EXHAUSTED: hbm",
        "retryable": False,
        "hint": None,
    }
    assert done["restarts"] == 0


def test_a_crashed_runner_is_started_again_and_the_result_is_the_same(gateway: Gateway) -> None:
    for key, seed in (("crash", 3), ("torn", 8)):
        done = gateway.wait(gateway.submit(key, seed=seed)["id"])
        assert (done["state"], done["restarts"]) == ("completed", 1), done
        assert gateway.weights(done["id"]) == expected_weights(rows())
        steps = [
            json.loads(line)["step"] for line in gateway.client.get(f"/jobs/{done['id']}/metrics").text.splitlines()
        ]
        assert steps == list(range(1, 11))
        paths = [artifact["path"] for artifact in gateway.artifacts(done["id"]) if artifact["kind"] == "log"]
        assert paths == ["logs/attempt-1.log", "logs/attempt-2.log"]


def test_a_runner_that_always_crashes_ends_the_job_with_its_last_words(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway("--max-restarts", "1").start()
    done = gateway.wait(gateway.submit("crashes", seed=4)["id"])
    assert (done["state"], done["restarts"], done["error"]["code"]) == ("failed", 1, "runner_crashed")
    assert "signal 9" in done["error"]["message"] and "about to crash" in done["error"]["message"]
    done = gateway.wait(gateway.submit("flaky", seed=6)["id"])
    assert (done["restarts"], done["error"]["code"], done["error"]["retryable"]) == (1, "io_error", True)


def test_a_runner_that_cannot_be_started_ends_the_job(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway("--max-restarts", "0", "--runner", "/nonexistent/runner").start()
    done = gateway.wait(gateway.submit("no-runner")["id"])
    assert (done["state"], done["error"]["code"]) == ("failed", "runner_crashed")
    assert any("could not be started" in event["message"] for event in gateway.events(done["id"]))


def test_output_that_is_not_of_the_interface_becomes_log_lines(gateway: Gateway) -> None:
    done = gateway.wait(gateway.submit("noise", seed=9)["id"])
    assert done["state"] == "completed"
    logs = [event["message"] for event in gateway.events(done["id"]) if event["type"] == "log"]
    assert "not json" in logs and any("unheard" in line for line in logs)
    line = json.loads(gateway.client.get(f"/jobs/{done['id']}/metrics", params={"after_step": 3}).text.splitlines()[0])
    assert line["step"] == 4


def test_a_runner_stopped_by_somebody_else_goes_on_by_itself(gateway: Gateway) -> None:
    job = gateway.submit("preempted", seed=1, steps=100)
    gateway.wait(job["id"], lambda now: now["step"] >= 5)
    (runner,) = holders(gateway.data / "jobs" / job["id"] / "runner.lock")
    os.kill(runner, signal.SIGTERM)
    done = gateway.wait(job["id"])
    assert (done["state"], done["restarts"]) == ("completed", 1)
    assert "preempted" in [event["data"].get("phase") for event in gateway.events(job["id"])]
    assert gateway.weights(job["id"]) == expected_weights(rows(), 100)


def test_the_result_is_copied_to_the_folder_that_stands_for_the_bucket(
    make_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    bucket = tmp_path / "bucket"
    gateway = make_gateway("--output", f"gs://models/team={bucket}").start()
    job = gateway.submit("copied", output={"uri": "gs://models/team/runs/run_1", "checkpoint_every": 0, "keep": 1})
    done = gateway.wait(job["id"])
    assert done["state"] == "completed" and done["error"] is None
    copied = bucket / "runs" / "run_1" / "final_model"
    assert sorted(str(path.relative_to(copied)) for path in copied.rglob("*") if path.is_file()) == [
        "config.json",
        "model.safetensors",
        "sub/.hidden..name",
    ]
    assert (
        gateway.download(job["id"], "final_model/model.safetensors").content
        == (copied / "model.safetensors").read_bytes()
    )
    other = gateway.submit(
        "other", steps=11, output={"uri": "gs://models/team/runs/run_1", "checkpoint_every": 0, "keep": 1}
    )
    done = gateway.wait(other["id"])
    assert done["state"] == "completed" and done["error"]["code"] == "output_not_written"
    problem(gateway.post_job("x", gateway.job_body(output={"uri": "gs://models/other"})), 422, "validation_failed")
