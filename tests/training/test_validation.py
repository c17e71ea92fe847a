"""What a report looks at."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gan_ray import experiment
from gan_ray.data.sets import Split, TrainingData
from gan_ray.training.validation import Look, Validation


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
