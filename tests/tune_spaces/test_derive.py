from __future__ import annotations

import itertools
from typing import Annotated

import pytest

from gan_ray import architectures
from gan_ray.config import Optimizer, config
from gan_ray.errors import ConfigError
from gan_ray.experiment import build_detector, make
from gan_ray.ranges import Choice, IntRange, LogUniform, Uniform
from tune_spaces.derive import corners, derive, narrow, nearest
from tune_spaces.settings import with_settings


@config
class Inner:
    weight: Annotated[float, Uniform(0.0, 1.0)] = 0.5
    plain: float = 1.0


@config
class Outer:
    width: Annotated[int, Choice(16, 32)] = 16
    inner: Inner = Inner()
    optimizer: Optimizer = Optimizer()


def test_annotated_fields_become_dimensions_under_dotted_keys() -> None:
    assert derive(Outer, "model.") == {
        "model.width": Choice(16, 32),
        "model.inner.weight": Uniform(0.0, 1.0),
        "model.optimizer.lr": LogUniform(1e-5, 1e-3),
    }


@pytest.mark.parametrize("name", architectures.names())
def test_every_corner_of_a_derived_space_builds_a_detector(name: str) -> None:
    base = make(name, preset="tiny", changes={"data": {"image_size": 32}})
    space = derive(architectures.get(name).Config, "model.")
    assert len(space) > 3
    small = {key: corners(values)[0] for key, values in space.items()}
    tried = [{**small, key: end} for key, values in space.items() for end in corners(values)]
    for settings, _ in itertools.groupby(tried):
        made = with_settings(base, settings)
        wide = {k: v for k, v in settings.items() if "width" in k and v != small[k]}
        if not wide:  # widths are only parsed: their networks are slow to build
            assert build_detector(made).networks


@pytest.mark.parametrize(
    ("wide", "low", "high", "left"),
    [
        (LogUniform(0.1, 100.0), 0.5, 20, LogUniform(0.5, 20)),
        (Uniform(0.0, 1.0), 0.0, 0.5, Uniform(0.0, 0.5)),
        (IntRange(2, 9), 3, 4, IntRange(3, 4)),
        (Choice(16, 32, 64), 20, 64, Choice(32, 64)),
    ],
)
def test_narrowing_gives_the_part_within(wide, low, high, left) -> None:
    assert narrow("key", wide, low, high) == left


@pytest.mark.parametrize(
    ("wide", "low", "high"),
    [
        (LogUniform(0.1, 100.0), 0.05, 20),
        (LogUniform(0.1, 100.0), 0.5, 200),
        (LogUniform(0.1, 100.0), 20, 20),
        (LogUniform(0.1, 100.0), 20, 0.5),
        (Uniform(0.0, 1.0), float("nan"), 0.5),
        (IntRange(2, 9), 2.5, 4),
        (Choice(16, 32, 64), 30, 40),
        (Choice("izi", "ziz"), 0, 1),
        (Choice(True, False), 0, 1),
    ],
)
def test_a_range_that_does_not_narrow_is_refused(wide, low, high) -> None:
    with pytest.raises(ConfigError, match="--range key="):
        narrow("key", wide, low, high)


@pytest.mark.parametrize(
    ("values", "wanted", "found"),
    [
        (LogUniform(0.1, 10.0), 1.0, 1.0),
        (LogUniform(0.1, 10.0), 50.0, 10.0),
        (IntRange(2, 9), 1, 2),
        (Choice(32, 64), 4, 32),
        (Choice("a", "b"), "c", "a"),
        (Choice("a", "b"), "b", "b"),
    ],
)
def test_a_default_outside_of_the_space_moves_to_its_nearest_point(values, wanted, found) -> None:
    assert nearest(values, wanted) == found
