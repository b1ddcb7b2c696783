"""The contract's bodies. What a request may hold is said here alone; unknown members are refused."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

ProjectId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
DatasetId = Annotated[str, StringConstraints(pattern=r"^ds_[a-z0-9]{9,32}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Text = Annotated[str, StringConstraints(max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$")]
State = Literal["pending", "running", "cancel_requested", "completed", "failed", "cancelled", "timeout"]
Phase = Literal[
    "validating", "queued", "provisioning", "loading", "compiling", "training", "preempted", "saving", "uploading"
]
ArtifactKind = Literal["final_model", "checkpoint", "metrics", "log", "run_manifest"]
EventType = Literal["log", "metric", "checkpoint", "status"]

TERMINAL_STATES = ("completed", "failed", "cancelled", "timeout")


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ModelChoice(Request):
    base_model: Text = Field(description="Id of a model that the service has, such as google/gemma-3-270m.")
    revision: Text | None = None


class Lora(Request):
    rank: int = Field(ge=1, le=4096)
    alpha: float = Field(32.0, gt=0, le=1e6)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: list[Text] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], min_length=1, max_length=100
    )
    rslora: bool = False


class Training(Request):
    """The keys of `training.*` of gemma-sft, with its defaults: `gemma-sft config explain training.KEY`."""

    num_epochs: float = Field(3.0, gt=0, le=1e6)
    max_steps: int | None = Field(None, ge=1, le=10**9)
    batch_size: int = Field(4, ge=1, le=65_536)
    batch_tokens: int | None = Field(None, ge=2, le=16_777_216)
    gradient_accumulation_steps: int = Field(1, ge=1, le=65_536)
    learning_rate: float = Field(2e-5, gt=0, le=1)
    lr_scheduler: Literal["linear", "cosine", "constant"] = "linear"
    min_lr_ratio: float = Field(0.0, ge=0, le=1)
    warmup_steps: int | None = Field(None, ge=0, le=10**9)
    warmup_ratio: float | None = Field(None, ge=0, le=1)
    weight_decay: float = Field(0.01, ge=0, le=1)
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0, le=1)
    max_grad_norm: float = Field(1.0, ge=0, le=1e9)
    seed: int = Field(42, ge=0, le=2**63 - 1)
    precision: Literal["fp32", "bf16_mixed", "bf16"] | None = None
    shuffle: bool = True
    packing: bool = True
    activation_checkpointing: bool = False
    deterministic: bool = False
    on_nonfinite: Literal["stop", "skip"] = "stop"
    optimizer: Literal["adamw"] = "adamw"
    max_seq_length: int | None = Field(None, ge=2, le=1_048_576)
    lora: Lora | None = None


class Resources(Request):
    accelerator: Text | None = Field(None, description="A name of GET /accelerators; null: the service's first.")
    region: Text | None = None
    spot: bool = False


class OutputChoice(Request):
    uri: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        None, description="gs://bucket/folder that the result is copied to; the operator says which buckets there are."
    )
    checkpoint_every: int = Field(500, ge=0, le=10**9)
    keep: int = Field(2, ge=1, le=1_000_000)
    model_dtype: Literal["fp32", "bf16", "fp16"] | None = None


class ClientInfo(Request):
    name: Text
    version: Text
    config_sha256: Sha256 | Literal[""] | None = None


Labels = Annotated[dict[Annotated[str, StringConstraints(max_length=64)], Text], Field(max_length=32)]


class JobRequest(Request):
    project_id: ProjectId | None = Field(None, description="Or the header Tunix-Project.")
    experiment_name: Name
    dataset_id: DatasetId
    model: ModelChoice
    training: Training = Training()
    resources: Resources = Resources()
    output: OutputChoice = OutputChoice()
    max_cost_usd: float | None = Field(None, gt=0, le=1e6)
    timeout_seconds: int | None = Field(None, ge=1, le=10_000_000)
    labels: Labels = {}
    client: ClientInfo | None = None


class TokenTotals(Request):
    rows: int = Field(ge=1, le=10**12)
    tokens: int = Field(ge=1, le=10**15)
    longest_row: int = Field(ge=1, le=1_048_576)


class EstimateRequest(Request):
    """A job's body, with or without a data set, or `totals` in place of one."""

    project_id: ProjectId | None = None
    experiment_name: Text | None = None
    dataset_id: DatasetId | None = None
    totals: TokenTotals | None = None
    model: ModelChoice
    training: Training = Training()
    resources: Resources = Resources()
    output: OutputChoice = OutputChoice()
    max_cost_usd: float | None = Field(None, gt=0, le=1e6)
    timeout_seconds: int | None = Field(None, ge=1, le=10_000_000)
    labels: Labels = {}
    client: ClientInfo | None = None


class DatasetRequest(Request):
    project_id: ProjectId | None = None
    dataset_key: Name
    build_id: Text | None = None
    format: Literal["tokens"]
    line_count: int = Field(ge=1, le=10**9)
    bytes: int = Field(ge=1, le=2**50)
    sha256: Sha256
    manifest: dict[str, Any] | None = None


class CancelRequest(Request):
    save_checkpoint: bool = True


# ---- answers ----


class KeyAnswer(BaseModel):
    prefix: str
    last4: str
    expires_at: str | None


class ProjectAnswer(BaseModel):
    id: str
    role: Literal["member"]


class AuthAnswer(BaseModel):
    ok: Literal[True]
    key: KeyAnswer
    projects: list[ProjectAnswer]
    scopes: list[str]


class AcceleratorAnswer(BaseModel):
    name: str
    kind: Literal["cpu", "gpu", "tpu"]
    cores: int
    hbm_bytes_per_core: int
    regions: list[str]
    usd_per_hour: float
    spot_usd_per_hour: float | None
    max_seconds: int | None
    prices_as_of: str


class QuotaAnswer(BaseModel):
    limit: int
    in_use: int
    available: int
    resets_at: str | None
    console_url: str | None


class Span(BaseModel):
    low: float | None
    high: float | None


class SpotAnswer(BaseModel):
    usd_per_hour: float
    usd: Span


class MemoryAnswer(BaseModel):
    needed_bytes_per_core: int
    available_bytes_per_core: int
    fits: bool


class EstimateAnswer(BaseModel):
    steps: int | None
    tokens: int | None
    hours: Span
    usd: Span
    usd_per_hour: float
    spot: SpotAnswer | None
    memory: MemoryAnswer
    checkpoint_bytes: int
    final_model_bytes: int
    accelerator: str
    prices_as_of: str
    assumptions: list[str]


class UploadAnswer(BaseModel):
    path: str
    max_part_bytes: int


class RowError(BaseModel):
    line: int
    code: str
    message: str


class DatasetAnswer(BaseModel):
    id: str
    object: Literal["dataset"]
    project_id: str
    dataset_key: str
    build_id: str | None
    format: str
    line_count: int
    bytes: int
    sha256: str
    state: Literal["awaiting_upload", "ready", "invalid"]
    received_bytes: int
    tokens: int | None
    target_tokens: int | None
    longest_row: int | None
    errors: list[RowError]
    created_at: str
    upload: UploadAnswer | None


class JobError(BaseModel):
    code: str
    message: str
    retryable: bool
    hint: str | None


class JobAnswer(BaseModel):
    id: str
    object: Literal["job"]
    project_id: str
    experiment_name: str
    state: State
    phase: Phase
    progress: float
    step: int
    total_steps: int
    epoch: float | None
    loss: float | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    eta_seconds: float | None
    attempt: int
    restarts: int
    accelerator: str
    region: str | None
    spot: bool
    cost_usd: float
    dashboard_url: str
    error: JobError | None
    spec: JobRequest


class JobPage(BaseModel):
    data: list[JobAnswer]
    has_more: bool
    next: str | None


class EventAnswer(BaseModel):
    seq: int
    ts: str
    type: EventType
    level: Literal["info", "warning", "error"]
    message: str
    data: dict[str, Any]


class EventPage(BaseModel):
    data: list[EventAnswer]
    last_seq: int
    terminal: bool


class ArtifactAnswer(BaseModel):
    path: str
    kind: ArtifactKind
    step: int | None
    size: int
    sha256: str
    created_at: str
    expires_at: str | None


class ArtifactPage(BaseModel):
    data: list[ArtifactAnswer]
    complete: bool


class DeletedAnswer(BaseModel):
    deleted: list[str]
    bytes: int


class ErrorBody(BaseModel):
    code: str
    message: str
    type: str
    param: str | None
    request_id: str
    retry_after: int | None


class ErrorAnswer(BaseModel):
    error: ErrorBody
