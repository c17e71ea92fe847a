"""What a report looks at."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from gan_ray import experiment
from gan_ray.config import Experiment
from gan_ray.data.sets import Split, TrainingData
from gan_ray.detector import Detector
from gan_ray.errors import ArtifactError, ConfigError
from gan_ray.training.preflight import preflight
from gan_ray.training.validation import Look, Validation
from tests.artifacts.conftest import make_bundle


def split(name: str, count: int) -> Split:
    ids = np.array([f"{name}{row}" for row in range(count)])
    pixels = np.random.default_rng(len(name)).integers(0, 256, (count, 1, 16, 16), dtype=np.uint8)
    return Split(images=pixels, groups=ids, ids=ids, classes=np.zeros(count, np.int64))


LABELS = np.array([0] * 12 + [1] * 3)
DATA = TrainingData(
    normal=split("n", 4),
    unlabeled=split("unlabeled", 30),
    select=split("select", 20),
    calibrate=split("calibrate", 5),
    labelled=(split("labelled", 15), LABELS),
    fingerprint="",
)


def look(count: int, seed: int = 0, system: str = "alocc") -> Look:
    changes = {"train": {"look": count, "samples": 2}, "seed": seed}
    settings = experiment.make(system, preset="tiny", changes=changes)
    detector = experiment.build_detector(settings, seed=0).eval().requires_grad_(False)
    return Validation(settings, DATA).look(detector, torch.device("cpu"))


def ids(seen: Look) -> dict[str, list[str]]:
    return {name: list(part.ids) for name, (part, _) in seen.scores.items()}


def test_a_report_looks_at_all_held_out_images_by_default():
    assert {name: len(rows) for name, rows in ids(look(0)).items()} == {
        "select": 20, "unlabeled": 30, "labelled": 15
    }  # fmt: skip


def test_a_short_look_takes_so_many_of_each_part_and_label_with_their_own_scores():
    whole, some = look(0), look(5)
    expected = {name: dict(zip(part.ids, scores, strict=True))
                for name, (part, scores) in whole.scores.items()}  # fmt: skip
    for name, (part, scores) in some.scores.items():
        assert len(set(part.ids)) == (8 if name == "labelled" else 5)
        wanted = [expected[name][each] for each in part.ids]
        np.testing.assert_allclose(scores, wanted, rtol=2e-5)
    rows = [int(each.removeprefix("labelled")) for each in ids(some)["labelled"]]
    assert list(LABELS[rows]) == [0] * 5 + [1] * 3
    normal = np.asarray(some.scores["select"][1]).mean()
    assert some.figures["val/normal_score"] == pytest.approx(normal, rel=1e-5)
    assert some.figures["val/denoising_error"] != whole.figures["val/denoising_error"]
    assert len(some.samples["input"]) == 2


def test_every_report_and_run_looks_at_the_same_images():
    assert ids(look(5)) == ids(look(5, seed=1))
    rows = ids(look(5))["select"]
    assert rows != list(DATA.select.ids[:5]), "chosen at random, not the first ones"


def test_a_look_at_more_than_there_are_sees_each_once():
    assert ids(look(1000)) == ids(look(0))


def test_the_colour_scale_of_maps_suits_their_units():
    plain, scaled = look(5), look(5, system="f-unetgan")
    assert plain.map_range == (0.0, 0.5)
    assert scaled.map_range == (0.0, 8.0)
    assert 0.5 < scaled.samples["map"].mean() < 8, "means are near 2 on normal images"


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bundle of a system with features."""
    return str(make_bundle(tmp_path_factory.mktemp("features") / "fanogan", "f-anogan"))


def translation(features: str, **train: Any) -> Experiment[Any]:
    changes = {
        "model": {"residual_link": "logit_sum"},
        "train": {"select": "fid", "features": features, "samples": 0, **train},
        "data": {"source": "digits", "normal_class": 3},
    }
    return experiment.make("brainomaly", preset="tiny", changes=changes)


def adding(value: float, settings: Experiment[Any]) -> Detector:
    """A translation that adds `value` to every pixel's logit: 0 leaves images alone."""
    detector = experiment.build_detector(settings).eval().requires_grad_(False)
    detector.networks["generator"].register_forward_hook(
        lambda network, inputs, output: torch.full_like(output, value)
    )
    return detector


def test_fid_is_0_where_the_mix_becomes_the_held_out_normals_and_grows_with_the_distance(features):
    settings = translation(features)
    same = dataclasses.replace(DATA, unlabeled=DATA.select)
    validation = Validation(settings, same)
    near, far, farther = (
        validation.look(adding(value, settings), torch.device("cpu")).figures["val/fid"]
        for value in (0.0, 1.0, 3.0)
    )
    assert near < 0.01 * far
    assert far < farther
    other = Validation(settings, DATA).look(adding(0.0, settings), torch.device("cpu"))
    assert near < 0.1 * other.figures["val/fid"], "another mix"
    assert {"val/aucp", "val/normal_score"} < set(other.figures)


def test_fid_is_of_the_images_of_a_short_look(features):
    short, whole = (translation(features, look=count) for count in (6, 0))
    cut = Validation(short, DATA)
    seen = cut.look(adding(1.0, short), torch.device("cpu"))
    rows = {name: part for name, (part, _) in seen.scores.items()}
    assert len(rows["unlabeled"]) == len(rows["select"]) == 6
    only = dataclasses.replace(DATA, unlabeled=rows["unlabeled"], select=rows["select"])
    expected = Validation(whole, only).look(adding(1.0, whole), torch.device("cpu"))
    assert seen.figures["val/fid"] == pytest.approx(expected.figures["val/fid"], rel=1e-3)
    again = cut.look(adding(1.0, short), torch.device("cpu"))
    assert again.figures["val/fid"] == seen.figures["val/fid"]


def test_the_report_with_the_lowest_fid_is_best_and_the_earliest_of_equals(features):
    rows = [{"images": n, "val/fid": v, "val/aucp": n / 9} for n, v in enumerate((5, 2, 3, 2))]
    best = Validation(translation(features), DATA).best(rows)
    assert best is not None
    assert (best.by, best.images, best.labels_used) == ("fid", 1, False)
    auto = Validation(translation(features, select="auto"), DATA).best(rows)
    assert auto is not None
    assert (auto.by, auto.images) == ("aucp", 3), "a feature network alone decides nothing"


def test_fid_without_a_network_or_a_mix_is_refused(features, tmp_path):
    nothing = dataclasses.replace(DATA, unlabeled=None)
    cases = [
        (translation(""), DATA, "needs a feature network"),
        (translation(features), nothing, "fid needs an unlabeled mix"),
        (translation(features, select="last"), nothing, "lacks the mix"),
        (translation(str(make_bundle(tmp_path / "b", "alocc"))), DATA, "no features of an image"),
    ]
    for settings, data, reason in cases:
        with pytest.raises(ConfigError, match=reason):
            Validation(settings, data)
    for settings, _, reason in (cases[0], cases[3]):
        with pytest.raises(ConfigError, match=reason):
            preflight(settings)
    with pytest.raises(ArtifactError):
        preflight(translation(str(tmp_path / "nowhere")))
    assert Validation(translation("", select="last"), nothing)


def by_pseudo(select: str = "pseudo", count: int = 0) -> Validation:
    changes = {"train": {"select": select, "samples": 0, "look": count}}
    return Validation(experiment.make("alocc", preset="tiny", changes=changes), DATA)


def seen_by(validation: Validation) -> Look:
    detector = experiment.build_detector(validation._experiment, seed=0)
    return validation.look(detector.eval().requires_grad_(False), torch.device("cpu"))


def test_pseudo_anomalies_are_looked_at_where_they_select_and_nowhere_else():
    usual, proxy = seen_by(by_pseudo("aucp")), seen_by(by_pseudo())
    assert set(proxy.figures) - set(usual.figures) == {
        "val/pseudo_auroc", "val/pseudo_auroc_error"
    }  # fmt: skip
    assert set(proxy.scores) - set(usual.scores) == {"pseudo"}
    assert ids(proxy)["pseudo"] == ids(proxy)["select"]
    assert by_pseudo().images - by_pseudo("aucp").images == len(ids(proxy)["pseudo"])
    assert 0 < proxy.figures["val/pseudo_auroc_error"] < 0.5


def test_pseudo_anomalies_are_made_of_the_normals_of_a_short_look_and_are_the_same_each_time():
    short = by_pseudo(count=6)
    first, second = seen_by(short), seen_by(by_pseudo(count=6))
    assert len(ids(first)["pseudo"]) == 6
    assert first.figures["val/pseudo_auroc"] == second.figures["val/pseudo_auroc"]


def test_the_report_with_the_highest_proxy_is_best():
    rows = [
        {"images": n, "val/pseudo_auroc": v, "val/aucp": n / 9} for n, v in enumerate((5, 8, 3))
    ]
    best = by_pseudo().best(rows)
    assert best is not None
    assert (best.by, best.images, best.labels_used) == ("pseudo", 1, False)


def test_the_mix_that_is_held_out_of_training_is_what_is_looked_at():
    held = dataclasses.replace(DATA, held_out_mix=split("held", 9))
    settings = experiment.make("alocc", preset="tiny", changes={"train": {"samples": 4}})
    detector = experiment.build_detector(settings).eval().requires_grad_(False)
    for count in (0, 5):
        train = dataclasses.replace(settings.train, look=count)
        validation = Validation(dataclasses.replace(settings, train=train), held)
        seen = validation.look(detector, torch.device("cpu"))
        assert {name[:4] for name in ids(seen)["unlabeled"]} == {"held"}
        assert len(ids(seen)["unlabeled"]) == (count or 9)
        assert seen.samples["input"].shape[0] == 4
