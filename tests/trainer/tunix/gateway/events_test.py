"""What happens to a job, polled and streamed: every event once, in order, without gaps."""

import contextlib
import json
import threading
import time
from typing import Any

import httpx
from account_test import problem

from conftest import Gateway


def read_stream(gateway: Gateway, job_id: str, last: str | None = None, most: int = 10_000) -> list[dict[str, str]]:
    """The stream's events until it closes, or `most` of them."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
    events: list[dict[str, str]] = []
    with gateway.client.stream("GET", f"/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif event:
                events.append(event)
                event = {}
                if len(events) >= most:
                    break
    return events


def test_seq_counts_from_one_without_gaps_and_tells_the_whole_story(gateway: Gateway) -> None:
    job = gateway.submit("story")
    gateway.wait(job["id"])
    events = gateway.events(job["id"])
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    phases = [event["data"]["phase"] for event in events if event["type"] == "status"]
    assert phases == ["queued", "provisioning", "loading", "compiling", "training", "saving", "saving"]
    states = [event["data"]["state"] for event in events if event["type"] == "status"]
    assert states == ["pending"] + ["running"] * 5 + ["completed"]
    metrics = [event["data"] for event in events if event["type"] == "metric"]
    assert [metric["step"] for metric in metrics] == list(range(1, 11))
    assert [event["data"]["step"] for event in events if event["type"] == "checkpoint"] == [3, 6, 9, 10]
    lines = [json.loads(line) for line in gateway.client.get(f"/jobs/{job['id']}/metrics").text.splitlines()]
    assert lines == metrics
    assert set(lines[0]) == {
        "step",
        "epoch",
        "loss",
        "learning_rate",
        "grad_norm",
        "tokens",
        "target_tokens",
        "tokens_per_second",
        "timestamp",
    }
    after = gateway.client.get(f"/jobs/{job['id']}/metrics?after_step=8").text.splitlines()
    assert [json.loads(line)["step"] for line in after] == [9, 10]


def test_pages_are_bounded_and_the_last_one_says_that_it_is(gateway: Gateway) -> None:
    job = gateway.submit("pages")
    gateway.wait(job["id"])
    whole = gateway.events(job["id"])
    page = gateway.client.get(f"/jobs/{job['id']}/events?limit=3").json()
    assert page["data"] == whole[:3] and page["last_seq"] == 3 and page["terminal"] is False
    rest = gateway.client.get(f"/jobs/{job['id']}/events?after=3").json()
    assert rest["data"] == whole[3:] and rest["terminal"] is True
    beyond = gateway.client.get(f"/jobs/{job['id']}/events?after=100000&wait=5").json()
    assert beyond == {"data": [], "last_seq": 100000, "terminal": True}
    for query in ("after=-1", "limit=0", "limit=1001", "wait=31", "after=x"):
        problem(gateway.client.get(f"/jobs/{job['id']}/events?{query}"), 422, "validation_failed")


def test_a_waiting_request_is_answered_when_there_is_news(gateway: Gateway) -> None:
    running = gateway.submit("busy", seed=2, steps=100)
    waiting = gateway.submit("waits")
    seen = gateway.client.get(f"/jobs/{waiting['id']}/events").json()["last_seq"]
    started = time.monotonic()
    quiet = gateway.client.get(f"/jobs/{waiting['id']}/events?after={seen}&wait=0.5").json()
    assert quiet["data"] == [] and time.monotonic() - started >= 0.5
    timer = threading.Timer(0.5, lambda: gateway.client.post(f"/jobs/{waiting['id']}/cancel", json={}))
    timer.start()
    started = time.monotonic()
    news = gateway.client.get(f"/jobs/{waiting['id']}/events?after={seen}&wait=30").json()
    assert news["data"] and 0.3 < time.monotonic() - started < 15
    timer.join()
    gateway.client.post(f"/jobs/{running['id']}/cancel", json={"save_checkpoint": False})
    gateway.wait(running["id"])


def test_a_stream_sends_what_polling_gives_and_closes_after_the_end(gateway: Gateway) -> None:
    job = gateway.submit("stream", seed=1, steps=30)
    streamed = [event for event in read_stream(gateway, job["id"]) if event["event"] != "heartbeat"]
    polled = gateway.events(job["id"])
    assert [json.loads(event["data"]) for event in streamed] == polled
    assert [int(event["id"]) for event in streamed] == [event["seq"] for event in polled]
    assert [event["event"] for event in streamed] == [event["type"] for event in polled]
    assert gateway.job(job["id"])["state"] == "completed"


def test_a_stream_that_was_cut_goes_on_behind_the_last_event(gateway: Gateway) -> None:
    job = gateway.submit("cut", seed=1, steps=30)
    seen: list[dict[str, str]] = []
    while not seen or json.loads(seen[-1]["data"])["data"].get("state") != "completed":
        last = seen[-1]["id"] if seen else None
        seen += [event for event in read_stream(gateway, job["id"], last, most=7) if event["event"] != "heartbeat"]
    assert [int(event["id"]) for event in seen] == list(range(1, len(seen) + 1))
    bad = gateway.client.get(f"/jobs/{job['id']}/events", headers={"Accept": "text/event-stream", "Last-Event-ID": "x"})
    problem(bad, 400, "bad_request")


def test_numbers_that_no_event_has_are_beyond_the_end_or_refused(gateway: Gateway) -> None:
    job = gateway.submit("beyond")
    gateway.wait(job["id"])
    last = {"Last-Event-ID": "9" * 20}
    assert gateway.client.get(f"/jobs/{job['id']}/events", headers=last).json()["data"] == []
    assert read_stream(gateway, job["id"], "9" * 20) == []
    for path in (f"/jobs/{job['id']}/events?after={10**20}", f"/jobs/{job['id']}/metrics?after_step={10**20}"):
        problem(gateway.client.get(path), 422, "validation_failed")


def test_a_quiet_stream_has_heartbeats_without_an_id(gateway: Gateway) -> None:
    running = gateway.submit("noisy", seed=2, steps=100)
    waiting = gateway.submit("silent")
    events = read_stream(gateway, waiting["id"], most=4)  # --heartbeat-seconds 0.3
    beats: list[Any] = [event for event in events if event["event"] == "heartbeat"]
    assert len(beats) >= 2 and all("id" not in beat for beat in beats)
    for job in (waiting, running):
        gateway.client.post(f"/jobs/{job['id']}/cancel", json={"save_checkpoint": False})
        gateway.wait(job["id"])


def test_streams_do_not_hold_up_the_gateways_end(make_gateway: Any) -> None:
    gateway = make_gateway("--grace-seconds", "5").start()
    job = gateway.submit("long", seed=1, steps=100_000)
    ended = threading.Event()

    def listen() -> None:
        with contextlib.suppress(httpx.TransportError):
            read_stream(gateway, job["id"])
        ended.set()

    thread = threading.Thread(target=listen)
    thread.start()
    gateway.wait(job["id"], lambda now: now["step"] >= 2)
    started = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - started < 15
    thread.join(10)
    assert ended.is_set()
