"""The committed description is the gateway's, and the C++ client sends and reads what it says."""

import json
import re
import subprocess
from typing import Any

import pytest

from conftest import BIN, GATEWAY, ROOT
from gateway.app import openapi_text

CLIENT = ROOT / "trainer" / "tunix"
OPENAPI: dict[str, Any] = json.loads((GATEWAY / "openapi.json").read_text())
SCHEMAS: dict[str, Any] = OPENAPI["components"]["schemas"]


def test_the_committed_description_is_up_to_date() -> None:
    """trainer/tunix/gateway/run.sh openapi > trainer/tunix/gateway/openapi.json makes it."""
    assert (GATEWAY / "openapi.json").read_text() == openapi_text()


def test_every_endpoint_of_the_contract_is_described() -> None:
    described = {f"{method.upper()} {path}" for path, methods in OPENAPI["paths"].items() for method in methods}
    assert described == {
        "GET /v1/auth/test",
        "GET /v1/accelerators",
        "GET /v1/projects/{project_id}/quota",
        "POST /v1/cost-estimates",
        "POST /v1/datasets",
        "GET /v1/datasets/{dataset_id}",
        "DELETE /v1/datasets/{dataset_id}",
        "HEAD /v1/datasets/{dataset_id}/content",
        "PUT /v1/datasets/{dataset_id}/content",
        "POST /v1/jobs",
        "GET /v1/jobs",
        "GET /v1/jobs/{job_id}",
        "POST /v1/jobs/{job_id}/cancel",
        "GET /v1/jobs/{job_id}/events",
        "GET /v1/jobs/{job_id}/metrics",
        "GET /v1/jobs/{job_id}/artifacts",
        "DELETE /v1/jobs/{job_id}/artifacts",
        "GET /v1/jobs/{job_id}/artifacts/{path}",
    }


def test_every_address_in_the_client_is_described() -> None:
    source = "".join(file.read_text() for file in sorted(CLIENT.glob("*.cc")))
    literals = set(re.findall(r'"(/(?:auth|accelerators|projects|cost-estimates|datasets|jobs)[^"? ]*)', source))
    assert {"/auth/test", "/jobs", "/jobs/{}/cancel", "/jobs/{}/events", "/datasets"} <= literals
    patterns = [re.sub(r"\{[a-z_]+\}", "[^/]+", path) for path in OPENAPI["paths"]]
    for literal in literals:
        address = "/v1" + literal.replace("{}", "x").rstrip("/")
        assert any(re.fullmatch(pattern, address) or re.fullmatch(pattern, address + "/x") for pattern in patterns), (
            literal
        )


# Reader of service_json.cc -> the schema whose members it reads, and those of the objects inside.
READERS = {
    "parse_key_info": ["AuthAnswer", "KeyAnswer", "ProjectAnswer"],
    "parse_quota": ["QuotaAnswer"],
    "parse_estimate": ["EstimateAnswer", "Span"],
    "parse_dataset": ["DatasetAnswer", "UploadAnswer", "RowError"],
    "job_of": ["JobAnswer", "JobError", "JobRequest"],
    "parse_job_page": ["JobPage"],
    "event_of": ["EventAnswer"],
    "parse_accelerators": ["AcceleratorAnswer"],
    "parse_events": ["EventPage"],
    "parse_artifacts": ["ArtifactPage", "ArtifactAnswer"],
}


@pytest.mark.parametrize("reader", READERS)
def test_every_member_that_the_client_reads_is_described(reader: str) -> None:
    source = (CLIENT / "service_json.cc").read_text()
    start = re.search(rf"^\w[\w:<>]* {reader}\(.*$", source, re.MULTILINE)
    assert start is not None, f"{reader} is not in service_json.cc any more"
    body = source[start.start() : source.index("\n}\n", start.start())]
    names = set(
        re.findall(
            r'\b\w+\.(?:text|exact|number|find_number|whole|is_true|object|array|texts|require|find)\("(\w+)"', body
        )
    )
    assert names
    described = {name for schema in READERS[reader] for name in SCHEMAS[schema]["properties"]}
    if reader == "job_of":
        described |= {"submission"}  # a label of the client's own
    assert names <= described, names - described


# What only the native engine has (job_settings.h): with stochastic_rounding the client submits nothing, the others guard
# a run on the user's own machine.
NOT_SENT = {"stochastic_rounding", "preflight", "step_timeout"}


def test_what_the_client_may_send_of_training_has_the_same_names_ranges_and_defaults() -> None:
    """gemma-sft config schema against the contract's Training, Lora and OutputChoice."""
    native = json.loads(subprocess.run([BIN / "gemma-sft", "config", "schema"], check=True, capture_output=True).stdout)
    sections = native["properties"]
    training = {name: value for name, value in sections["training"]["properties"].items() if name not in NOT_SENT}
    compare(training, SCHEMAS["Training"]["properties"], but_ours={"max_seq_length", "lora"})
    compare(
        {name: value for name, value in sections["lora"]["properties"].items() if name not in ("init_from", "rank")},
        SCHEMAS["Lora"]["properties"],
        but_ours={"rank"},
    )
    compare(
        {name: sections["output"]["properties"][name] for name in ("checkpoint_every", "model_dtype")},
        SCHEMAS["OutputChoice"]["properties"],
        but_ours={"uri", "keep"},
    )


def compare(native: dict[str, Any], ours: dict[str, Any], but_ours: set[str]) -> None:
    assert set(native) == set(ours) - but_ours
    for name, theirs in native.items():
        own = flat(ours[name])
        for bound in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "default"):
            value = theirs.get(bound)
            if isinstance(value, int | float) and not isinstance(
                value, bool
            ):  # bounds of whole numbers are written as 1.0
                assert float(own[bound]) == float(value), (name, bound, theirs, own)
            elif value is not None:
                assert own.get(bound) == value, (name, bound, theirs, own)
        if "enum" in theirs:
            choices = [choice for choice in theirs["enum"] if choice is not None]
            if name == "activation_checkpointing":  # auto is sent as true (job_spec.cc)
                assert choices == [False, True, "auto"] and own["type"] == "boolean"
                continue
            assert own.get("enum", [own.get("const")]) == choices, name


def flat(schema: dict[str, Any]) -> dict[str, Any]:
    """Without the "or null" around it."""
    for part in schema.get("anyOf", []):
        if part.get("type") != "null":
            return schema | part
    return schema
