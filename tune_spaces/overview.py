"""What a study is about to do, in words: its dimensions, its trials, and their likely cost."""

from __future__ import annotations

from collections.abc import Mapping

from tune_spaces.costs import ROWS, TrialCost, trial_cost
from tune_spaces.derive import Method, said
from tune_spaces.plan import Search
from tune_spaces.samplers import grid_size
from tune_spaces.space import Space

_COUNTED = 10_000
"""Points of a grid that are counted; there are more than anyone tries."""


def overview(
    search: Search, *, method: Method, samples: int, earlier: int, looked: Mapping[str, int]
) -> str:
    """Describe a study of `samples` trials; times a few cycles of its systems, which takes seconds.

    `earlier` trials of other sweeps are known to its sampler; `looked` are the held-out images of a
    look, by the name of the system.
    """
    space = search.space
    trials = f"{samples} trials by {method}"
    if method == "grid":
        size = grid_size(search, _COUNTED)
        trials += f" of {size:,}{' or more' if size == _COUNTED else ''} points"
    if earlier:
        trials += f", whose sampler knows {earlier} of earlier sweeps"
    costs = {plan.name: trial_cost(plan.experiment, looked[plan.name]) for plan in search.plans}
    return "\n".join(
        [
            f"{search.name}: {len(space)} dimensions, {trials}; the first as given:",
            *_dimensions(space),
            *(f"  a trial of {name}: {_said(cost)}" for name, cost in costs.items()),
            *_total(samples, list(costs.values())),
        ]
    )


def _dimensions(space: Space) -> list[str]:
    wide = max(map(len, space))
    ranged = max(len(said(values)) for values in space.values())
    return [
        f"  {key:{wide}}  {said(values):{ranged}}  {where and f'where {where}'}".rstrip()
        for key, values in space.items()
        for where in [space.where(key)]
    ]


def _said(cost: TrialCost) -> str:
    looks = f"{cost.looks} looks at {cost.looked:,} held-out images"
    if isinstance(cost.rate, str) or cost.seconds is None:
        return (
            f"{cost.images:,} images and {looks}; {cost.rate}, `seconds` of the first trial in "
            "sweep.json will tell what they cost"
        )
    return (
        f"{cost.images:,} images at {cost.rate.training * 1e3:.3g} ms and {looks} at "
        f"{cost.rate.look * 1e3:.3g} ms: {duration(cost.seconds)}"
    )


def _total(samples: int, costs: list[TrialCost]) -> list[str]:
    known = [cost.seconds for cost in costs if cost.seconds is not None]
    if len(known) < len(costs):
        return []
    return [
        f"  all trials: {duration(samples * max(known))} of one processor or GPU at most, less "
        "what is stopped early",
        f"  timed on this machine with noise (on a CPU {ROWS} images at a time) and the settings "
        "of the first trial, without start-up, reading and checkpoints",
    ]


def duration(seconds: float) -> str:
    """Give a time in its unit: `45 s`, `9 min`, `2.3 h`, `4.1 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
