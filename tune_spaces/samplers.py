"""How a study comes by its points: by Optuna's TPE, at random, or from a grid."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import islice

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from gan_ray.errors import ConfigError, unknown
from gan_ray.ranges import Choice, IntRange, Range, Value
from tune_spaces.derive import METHODS, said
from tune_spaces.plan import Search
from tune_spaces.space import Point, Space

STARTUP = 10
"""Trials of a study before TPE takes over from random draws."""


def check_method(method: str) -> None:
    """Refuse a way to search that is none; raises ConfigError."""
    if method not in METHODS:
        raise ConfigError(f"--search: {unknown('way to search', method, METHODS)}")


def make_sampler(method: str, seed: int, startup: int = STARTUP) -> BaseSampler:
    """Give a sampler that follows from the seed and the study's history.

    TPE takes over after `startup` trials.

    TPE is multivariate within groups of dimensions that are drawn together: those that matter under
    one choice learn from the trials that made it.
    """
    if method != "tpe":
        return RandomSampler(seed=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            n_startup_trials=startup,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=seed % 2**32,
        )


def given_points(method: str, search: Search, samples: int) -> list[Point]:
    """Give the points, `samples` at most, that are tried before any is drawn.

    They are the experiments' own settings, and with method grid all of its points behind them.

    Raises:
        ConfigError: a grid over a dimension that has no points.
    """
    if method != "grid":
        return search.firsts[:samples]
    return list(islice(_grid(search), samples))


def grid_size(search: Search, most: int) -> int:
    """Count the points of the grid, up to `most`."""
    return sum(1 for _ in islice(_grid(search), most))


def _grid(search: Search) -> Iterator[Point]:
    space, firsts = search.space, search.firsts
    points = {key: _points(key, values) for key, values in space.items()}
    yield from firsts
    yield from (point for point in _product(space, points, list(space), {}) if point not in firsts)


def _product(
    space: Space, points: dict[str, tuple[Value, ...]], keys: list[str], drawn: Point
) -> Iterator[Point]:
    """Give all points that go on from those drawn, the last dimension changing fastest."""
    if not keys:
        yield drawn
        return
    key, *further = keys
    if not space.matters(key, drawn):
        yield from _product(space, points, further, drawn)
        return
    for value in points[key]:
        yield from _product(space, points, further, {**drawn, key: value})


def _points(key: str, values: Range) -> tuple[Value, ...]:
    if isinstance(values, Choice):
        return values.options
    if isinstance(values, IntRange):
        return tuple(range(values.low, values.high + 1))
    plain = key.rpartition(":")[2]
    raise ConfigError(
        f"a grid has no points on {plain} ({said(values)}): list some (--range {plain}="
        f"{values.low:g},{values.high:g}), pin it (--fix {plain}=VALUE), or take --search random."
    )
