from __future__ import annotations

from typing import Any

import pytest

from gan_ray.errors import ConfigError
from gan_ray.experiment import make
from gan_ray.ranges import Choice
from tune_spaces.plan import Joint, Plan, Search, searches
from tune_spaces.studies import plans


def tiny(name: str, variant: str = "", **changes: Any):
    return make(name, variant=variant, preset="tiny", changes=changes)


def joint(*experiments: Any) -> Search:
    made = plans(experiments or [tiny("ganomaly"), tiny("f-anogan")], "architecture", {}, {})
    return searches(made, "architecture")[0]


def test_the_choice_among_systems_is_a_dimension_and_theirs_hang_on_it() -> None:
    space = joint().space
    assert space["architecture"] == Choice("ganomaly", "f-anogan")
    assert set(space) == {
        "architecture",
        "ganomaly:model.weights.adversarial",
        "ganomaly:model.weights.contextual",
        "ganomaly:model.weights.latent",
        "f-anogan:model.weights.gradient_penalty",
        "f-anogan:model.weights.features",
    }
    for key in set(space) - {"architecture"}:
        assert space.where(key) == f"architecture is {key.partition(':')[0]}"


def test_it_begins_with_each_systems_own_settings() -> None:
    search = joint()
    assert [search.read(point) for point in search.firsts] == [
        (plan, plan.first) for plan in search.plans
    ]
    assert search.firsts[1]["f-anogan:model.weights.gradient_penalty"] == 10.0


def test_conditions_within_a_system_still_hold_among_systems() -> None:
    sagan = plans([tiny("sagan")], "encodings", {}, {})[0]
    (other,) = plans([tiny("ganomaly")], "weights", {}, {})
    space = Joint((sagan, other)).space
    drawn = space.draw(lambda key, values: {"architecture": "sagan",
        "sagan:model.encoding": "rope"}.get(key, 1))  # fmt: skip
    assert "sagan:model.heads" in drawn
    assert "sagan:model.code_grid" not in drawn
    assert not any(key.startswith("ganomaly:") for key in drawn)


def test_one_system_is_no_choice() -> None:
    with pytest.raises(ConfigError, match="two or more"):
        joint(tiny("ganomaly"))


def test_systems_of_one_study_need_the_same_resources() -> None:
    with pytest.raises(ConfigError, match="equally many workers"):
        joint(tiny("ganomaly"), tiny("f-anogan", train={"workers": 2, "batch_size": 8}))


def test_every_other_study_searches_each_system_by_itself() -> None:
    made = plans([tiny("ganomaly"), tiny("f-anogan")], "weights", {}, {})
    assert searches(made, "weights") == made
    assert all(isinstance(plan, Plan) for plan in made)


def test_the_study_of_encodings_holds_the_choice_and_what_hangs_on_it() -> None:
    space = plans([tiny("sagan")], "encodings", {}, {})[0].space
    assert set(space) == {f"model.{name}" for name in (
        "encoding", "code_grid", "encoding_channels", "temperature", "critic_encoding",
        "attention_position", "attention_dropout", "heads")}  # fmt: skip
    assert set(space) - set(space.conditions) == {"model.encoding"}


@pytest.mark.parametrize(
    ("encoding", "left"),
    [
        ("rope", {"temperature", "attention_position", "attention_dropout", "heads"}),
        ("binary+rope", {"code_grid", "critic_encoding", "temperature", "attention_position",
                         "attention_dropout", "heads"}),
        ("sinusoidal", {"encoding_channels", "temperature", "critic_encoding"}),
    ],
)  # fmt: skip
def test_a_pinned_encoding_leaves_its_own_settings_without_condition(encoding, left) -> None:
    space = plans([tiny("sagan")], "encodings", {"model.encoding": encoding}, {})[0].space
    assert set(space) == {f"model.{name}" for name in left}
    assert not space.conditions


def test_a_system_without_encodings_is_told_so() -> None:
    with pytest.raises(ConfigError, match="'encodings' of ganomaly has nothing to search"):
        plans([tiny("ganomaly")], "encodings", {}, {})
    with pytest.raises(ConfigError, match="'encodings' of sagan has nothing to search"):
        plans([tiny("sagan", "custom_swin")], "encodings", {}, {})


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (Choice("binary", "ropes"), "'ropes' is not among none, binary"),
        (Choice("binary", "binary"), "twice"),
    ],
)
def test_listed_points_must_be_of_the_range(listed, message) -> None:
    with pytest.raises(ConfigError, match=message):
        plans([tiny("sagan")], "encodings", {}, {"model.encoding": listed})
    with pytest.raises(ConfigError, match="'200' is not among 1 to 30"):
        plans([tiny("sagan")], "weights", {}, {"model.weights.gradient_penalty": Choice(5, 200)})
