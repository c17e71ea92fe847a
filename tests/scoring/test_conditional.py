"""A detector that scores an image by its class: who tells it the class, and what refuses to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gan_ray.artifacts.bundle import load_bundle
from gan_ray.artifacts.export import export
from gan_ray.artifacts.parity import verify
from gan_ray.config import DataConfig, Experiment, ScoreConfig
from gan_ray.data.sources import load_test, load_training
from gan_ray.detector import Evidence, ImageSpec
from gan_ray.errors import ConfigError, DataError
from gan_ray.experiment import build_detector, make
from gan_ray.scoring.batch import score_prefix
from gan_ray.scoring.evaluate import evaluate
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import make_score
from gan_ray.training.launch import train
from gan_ray.training.preflight import preflight
from gan_ray.training.run import RunFolder
from tests.data.trees import folders, write_folder
from tests.scoring.toy import Settings, Toy

COUNTS = {"train/normal": 60, "train/unlabeled": 6, "test/normal": 8, "test/abnormal": 6}


class Constant(Toy):
    """Takes class k for an image of brightness k; `conditional` unless told otherwise."""

    name = "constant"
    conditional = True

    def evidence(self, images, classes=None):
        level = torch.zeros(len(images)) if classes is None else classes.float()
        return Evidence(reconstruction=torch.ones_like(images) * level.view(-1, 1, 1, 1))


def scorer(**settings: Any) -> Scorer:
    detector = Constant(Settings(), ImageSpec(size=4, channels=1, classes=3))
    return Scorer(detector, make_score(ScoreConfig(name="residual"), detector), **settings)


IMAGES = np.full((7, 1, 4, 4), 255, np.uint8)
CLASSES = np.array([0, 1, 2, 0, 1, 2, 0])


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_each_image_is_scored_by_its_own_class_whatever_the_batches(batch_size: int):
    found = scorer(batch_size=batch_size).score_images(IMAGES, classes=CLASSES).scores
    np.testing.assert_allclose(found, np.abs(1 - CLASSES) / 2)


def test_a_detector_that_is_not_conditional_is_told_no_class():
    judge = scorer()
    judge.detector.conditional = False
    plain = judge.score_images(IMAGES, classes=CLASSES).scores
    np.testing.assert_array_equal(plain, judge.score_images(IMAGES).scores)


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        (None, "these images come without one"),
        (np.where(CLASSES == 2, -1, CLASSES), "2 of 7 images have none of the 3"),
        (CLASSES + 1, "2 of 7 images have none of the 3"),
        (CLASSES[:4], "3 of 7 images have none of the 3"),
    ],
)
def test_images_without_a_class_are_refused_and_the_way_out_is_told(
    classes: np.ndarray | None, reason: str
):
    with pytest.raises(ConfigError, match=rf"{reason}.*column class.*label-policy min or predict"):
        scorer().score_images(IMAGES, classes=classes)


def settings(data: dict[str, Any]) -> Experiment[Any]:
    changes = {
        "data": {"classes": "source", "class_count": 2, **data},
        "model": {"label_policy": "known"},
        "train": {"images": 64, "report_every": 32, "samples": 4},
    }
    return make("ra-ccgan", preset="tiny", changes=changes)


def products(folder: Path, kind_of=lambda number: ("nut", "screw")[number % 2]) -> Experiment[Any]:
    files = folders(COUNTS)
    root = write_folder(folder / "set", files)
    rows = [f"{name},{name},{kind_of(number)}" for number, name in enumerate(files)]
    (folder / "types.csv").write_text("\n".join(["file,group,class", *rows]))
    return settings({"root": root, "manifest": "types.csv", "holdout": 0.6})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on products of two types, and the bundle made of it."""
    home = tmp_path_factory.mktemp("products")
    train(products(home), home / "run", local=True)
    return export(home / "run", home / "bundle", fpr=0.2)


def test_a_run_on_products_is_validated_exported_and_evaluated_by_their_types(
    bundle: Path, tmp_path: Path
):
    loaded = load_bundle(bundle)
    judge, data = Scorer.from_bundle(loaded), loaded.experiment.data
    held_out, test = load_training(data).calibrate, load_test(data)
    assert loaded.calibration is not None
    scores = judge.score_images(held_out.images, classes=held_out.classes).scores
    assert sorted(loaded.calibration.scores) == pytest.approx(sorted(scores.tolist()))
    (model,) = evaluate([bundle], None, tmp_path, resamples=50)["models"]
    scores = judge.score_images(test.split.images, classes=test.split.classes).scores
    np.testing.assert_allclose(model["scores"]["values"], scores, rtol=1e-5)
    wrong = judge.score_images(test.split.images, classes=1 - test.split.classes).scores
    assert (wrong != scores).all(), "a class without effect would pass the rest"
    assert verify(bundle)["max_score_difference"] <= 1e-4
    rows = RunFolder(bundle.parent / "run").metrics()
    assert any("val/aucp" in row for row in rows)


def test_evaluation_on_other_data_is_refused_since_their_classes_may_be_numbered_otherwise(
    bundle: Path, tmp_path: Path
):
    other = products(tmp_path, lambda number: ("screw", "bolt")[number % 2]).data
    same = dataclasses.replace(other, classes="one", class_count=1)
    assert set(load_test(other).split.classes) == {0, 1}
    for data in (other, same):
        with pytest.raises(ConfigError, match="classes of these data may be others"):
            evaluate([bundle], data, tmp_path / "out")


def test_files_do_not_tell_their_class_so_buckets_and_http_refuse_the_bundle(
    bundle: Path, tmp_path: Path
):
    from serve.app import build
    from serve.settings import AppArgs

    content = next((bundle.parent / "set/test/normal").iterdir()).read_bytes()
    with pytest.raises(ConfigError, match="come without one"):
        Scorer.from_bundle(load_bundle(bundle)).score_files([("a.png", content)])
    with pytest.raises(ConfigError, match="a file does not tell its class"):
        score_prefix(bundle, str(bundle.parent / "set"), str(tmp_path / "sink"))
    assert not (tmp_path / "sink").exists()
    with pytest.raises(ConfigError, match="a file does not tell its class"):
        build(AppArgs(bundles=(str(bundle),), host="127.0.0.1"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"source": "digits", "abnormal_class": 3, "class_count": 9}, "source 'digits' the class"),
        ({"source": "idx", "root": "x", "normal_class": 3}, "source 'idx' the class"),
        ({"source": "digits", "normal_class": 3, "classes": "kmeans"}, "k-means"),
    ],
)
def test_a_class_that_is_the_answer_or_is_not_told_is_refused(data: dict[str, Any], reason: str):
    for check in (build_detector, preflight):
        with pytest.raises(ConfigError, match=rf"{reason}.*label-policy min or predict"):
            check(settings(data))


def test_one_class_is_no_secret():
    data = {"source": "digits", "normal_class": 3, "classes": "one", "class_count": 1}
    preflight(settings(data))


def test_an_image_of_the_mix_without_a_type_is_refused_before_training(tmp_path: Path):
    untold = products(tmp_path, lambda n: "" if n == 60 else ("nut", "screw")[n % 2])
    with pytest.raises(DataError, match=r"1 image\(s\).*train/unlabeled/p0-tr000\.png"):
        preflight(untold)
    free = dataclasses.replace(untold.model, label_policy="min")
    preflight(dataclasses.replace(untold, model=free))


def test_a_label_written_as_class_does_not_get_through(tmp_path: Path):
    labels = products(tmp_path, lambda n: "normal" if n < 60 or 66 <= n < 74 else "abnormal")
    data = dataclasses.replace(labels.data, class_count=1)
    assert isinstance(data, DataConfig)
    with pytest.raises(DataError, match=r"6 image\(s\) have a class that no training normal has"):
        preflight(dataclasses.replace(labels, data=data))
    test = load_test(data)
    assert set(test.split.classes[test.labels == 1]) == {-1}
