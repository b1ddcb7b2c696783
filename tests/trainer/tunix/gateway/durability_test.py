"""kill -9 of the gateway at any moment: the job goes on, or goes on again, and ends with the right result.

With the fake runner: what google-tunix makes of it is tested by the runner's own tests.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from conftest import GATEWAY, Gateway, expected_weights, holders, rows
from gateway.database import Database

STEPS = 60
SEED = 20261127


def story_is_whole(gateway: Gateway, job_id: str) -> None:
    """Every event once, every step's line once, and the database in order."""
    events = gateway.events(job_id)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    ends = [event for event in events if event["type"] == "status" and event["data"]["state"] == "completed"]
    assert len(ends) == 1 and events[-1] == ends[0]
    lines = [json.loads(line) for line in gateway.client.get(f"/jobs/{job_id}/metrics").text.splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    with sqlite3.connect(gateway.data / "gateway.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_runner_outlives_the_gateway_and_the_next_one_reads_on(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway().start()
    job = gateway.submit("outlives", seed=1, steps=STEPS)
    gateway.wait(job["id"], lambda now: now["step"] >= 5)
    gateway.kill()
    assert len(holders(gateway.data / "jobs" / job["id"] / "runner.lock")) == 1
    gateway.start()
    done = gateway.wait(job["id"])
    assert (done["state"], done["attempt"]) == ("completed", 1)  # the same runner, not another
    assert gateway.weights(job["id"]) == expected_weights(rows(), STEPS)
    story_is_whole(gateway, job["id"])
    assert holders(gateway.data / "jobs" / job["id"] / "runner.lock") == []


def test_a_runner_that_died_with_the_gateway_is_resumed_from_its_checkpoint(
    make_gateway: Callable[..., Gateway],
) -> None:
    gateway = make_gateway().start()
    job = gateway.submit("both", seed=1, steps=STEPS)
    gateway.wait(job["id"], lambda now: now["step"] >= 10)
    gateway.kill()
    for pid in holders(gateway.data / "jobs" / job["id"] / "runner.lock"):
        os.kill(pid, signal.SIGKILL)
    gateway.start()
    done = gateway.wait(job["id"])
    assert (done["state"], done["attempt"]) == ("completed", 2)
    assert any("resumed from step" in event["message"] for event in gateway.events(job["id"]))
    assert gateway.weights(job["id"]) == expected_weights(rows(), STEPS)
    story_is_whole(gateway, job["id"])


def test_a_runner_that_ended_while_nobody_looked_is_not_run_again(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway().start()
    job = gateway.submit("unseen", seed=1, steps=STEPS)
    gateway.wait(job["id"], lambda now: now["step"] >= 1)
    gateway.kill()
    lock = gateway.data / "jobs" / job["id"] / "runner.lock"
    while holders(lock):
        time.sleep(0.05)
    gateway.start()
    done = gateway.wait(job["id"])
    assert (done["state"], done["attempt"]) == ("completed", 1)
    assert gateway.weights(job["id"]) == expected_weights(rows(), STEPS)
    story_is_whole(gateway, job["id"])


def test_a_cancellation_survives_the_gateway(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway().start()
    job = gateway.submit("cancel", seed=1, steps=10_000)
    gateway.wait(job["id"], lambda now: now["step"] >= 3)
    gateway.client.post(f"/jobs/{job['id']}/cancel", json={})
    gateway.kill()
    gateway.start()
    assert gateway.wait(job["id"])["state"] == "cancelled"


def test_sigterm_saves_the_job_and_the_next_gateway_goes_on(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway().start()
    job = gateway.submit("sigterm", seed=1, steps=STEPS)
    gateway.wait(job["id"], lambda now: now["step"] >= 5)
    assert gateway.stop() == 0
    assert holders(gateway.data / "jobs" / job["id"] / "runner.lock") == []
    gateway.start()
    done = gateway.wait(job["id"])
    assert (done["state"], done["attempt"]) == ("completed", 2)
    with sqlite3.connect(gateway.data / "gateway.db") as database:
        assert database.execute("SELECT crashes FROM jobs").fetchone() == (0,)
    assert gateway.weights(job["id"]) == expected_weights(rows(), STEPS)
    story_is_whole(gateway, job["id"])


def test_what_was_committed_is_on_the_disk(tmp_path: Path) -> None:
    connection = Database(tmp_path / "gateway.db").read()
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL


def test_two_gateways_do_not_share_a_folder(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway().start()
    second = subprocess.run(gateway.words(), cwd=GATEWAY, capture_output=True, text=True, timeout=60)
    assert second.returncode == 2 and "another gateway is using it" in second.stderr
    assert gateway.client.get("/auth/test").status_code == 200


def test_killed_at_random_moments_it_loses_no_job_and_makes_none_twice(make_gateway: Callable[..., Gateway]) -> None:
    """KILLS=N for more of them."""
    kills = int(os.environ.get("KILLS", "8"))
    chance = random.Random(SEED)
    gateway = make_gateway("--max-jobs", "1000").start()
    data = rows(4)
    keys = [f"kill-{i}" for i in range(kills)]
    body = gateway.job_body(seed=1, steps=STEPS)
    ids: dict[str, str] = {}
    for key in keys:
        answer = gateway.post_job(key, body)
        ids[key] = answer.json()["id"]
        time.sleep(chance.uniform(0, 2.5))
        gateway.kill()
        if chance.random() < 0.3:  # the machine went down
            for lock in (gateway.data / "jobs").glob("*/runner.lock"):
                for pid in holders(lock):
                    os.kill(pid, signal.SIGKILL)
        gateway.start()
        replay = gateway.post_job(key, body)
        assert (replay.status_code, replay.json()["id"]) == (200, ids[key]), f"seed {SEED}"
    for job_id in ids.values():
        done = gateway.wait(job_id, seconds=120)
        assert done["state"] == "completed", (SEED, done)
        assert gateway.weights(job_id) == expected_weights(data, STEPS), SEED
        story_is_whole(gateway, job_id)
    assert len(gateway.client.get("/jobs?limit=100").json()["data"]) == kills
    assert len(list((gateway.data / "jobs").iterdir())) == kills


def test_submitting_while_the_gateway_is_killed_makes_one_job_for_each_key(
    make_gateway: Callable[..., Gateway],
) -> None:
    gateway = make_gateway("--max-jobs", "1000", "--requests-per-second", "1000").start()
    body = gateway.job_body(seed=2)
    keys = [f"once-{i}" for i in range(120)]
    done = threading.Event()

    def submit(key: str) -> set[str]:
        """Every id that this key was answered with: asked again after lost answers, and twice after a good one."""
        ids: list[str] = []
        while len(ids) < 3:
            try:
                answer = gateway.post_job(key, body)
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            assert answer.status_code in (200, 201), answer.text
            ids.append(answer.json()["id"])
            time.sleep(0.02)
        return set(ids)

    def kill_again_and_again() -> None:
        chance = random.Random(SEED)
        while not done.is_set():
            time.sleep(chance.uniform(0.1, 0.8))
            gateway.kill()
            gateway.start()

    killer = threading.Thread(target=kill_again_and_again)
    killer.start()
    try:
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(submit, keys))
    finally:
        done.set()
        killer.join()
    assert all(len(ids) == 1 for ids in answers)
    with sqlite3.connect(gateway.data / "gateway.db") as database:
        made = [row[0] for row in database.execute("SELECT id FROM jobs")]
    assert len(made) == len(keys) and set(made) == set().union(*answers)
