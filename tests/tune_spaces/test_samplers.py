from __future__ import annotations

import math

import optuna
import pytest

from gan_ray.errors import ConfigError
from gan_ray.experiment import make
from gan_ray.ranges import Choice, IntRange, LogUniform, Uniform, When
from tune_spaces.plan import Plan
from tune_spaces.samplers import check_method, given_points, grid_size, make_sampler
from tune_spaces.space import Space
from tune_spaces.studies import plans

optuna.logging.set_verbosity(optuna.logging.WARNING)

BRANCHES = Space(
    {"kind": Choice("good", "bad"), "good:x": Uniform(0.0, 1.0), "bad:x": Uniform(0.0, 1.0)},
    {"good:x": (When(kind="good"),), "bad:x": (When(kind="bad"),)},
)


def searched(method: str, trials: int, *, broken_after: int = 0) -> list[optuna.trial.FrozenTrial]:
    """Search as a sweep does: a new sampler for each trial, which is all that a resumed one has."""
    study = optuna.create_study(direction="maximize")
    for number in range(trials):
        study.sampler = make_sampler(method, 1000 + number)
        trial = study.ask()
        point = BRANCHES.suggest(trial)
        value = 1 - abs(point["good:x"] - 0.8) if point["kind"] == "good" else 0.1
        study.tell(trial, value if method == "tpe" else math.sin(number * (1 + broken_after)))
    return study.trials


def test_a_branch_that_is_better_is_drawn_more_often_and_its_dimension_converges() -> None:
    trials = searched("tpe", 50)
    late = trials[30:]
    assert sum(trial.params["kind"] == "good" for trial in late) > 15
    assert all(set(t.params) == {"kind", f"{t.params['kind']}:x"} for t in trials)
    near = [abs(t.params["good:x"] - 0.8) < 0.1 for t in late if t.params["kind"] == "good"]
    assert sum(near) > len(near) / 2


def test_random_points_follow_from_seed_and_number_whatever_the_values() -> None:
    once, again = (searched("random", 12, broken_after=n) for n in (0, 1))
    assert [t.params for t in once] == [t.params for t in again]
    assert len({t.params[f"{t.params['kind']}:x"] for t in once}) == 12


def encodings(*kinds: str) -> Plan:
    """Some encodings of SAGAN, with few points each."""
    ranges = {
        "model.encoding": Choice(*kinds),
        "model.temperature": Choice(10.0, 1000.0),
        "model.attention_dropout": Choice(0.0, 0.2),
    }
    fixes = {"model.heads": 4, "model.attention_position": "start"}
    return plans([make("sagan", preset="tiny")], "encodings", fixes, ranges)[0]


def test_a_grid_has_each_combination_that_matters_once_and_begins_with_the_given_settings() -> None:
    search = encodings("none", "binary", "rope")
    points = given_points("grid", search, 100)
    assert points[0] == {"model.encoding": "binary", "model.code_grid": 2,
                         "model.critic_encoding": False}  # fmt: skip
    assert [point["model.encoding"] for point in points].count("none") == 1
    assert [point["model.encoding"] for point in points].count("binary") == 4 * 2
    assert [point["model.encoding"] for point in points].count("rope") == 2 * 2
    assert len({tuple(sorted(point.items())) for point in points}) == len(points) == 13
    assert grid_size(search, 100) == 13


def test_a_grid_is_cut_to_the_samples_and_goes_on_from_there() -> None:
    search = encodings("none", "rope")
    assert given_points("grid", search, 3) == given_points("grid", search, 9)[:3]
    assert grid_size(search, 2) == 2


def test_a_grid_over_what_has_no_points_is_refused_with_three_ways_out() -> None:
    with pytest.raises(ConfigError) as refused:
        given_points("grid", plans([make("sagan")], "encodings", {}, {})[0], 9)
    for part in ("model.temperature", "--range model.temperature=10,10000", "--fix", "random"):
        assert part in str(refused.value)


def test_whole_numbers_are_points_of_a_grid() -> None:
    experiment = make("sagan", preset="tiny")
    space = Space({"model.residual_blocks": IntRange(2, 4)})
    points = given_points("grid", Plan(experiment, space), 9)
    assert [point["model.residual_blocks"] for point in points] == [2, 3, 4]
    continuous = Plan(experiment, Space({"model.weights.identity": LogUniform(0.1, 10.0)}))
    assert given_points("tpe", continuous, 9) == [{"model.weights.identity": 1.0}]


def test_an_unknown_way_to_search_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'random'"):
        check_method("randon")
