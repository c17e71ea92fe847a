"""What a client sends and sees: Open Inference Protocol v2 and the extension `score`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo


class Sent(BaseModel):
    """Base of what a client sends: unknown fields and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class UriList(Sent):
    """Objects to score as one batch."""

    uris: list[str] = Field(min_length=1)
    """s3://bucket/key, file:///path or a plain path, inside the allow-list."""


def _flat(values: Any, info: ValidationInfo) -> Any:
    """Flatten numbers that are nested as the tensor's shape says; flat ones pass."""
    for length in info.data.get("shape", [])[1:]:
        if not (isinstance(values, list) and values and isinstance(values[0], list)):
            break
        if not all(isinstance(row, list) and len(row) == length for row in values):
            raise ValueError("neither flat nor nested as `shape` says")
        values = [value for row in values for value in row]
    return values


class InputTensor(Sent):
    """Images as numbers."""

    name: Literal["image"]
    shape: list[int] = Field(min_length=4, max_length=4)
    """[images, channels, size, size]."""
    datatype: Literal["FP32", "UINT8"]
    """UINT8: 0 is black, 255 white. FP32: -1 is black, 1 white; kept to 16 bits like any image."""
    data: Annotated[list[float], BeforeValidator(_flat)] | None = None
    """Row-major, flat or nested as `shape` says; left out where the values follow as bytes."""
    parameters: dict[str, Any] = {}


class WantedOutput(Sent):
    """An output tensor by name."""

    name: Literal["score", "p_value", "anomaly_map", "reconstruction"]
    parameters: dict[str, Any] = {}


class InferRequest(Sent):
    """An inference request of the Open Inference Protocol v2."""

    id: str = ""
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[WantedOutput] = [WantedOutput(name="score")]
    parameters: dict[str, Any] = {}


class OutputTensor(BaseModel):
    """A named tensor, flat and row-major, or of so many bytes behind the document."""

    name: str
    datatype: Literal["FP32"] = "FP32"
    shape: list[int]
    data: list[float] | None = None
    parameters: dict[str, int] | None = None


class InferResponse(BaseModel):
    """Answer to an inference request."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]


class Threshold(BaseModel):
    """Above `value` an image is abnormal; `fpr` of normal images are expected there."""

    value: float
    fpr: float
    id: str
    """Names the threshold by its content."""
    stratum: str = ""
    """Scanner, site, ... that it was set for; empty: the common one."""


class Scored(BaseModel):
    """One image that was scored."""

    input: str
    """Its position in the body ("0", "1", ...) or its URI."""
    score: float
    """Higher is more abnormal."""
    p_value: float | None
    """Share of normal calibration images that score at least as high; null without calibration."""
    label: Literal["normal", "abnormal"] | None
    threshold: Threshold | None
    map: str | None = None
    """`?map=png8`: data URI; grey 0 to 255 spans the fixed `map_range`. `?map=f16`: data URI
    of float16 [S, S]. `?map=url`: address of a NumPy file in the sink."""
    image: str | None = None
    """`?reconstruction=png8`: what the networks saw, as a data URI."""
    reconstruction: str | None = None
    """`?reconstruction=png8`: what it would look like if it were normal, as a data URI."""
    preprocess: str
    """Names the way from the file's pixels to the networks."""
    warnings: list[str] = []


class IndexEntry(BaseModel):
    """A version of a model in the repository index."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = ""


class Unscored(BaseModel):
    """One image of several that could not be scored."""

    input: str
    error: str
    code: str


class Timing(BaseModel):
    """Milliseconds spent on the request in the scoring process."""

    queue: float
    decode: float
    infer: float


class ScoreResponse(BaseModel):
    """Answer to a score request: one output per image, in order."""

    model_name: str
    model_version: str
    id: str
    outputs: list[Scored | Unscored]
    timing_ms: Timing


class Source(Sent):
    """The images of a job."""

    uri: str = Field(min_length=1, max_length=2048)
    """A directory or s3://bucket/prefix, inside the allow-list."""
    glob: str = Field(default="", max_length=256)
    """Score only keys that fit: `*` and `?` within a part, `**` for any parts, e.g. **/*.dcm."""


class Sink(Sent):
    """Where the rows of a job go."""

    uri: str = Field(min_length=1, max_length=2048)
    """A directory or s3://bucket/prefix, inside the allow-list of sinks."""


class JobOptions(Sent):
    """How a job scores."""

    maps: bool = False
    """Keep anomaly maps, too."""
    max_errors: float = Field(default=1.0, ge=0, le=1)
    """Share of the objects that may fail before the job does."""
    stratum: str = Field(default="", max_length=128)
    """Scanner, site, ... that all images are of."""


class JobRequest(Sent):
    """A whole prefix to score."""

    model: str
    version: str | None = None
    """One that is served; left out, the newest."""
    source: Source
    sink: Sink
    options: JobOptions = JobOptions()


class JobError(BaseModel):
    """An object of a job that could not be scored."""

    id: str
    """Its pseudonym, as in its row."""
    error: str


class JobStatus(BaseModel):
    """A job: what was asked for and how far it is."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    request: JobRequest
    """As it was sent."""
    version: str
    """Of the model that scores."""
    created: datetime
    total: int | None = None
    """Objects to score; null until they are listed."""
    done: int = 0
    """Objects with a row, those that failed included."""
    failed: int = 0
    """Objects whose row has an error."""
    rate_per_s: float | None = None
    """Objects per second; null while the job does not run."""
    eta_s: float | None = None
    resumable: bool = True
    """Whether the same request, sent anew, goes on with what is left."""
    error: str | None = None
    """Why the job failed."""
    errors: list[JobError] = []
    """The first objects that failed; results have all."""

    @property
    def ended(self) -> bool:
        """Whether it will not go on by itself."""
        return self.state not in ("queued", "running")


class JobList(BaseModel):
    """Recent jobs, the newest first."""

    jobs: list[JobStatus]


class ServerMetadata(BaseModel):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]
    models: list[str]
    limits: dict[str, float]


class TensorMetadata(BaseModel):
    """A tensor that a model takes or gives; -1 stands for any number of images."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """What a model is; `parameters` carries what the protocol has no field for."""

    name: str
    versions: list[str]
    platform: Literal["pytorch_safetensors"] = "pytorch_safetensors"
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, Any]


class Live(BaseModel):
    """The process answers."""

    live: bool = True


class Ready(BaseModel):
    """Every model reproduces its golden scores."""

    ready: bool = True


class Refusal(BaseModel):
    """Every error has this shape."""

    error: str
    code: str
    request_id: str
    hint: str
