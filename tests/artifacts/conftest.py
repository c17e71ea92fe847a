"""A real bundle of a tiny Brainomaly, and a way to forge one whose digests are all right."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan_ray.artifacts.bundle import save_bundle
from gan_ray.artifacts.golden import Golden, golden_images
from gan_ray.artifacts.manifest import Manifest, Training, parse_manifest, software
from gan_ray.config import from_dict, merge, to_dict
from gan_ray.data.transforms import preprocessing_hash
from gan_ray.experiment import build_detector, image_spec, make
from gan_ray.scoring.calibration import calibrate
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import make_score
from gan_ray.training.launch import train

Forge = Callable[..., Path]


def make_bundle(
    path: Path, architecture: str, *, seed: int = 0, version: str = "1", **changes: Any
) -> Path:
    experiment = make(architecture, preset="tiny", changes={"seed": seed, **changes})
    detector, image = build_detector(experiment), image_spec(experiment)
    scorer = Scorer(detector, make_score(experiment.score, detector))
    images = golden_images(image)
    normals = np.random.default_rng(0).integers(0, 256, (40, *images.shape[1:]), np.uint8)
    seen = scorer.score_images(normals, maps=True)
    manifest = Manifest(
        name=f"tiny-{architecture}",
        version=version,
        architecture=architecture,
        experiment=to_dict(experiment),
        image=image,
        fit=experiment.data.fit,
        preprocessing=preprocessing_hash(image, experiment.data.fit),
        score=to_dict(experiment.score),
        calibration=to_dict(calibrate(seen.scores, 0.05, seen.maps)),
        data_fingerprint="0123456789abcdef",
        metrics={"val/aucp": 0.75},
        passes_per_image=detector.passes_per_image,
        software=software(),
        training=Training(images=0, stage="gan", selection="untrained"),
        files={},
    )
    golden = Golden(images, scorer.score_images(images).scores)
    return save_bundle(path, detector, manifest, golden=golden)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that no test may change."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "pristine", "brainomaly")


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Path:
    """A bundle of the test's own."""
    return Path(shutil.copytree(pristine, tmp_path / "bundle"))


@pytest.fixture
def forge(bundle: Path) -> Forge:
    """Put other files or manifest fields into the bundle and make every digest right again."""

    def forged(files: Mapping[str, bytes] | None = None, **fields: Any) -> Path:
        old = to_dict(parse_manifest((bundle / "manifest.json").read_bytes()))
        digests = dict(old["files"])
        for name, data in (files or {}).items():
            (bundle / name).write_bytes(data)
            digests[name] = hashlib.sha256(data).hexdigest()
        new = from_dict(Manifest, merge({**old, "files": digests}, fields))
        (bundle / "manifest.json").write_bytes(new.to_json())
        return bundle

    return forged


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose best checkpoint is not its last one; no test may change it."""
    path = tmp_path_factory.mktemp("runs") / "brainomaly"
    changes = {
        "data": {"source": "digits", "normal_class": 1, "holdout": 0.4},
        "train": {"images": 64, "report_every": 16, "samples": 0},
    }
    run = train(make("brainomaly", preset="tiny", changes=changes), path, local=True)
    run.put_json("selection.json", {**run.get_json("selection.json"), "images": 48})
    return path
