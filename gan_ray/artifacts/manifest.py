"""The manifest: what a bundle says about itself, and how to tell that nobody changed it.

One JSON document of plain values. It names every other file of the bundle with its sha256 and ends
with a digest of itself, so that `Manifest.digest` names the whole bundle by its content.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, NoReturn

from gan_ray.artifacts.precision import Precision
from gan_ray.config import config, from_dict, to_dict
from gan_ray.detector import ImageSpec
from gan_ray.errors import ArtifactError, ConfigError

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
GOLDEN = "golden.npz"
SCHEMA = 1

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST = 64 * 2**20  # bytes; a million calibration scores fit


def is_plain_name(text: str) -> bool:
    """Tell whether `text` can name a bundle, a version or a file: it cannot leave its folder."""
    return _PLAIN_NAME.fullmatch(text) is not None


@config
class Training:
    """Which moment of which training the weights are from."""

    images: int
    """Images seen, over all stages."""
    stage: str
    """Stage that the checkpoint was taken in."""
    selection: str
    """How the checkpoint was chosen, in words."""


@config
class Drift:
    """How far scores moved when the weights were rounded: on held-out normals, no label is read."""

    images: int
    """Held-out normals."""
    largest: float
    """Largest absolute difference from the float32 score of an image."""
    mean: float
    """Mean absolute difference."""
    spread: float
    """Standard deviation of the float32 scores, to measure the differences by."""
    flips: int
    """Decisions that differ, each score judged by the threshold of its own precision."""


@config
class Manifest:
    """Everything a bundle says about itself; serialised with `schema_version` as `schema`."""

    schema_version: int = SCHEMA
    """Layout of this document."""
    name: str
    """Letters, digits, dots, dashes and underscores; with the version it names the bundle."""
    version: str
    """Usually an integer; the same alphabet as the name."""
    architecture: str
    """Name of the system."""
    experiment: dict[str, Any]
    """The whole experiment (`gan_ray.config.Experiment`)."""
    image: ImageSpec
    """Size and channels the networks are built for."""
    fit: str
    """How an image becomes a square: resize or pad."""
    preprocessing: str
    """Hash of the way from a file's pixels to the networks (`data.transforms`)."""
    score: dict[str, Any]
    """The score and its settings (`gan_ray.config.ScoreConfig`)."""
    calibration: dict[str, Any] | None = None
    """Threshold and what it rests on (`scoring.calibration.Calibration`), if there is one."""
    data_fingerprint: str
    """Names the training data by content."""
    metrics: dict[str, float]
    """Figures of the checkpoint, by name with their split: `val/aucp`."""
    passes_per_image: int
    """Network passes one image costs, roughly."""
    precision: Precision = "float32"
    """Of the stored weights; golden scores and threshold are theirs."""
    drift: Drift | None = None
    """What a lower precision than float32 changed."""
    software: dict[str, str]
    """Versions of the code and of the libraries that shape a score."""
    training: Training
    """Which moment of which training the weights are from."""
    files: dict[str, str]
    """sha256 of every other file, by name."""

    def __post_init__(self) -> None:
        """Refuse names that could leave the bundle's folder and digests that are none."""
        for field in ("name", "version"):
            value = getattr(self, field)
            if not is_plain_name(value):
                raise ArtifactError(
                    f"{field} {value!r} of a bundle is not allowed: take up to 128 letters, "
                    "digits, dots, dashes and underscores, beginning with a letter or digit"
                )
        for name, digest in self.files.items():
            if not is_plain_name(name) or name == MANIFEST:
                raise ArtifactError(
                    f"`files` names {name!r}: only plain names of files beside {MANIFEST} are "
                    "allowed; do not use this bundle"
                )
            if not _SHA256.fullmatch(digest):
                raise ArtifactError(f"`files` gives {digest!r} for {name}: that is no sha256")

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def digest(self) -> str:
        """sha256 of the content: 64 hexadecimal digits that name the whole bundle."""
        return _digest(self._plain())

    def to_json(self) -> bytes:
        """Give the document, the digest included; inverse of `parse_manifest`.

        Raises:
            ArtifactError: a value has no place in strict JSON (NaN, infinity).
        """
        plain = self._plain()
        return (json.dumps({**plain, "digest": _digest(plain)}, indent=2) + "\n").encode()

    def _plain(self) -> dict[str, Any]:
        # Through `from_dict`, so that 1 and 1.0 in a float field have one spelling and one digest.
        plain = to_dict(from_dict(Manifest, to_dict(self)))
        return {"schema": plain.pop("schema_version"), **plain}


def parse_manifest(data: bytes, where: str = MANIFEST) -> Manifest:
    """Read the document; `where` names it in errors.

    Raises:
        ArtifactError: it is no JSON, has another schema, an unknown, missing or wrong field, a name
            that leaves the folder, or is not what its digest was made of.
    """

    def refuse(reason: str) -> NoReturn:
        raise ArtifactError(f"{where}: {reason}")

    if len(data) > _LARGEST:
        refuse(f"{len(data)} bytes are more than the {_LARGEST} a manifest may have")
    try:
        plain = json.loads(data, parse_constant=lambda text: refuse(f"{text} is no JSON number"))
    except (ValueError, RecursionError) as error:
        refuse(f"not a readable JSON document ({error}); export or fetch the bundle again")
    if not isinstance(plain, dict):
        refuse("not a JSON object; this is no bundle of gan-ray")
    schema = plain.pop("schema", None)
    if schema != SCHEMA or isinstance(schema, bool):
        refuse(
            f"schema {schema!r} is unknown: this gan-ray ({version('gan-ray')}) reads schema "
            f"{SCHEMA}; use the gan-ray that wrote the bundle, or export it again"
        )
    stated = plain.pop("digest", None)
    try:
        # Of the document as it stands: a field added since has a default that it did not count.
        computed = _digest({"schema": schema, **plain})
        manifest = from_dict(Manifest, {"schema_version": schema, **plain})
    except (ConfigError, ArtifactError) as error:
        refuse(str(error))
    if stated != computed:
        refuse(
            f"the content has digest {computed}, but states {stated!r}: a field was changed after "
            "the export; fetch the bundle again"
        )
    return manifest


def software() -> dict[str, str]:
    """Give the versions of the code and of the libraries that shape a score."""
    libraries = ("gan-ray", "torch", "numpy", "pillow", "safetensors")
    return {"python": platform.python_version(), **{name: version(name) for name in libraries}}


def _digest(plain: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise ArtifactError(
            f"a bundle's manifest holds numbers that are not finite ({error}): leave them out"
        ) from None
    return hashlib.sha256(text.encode()).hexdigest()
