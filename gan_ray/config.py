"""Configuration: frozen keyword-only dataclasses that refuse unknown keys.

`@config` makes one; `to_dict` and `from_dict` are inverse to each other; `fingerprint` names a
configuration by its content. The docstring under a field is its help on the command line.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar, dataclass_transform

import pydantic
from tyro.conf import Suppress

from gan_ray.errors import ConfigError
from gan_ray.ranges import Choice, LogUniform, Uniform

Positive = Annotated[int, pydantic.Field(gt=0)]
Count = Annotated[int, pydantic.Field(ge=0)]
Share = Annotated[float, pydantic.Field(ge=0, le=1)]

T = TypeVar("T")
ModelT = TypeVar("ModelT")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def config(cls: type[T]) -> type[T]:
    """Turn a class into a frozen, keyword-only dataclass whose `from_dict` refuses unknown keys."""
    cls.__pydantic_config__ = pydantic.ConfigDict(extra="forbid")  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def to_dict(settings: Any) -> dict[str, Any]:
    """Give the configuration as nested plain dicts and lists, ready for JSON and Ray Tune."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return plain


def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
    """Build `cls` from nested plain dicts; inverse of `to_dict`.

    Raises:
        ConfigError: a key is unknown or a value has the wrong type; names each of them.
    """
    try:
        return pydantic.TypeAdapter(cls).validate_python(dict(data))
    except pydantic.ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or cls.__name__}: {fault['msg']}"
            f" (got {fault['input']!r})"
            for fault in error.errors(include_url=False)
        )
        raise ConfigError(f"configuration is not usable: {faults}") from None


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested `changes` over nested `base`; neither is modified."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give the leaves of a nested dict by their dotted paths, in their order."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat


def fingerprint(value: Any) -> str:
    """Name a configuration (or any JSON value) by its content: 16 hexadecimal digits."""
    plain = to_dict(value) if dataclasses.is_dataclass(value) else value
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@config
class Optimizer:
    """How a step updates its networks."""

    kind: Literal["adam", "rmsprop"] = "adam"
    """adam or rmsprop."""
    lr: Annotated[float, LogUniform(1e-5, 1e-3), pydantic.Field(gt=0, allow_inf_nan=False)] = 2e-4
    """Learning rate at the start."""
    decay_from: Share = 1.0
    """Share of the stage after which the rate falls linearly, to 0 at its end; 1 is constant."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Adam's decay of the first and the second moment; rmsprop uses the second as its decay."""
    eps: float = 1e-8
    """Added to the denominator."""


@config
class DataConfig:
    """Where the images are and how they become tensors."""

    root: str = ""
    """Directory, zip of one, or s3://bucket/prefix; empty for embedded data."""
    recipe: str = ""
    """Named data set of a paper (docs/datasets.md): fills in what is not set here."""
    source: Literal["folder", "data-json", "csv", "idx", "npz", "cifar10", "svhn", "digits"] = (
        "folder"
    )
    """Layout of ROOT."""
    image_size: Positive = 64
    """Pixels; images become squares of this side."""
    channels: Literal[1, 3] = 1
    """1 (grey) or 3 (RGB)."""
    fit: Literal["resize", "pad"] = "resize"
    """resize squashes to a square; pad adds black borders first and keeps the aspect ratio."""
    normal_class: int | None = None
    """One-vs-rest sources: the class that is normal."""
    abnormal_class: int | None = None
    """One-vs-rest sources: the class that is abnormal, all others being normal."""
    abnormal_share: Share = 0.3
    """One-vs-rest sources: share of abnormal training images in the unlabeled mix, in [0, 1]."""
    anomaly_ratio: Share = 0.6
    """Source data-json: share of abnormal images in the unlabeled mix, in [0, 1]."""
    unlabeled_size: Count = 0
    """Source data-json: images of the unlabeled mix; 0 means as many as there are normals."""
    holdout: Share = 0.2
    """Share of training normals held out, half for selection and half for calibration."""
    mix_held_out: Share = 0.0
    """Share of the unlabeled mix that is never trained on and that selection looks at; 0 looks at
    the images that are trained on, which rewards remembering them."""
    group_pattern: str = ""
    """Regular expression on the file name whose first group names the patient."""
    manifest: str = ""
    """CSV beside or inside ROOT with columns file and group, and class where classes is source;
    sublabel is read by evaluate alone. Source csv: the table itself (manifest.csv)."""
    classes: Literal["one", "source", "kmeans"] = "one"
    """Kinds of normal images, for class-conditional systems: one for all, those the source knows
    (digit, or column class of the manifest), or pseudo-classes of training normals by k-means."""
    class_count: Positive = 1
    """Number of those kinds; with source it must be what the training normals have."""
    flip: bool = False
    """Mirror training images left-right at random (anatomically wrong for most films)."""


@config
class TrainConfig:
    """How long, on what and how exactly training runs."""

    images: Positive = 200_000
    """Images of the whole training, split over the stages by their shares."""
    batch_size: Annotated[int, Choice(16, 32, 64, 128), pydantic.Field(gt=0)] = 32
    """Images per global batch, over all workers."""
    report_every: Count = 0
    """Images between reports (metrics, checkpoint); 0 means a twentieth of the training."""
    look: Count = 0
    """Held-out images scored at a report, of each part and label at most; 0 is all. For systems
    that search: chosen at random, the same in every report and run. Thresholds come from all."""
    workers: Positive = 1
    """Ray Train workers; the global batch is split over them."""
    min_workers: Count = 0
    """Fewest workers to go on with while nodes are lost; they join again when nodes come back. 0
    waits for all. Rounding differs with the number of workers, so final weights do in last bits."""
    placement: Literal["pack", "spread", "strict_spread"] = "pack"
    """pack puts workers on few nodes, spread on many where it can, strict_spread one on each."""
    use_gpu: bool = False
    """One GPU (or a fraction, see gpus_per_worker) for each worker."""
    gpus_per_worker: Annotated[float, pydantic.Field(gt=0)] = 1.0
    """GPUs per worker when use_gpu is set; fractions share a GPU."""
    threads: Positive = 1
    """CPU threads per worker; recorded, since results can depend on it in the last bit."""
    accumulate: Positive = 1
    """Parts a worker's share of the batch is cut into to save memory."""
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    """fp32, bf16 (autocast; penalties stay fp32) or fp64 (exactness tests)."""
    channels_last: bool = False
    """Memory layout NHWC, faster convolutions on most GPUs and CPUs."""
    compile: bool = False
    """torch.compile for networks that are not differentiated twice."""
    clip_gradient: Annotated[float, pydantic.Field(ge=0)] = 0.0
    """Largest gradient norm of a step; 0 means no clipping."""
    max_failures: Count = 3
    """Worker failures that Ray Train recovers from before it gives up."""
    keep_checkpoints: Positive = 3
    """Newest checkpoints kept (the best one is kept besides)."""
    select: Literal["auto", "aucp", "pseudo", "fid", "validation", "normal_score", "last"] = "auto"
    """Best checkpoint by this figure; auto is AUCp where an unlabeled mix exists, else the last.
    pseudo: held-out normals against their copies with foreign patches, which it scores besides."""
    features: str = ""
    """Bundle (folder or address) whose system has features, such as f-anogan: FID of the translated
    mix to held-out normals in them is reported; select=fid needs it."""
    samples: Count = 8
    """Images in the sample grids written at each report; 0 writes none."""
    stages: str = ""
    """Folder of stages that trainings share (docs/search.md): a GAN that another training of equal
    settings has left there is taken over, not trained again."""
    profile: bool = False
    """Profile a few cycles of each stage into RUN/profile: a Chrome trace and the top operators."""


@config
class ScoreConfig:
    """How evidence becomes a score; a property of the image alone, higher is more abnormal."""

    name: str = ""
    """Score of the architecture (see `gan-ray architectures`); empty means the paper's."""
    feature_weight: Annotated[float, LogUniform(1e-2, 1e2)] = 1.0
    """kappa: weight of the feature distance beside the image distance."""
    pixel_weight: Annotated[float, LogUniform(1e-2, 1e2)] = 1.0
    """kappa_p: weight of the distance of per-pixel features, in score and map (scaled_features)."""
    feature_share: Annotated[float, Uniform(0.0, 0.9)] = 0.1
    """lambda: share of the feature distance, the rest being the image distance's (score search)."""
    smooth: Annotated[float, Choice(0.0, 0.5, 1.0, 2.0, 4.0)] = 0.0
    """Gaussian blur of the anomaly map in pixels; 0 is off."""
    scales: Annotated[dict[str, float], Suppress] = dataclasses.field(default_factory=dict)
    """Mean of each part over held-out normals, by which scaled_features divides; filled in by
    validation and export, no setting of the command line."""
    top: Annotated[float, Choice(0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)] = 0.0
    """Score is the mean of this top share of map pixels; 0 takes the score's own reduction."""


@config
class Experiment(Generic[ModelT]):
    """Everything a training depends on; printed, stored and fingerprinted."""

    architecture: str
    """Name of the system."""
    variant: str = ""
    """Member of the family it was derived from, for the record."""
    preset: str = "default"
    """Size it was derived from, for the record."""
    seed: int = 0
    """Seed of every random draw."""
    model: ModelT
    """The architecture's own settings."""
    data: DataConfig = DataConfig()
    """Data settings."""
    train: TrainConfig = TrainConfig()
    """Training settings."""
    score: ScoreConfig = ScoreConfig()
    """Score settings."""
