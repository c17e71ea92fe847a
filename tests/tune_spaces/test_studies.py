from __future__ import annotations

from typing import Any

import pytest

from gan_ray.errors import ConfigError
from gan_ray.experiment import build_detector, make
from gan_ray.ranges import LogUniform
from tune_spaces.studies import plans
from tune_spaces.sweep import rungs


def tiny(name: str, variant: str = "", **changes: Any):
    return make(name, variant=variant, preset="tiny", changes=changes)


def keys(experiment, study="weights", fixes=None, ranges=None) -> set[str]:
    return set(plans([experiment], study, fixes or {}, ranges or {})[0].space)


@pytest.mark.parametrize(
    ("variant", "searched"),
    [
        ("izi_f", {"gradient_penalty", "features"}),
        ("izi", {"gradient_penalty"}),
        ("ziz", {"gradient_penalty"}),
    ],
)
def test_the_study_of_weights_has_only_terms_that_the_variant_uses(variant, searched) -> None:
    assert keys(tiny("f-anogan", variant)) == {f"model.weights.{name}" for name in searched}


def test_a_term_that_is_switched_off_is_not_searched() -> None:
    off = tiny("ganomaly", model={"weights": {"latent": 0.0}})
    assert "model.weights.latent" not in keys(off) | keys(off, "full")
    assert "model.weights.latent" in keys(tiny("ganomaly"))


def test_the_full_study_has_every_annotated_setting_of_the_model_and_nothing_else() -> None:
    found = keys(tiny("f-anogan"), "full")
    assert {"model.mode", "model.gan_optimizer.lr", "model.weights.features"} < found
    assert all(key.startswith("model.") for key in found - {"score.feature_weight"})


@pytest.mark.parametrize(
    ("name", "score", "read"),
    [
        ("f-anogan", "", {"score.feature_weight"}),
        ("f-anogan", "residual", set()),
        ("anogan", "", {"score.feature_share"}),
        ("ganomaly", "", set()),
    ],
)
def test_the_full_study_searches_what_the_score_reads(name, score, read) -> None:
    found = keys(tiny(name, score={"name": score}), "full")
    assert {key for key in found if key.startswith("score.")} == read
    assert not any(key.startswith("score.") for key in keys(tiny("f-anogan")))


def test_what_is_fixed_is_set_and_not_searched() -> None:
    plan = plans([tiny("ganomaly")], "weights", {"model.width": 8, "model.weights.latent": 3}, {})[
        0
    ]
    assert plan.experiment.model.width == 8
    assert plan.experiment.model.weights.latent == 3
    assert "model.weights.latent" not in plan.space


def test_a_range_narrows_where_the_key_is_known() -> None:
    both = [tiny("brainomaly"), tiny("ganomaly")]
    first, second = plans(both, "weights", {}, {"model.weights.identity": (0.5, 20)})
    assert first.space["model.weights.identity"] == LogUniform(0.5, 20)
    assert "model.weights.identity" not in second.space


def test_the_first_trial_is_the_experiment_itself() -> None:
    plan = plans([tiny("ganomaly")], "weights", {}, {})[0]
    assert plan.first == {
        "model.weights.adversarial": 1.0,
        "model.weights.contextual": 50.0,
        "model.weights.latent": 1.0,
    }


@pytest.mark.parametrize(
    ("study", "fixes", "ranges", "message"),
    [
        ("weigths", {}, {}, "Did you mean 'weights'"),
        ("weights", {"model.widht": 8}, {}, "Did you mean 'model.width'"),
        ("weights", {"model.width": "broad"}, {}, "model.*width"),
        ("weights", {}, {"model.width": (32, 64)}, "key of the study weights"),
        ("weights", {}, {"model.weights.latent": (0.01, 1)}, "only narrow"),
    ],
)
def test_what_a_study_may_not_do_is_refused(study, fixes, ranges, message) -> None:
    with pytest.raises(ConfigError, match=message):
        plans([tiny("ganomaly")], study, fixes, ranges)


def test_a_study_with_nothing_left_to_search_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to search"):
        plans([tiny("f-anogan", "izi")], "weights", {"model.weights.gradient_penalty": 5}, {})


def test_an_architecture_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="each once"):
        plans([tiny("ganomaly"), tiny("ganomaly")], "weights", {}, {})


def test_no_trial_is_judged_before_it_can_score_nor_at_its_end() -> None:
    one = tiny("ganomaly", train={"images": 800})
    two = tiny("f-anogan", train={"images": 800})
    assert rungs(build_detector(one).stages(), one.train) == (200, 799)
    assert rungs(build_detector(two).stages(), two.train) == (480 + 160, 799)
