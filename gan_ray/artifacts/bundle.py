"""A bundle: the folder that carries a trained detector to where images are scored.

`manifest.json`, `weights.safetensors` (only the networks that score) and `golden.npz`, and beside
them the graphs of `artifacts.formats`, which are hashed and not looked into here. Reading one runs
no code of it: no pickle exists in the formats that are parsed, every file is hashed before it is
parsed, and what is hashed is what is parsed.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gan_ray.artifacts.folder import new_folder, read_file
from gan_ray.artifacts.golden import Golden, read_golden, write_golden
from gan_ray.artifacts.manifest import GOLDEN, MANIFEST, WEIGHTS, Manifest, parse_manifest
from gan_ray.artifacts.precision import Precision, loaded, stored
from gan_ray.config import Experiment, ScoreConfig, from_dict
from gan_ray.data.transforms import preprocessing_hash
from gan_ray.detector import Detector
from gan_ray.errors import ArtifactError, ConfigError, needs_classes
from gan_ray.experiment import build_detector, image_spec, parse
from gan_ray.scoring.calibration import Calibration
from gan_ray.scoring.scores import make_score


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: its manifest, the parts of it that have types, and the detector."""

    path: Path
    manifest: Manifest
    experiment: Experiment[Any]
    score: ScoreConfig
    calibration: Calibration | None
    detector: Detector
    """On the CPU, in eval mode, without gradients, with the networks of `infers` alone."""
    golden: Golden


def load_bundle(path: str | Path) -> Bundle:
    """Verify the bundle in the folder `path` and build its detector.

    Raises:
        ArtifactError: anything about it is not as its manifest says, or this gan-ray cannot score
            with it; names the file and the remedy.
    """
    path = Path(path)
    manifest, contents = read_verified(path)
    experiment, score, calibration, detector = _build(manifest, path)
    golden = read_golden(contents[GOLDEN], manifest.image, str(path / GOLDEN))
    for name in set(detector.networks) - set(detector.infers):
        del detector.networks[name]
    _load_weights(detector, contents[WEIGHTS], manifest.precision, path / WEIGHTS)
    detector.eval().requires_grad_(False)
    return Bundle(path, manifest, experiment, score, calibration, detector, golden)


def refuse_conditional(manifest: Manifest, path: Path) -> None:
    """Refuse a bundle whose detector needs the class of each image; loads no weights.

    For those that score files, which do not tell their class.

    Raises:
        ArtifactError: this gan-ray cannot score with the bundle; `path` names it.
        ConfigError: it needs classes.
    """
    with torch.device("meta"):
        *_, detector = _build(manifest, path)
    if detector.conditional:
        raise ConfigError(needs_classes(manifest.reference, "a file does not tell its class"))


def _build(
    manifest: Manifest, path: Path
) -> tuple[Experiment[Any], ScoreConfig, Calibration | None, Detector]:
    try:
        experiment = parse(manifest.experiment)
        score = from_dict(ScoreConfig, manifest.score)
        stored = manifest.calibration
        calibration = None if stored is None else from_dict(Calibration, stored)
        detector = build_detector(experiment)
        make_score(score, detector)
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError) as odd:
        raise ArtifactError(
            f"{path / MANIFEST}: this gan-ray cannot build what it describes ({odd}); use the "
            f"versions it was made with: {manifest.software}"
        ) from None
    _agree(manifest, experiment, path)
    return experiment, score, calibration, detector


def read_verified(path: Path) -> tuple[Manifest, dict[str, bytes]]:
    """Give the manifest of the bundle in `path` and the content of the files it names.

    Raises:
        ArtifactError: the manifest is unsound, or a file is missing, a link or has another digest.
    """
    manifest = parse_manifest(read_file(path / MANIFEST), str(path / MANIFEST))
    contents = {name: read_file(path / name) for name in manifest.files}
    for name, data in contents.items():
        found, stated = hashlib.sha256(data).hexdigest(), manifest.files[name]
        if found != stated:
            raise ArtifactError(
                f"{path / name}: has sha256 {found}, but the manifest says {stated}: the file is "
                "damaged or was changed; fetch or export the bundle again"
            )
    for name in (WEIGHTS, GOLDEN):
        if name not in contents:
            raise ArtifactError(f"{path / MANIFEST}: `files` lacks {name}; export the bundle again")
    return manifest, contents


def save_bundle(
    path: str | Path, detector: Detector, manifest: Manifest, *, golden: Golden
) -> Path:
    """Write the bundle as a whole or not at all, and give its path; see `write_bundle`.

    Raises:
        ArtifactError: a weight is not finite.
        ConfigError: `path` exists.
        StorageError: the folder cannot be written.
    """
    with new_folder(Path(path)) as folder:
        write_bundle(folder, detector, manifest, golden=golden)
    return Path(path)


def write_bundle(folder: Path, detector: Detector, manifest: Manifest, *, golden: Golden) -> None:
    """Write the three files into an empty folder; the same content gives the same bytes.

    Weights are stored in the manifest's precision, those of the networks in `detector.infers`
    alone; the manifest's `files` are filled in here.
    """
    weights = stored(_weights(detector), manifest.precision)
    bare = dataclasses.replace(manifest, files={})
    _write(folder, bare, {WEIGHTS: save(weights), GOLDEN: write_golden(golden)})


def add_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write further files beside those of `write_bundle`, and name them in its manifest."""
    file = folder / MANIFEST
    _write(folder, parse_manifest(read_file(file), str(file)), files)


def _write(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = dataclasses.replace(manifest, files={**manifest.files, **digests})
    for name, data in {**files, MANIFEST: manifest.to_json()}.items():
        (folder / name).write_bytes(data)


def _agree(manifest: Manifest, experiment: Experiment[Any], path: Path) -> None:
    image, fit = image_spec(experiment), experiment.data.fit
    pairs: Mapping[str, tuple[object, object]] = {
        "architecture": (manifest.architecture, experiment.architecture),
        "image": (manifest.image, image),
        "fit": (manifest.fit, fit),
        "preprocessing": (manifest.preprocessing, preprocessing_hash(image, fit)),
    }
    for field, (stated, needed) in pairs.items():
        if stated != needed:
            raise ArtifactError(
                f"{path / MANIFEST}: `{field}` is {stated}, but its experiment and this gan-ray "
                f"give {needed}: scores would not be the exported ones. Use the versions the "
                f"bundle was made with ({manifest.software}) or export it again"
            )


def _weights(detector: Detector) -> dict[str, Tensor]:
    dropped = tuple(f"networks.{name}." for name in set(detector.networks) - set(detector.infers))
    weights: dict[str, Tensor] = {}
    for name, tensor in detector.state_dict().items():
        if name.startswith(dropped):
            continue
        weights[name] = tensor.detach().to("cpu", _stored_type(tensor), copy=True).contiguous()
        if not weights[name].isfinite().all():
            raise ArtifactError(
                f"weight {name} is not finite in float32: the training diverged; export an "
                "earlier checkpoint"
            )
    return weights


def _stored_type(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.is_floating_point() else tensor.dtype


def _load_weights(detector: Detector, data: bytes, precision: Precision, file: Path) -> None:
    try:
        tensors = load(data)
    except (SafetensorError, KeyError, ValueError, OverflowError, MemoryError) as error:
        raise ArtifactError(f"{file}: no readable safetensors ({error}); export it again") from None
    plain = {n: tensor.to(_stored_type(tensor)) for n, tensor in detector.state_dict().items()}
    wanted, found = (
        {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in some.items()}
        for some in (stored(plain, precision), tensors)
    )
    if found != wanted:
        odd = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))
        raise ArtifactError(
            f"{file}: does not fit the networks of its experiment, first at {odd[0]}: found "
            f"{found.get(odd[0], 'nothing')}, needed {wanted.get(odd[0], 'nothing')} "
            f"({len(odd)} differ); use the gan-ray that wrote the bundle, or export it again"
        )
    broken = sorted(name for name, tensor in tensors.items() if not tensor.isfinite().all())
    if broken:
        raise ArtifactError(
            f"{file}: {broken[0]} is not finite ({len(broken)} such tensors); do not use this "
            "bundle, export an earlier checkpoint"
        )
    detector.load_state_dict(loaded(tensors))
