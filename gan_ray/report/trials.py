"""The figures of a sweep, each one chart as inline SVG; trials are the plain dicts of sweep.json.

All are narrow and grow downwards, so that a telephone shows them whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeGuard

from gan_ray.config import flatten
from gan_ray.report.style import (
    INK,
    MARK,
    MUTED,
    NORMAL,
    PAPER,
    RULE,
    SERIES,
    drawing,
    figure,
    to_svg,
)
from gan_ray.report.words import number, shortened

Sweep = Mapping[str, Any]
Trial = Mapping[str, Any]
Place = Callable[[Any], float]
"""Where on its axis a value stands, in [0, 1]."""

SETTINGS = 14
"""Settings that a chart has room for; of more, the most important."""

_WIDTH = 4.4
_MARKERS = "os^Dv"


def history(sweep: Sweep) -> str:
    """Give every trial's objective in order of its number, with the best so far as a line.

    Trials that were stopped early are hollow.
    """
    trials = sorted(_scored(sweep["trials"]), key=lambda trial: int(trial["number"]))
    systems = list(dict.fromkeys(sorted(trial["architecture"] for trial in trials)))
    with drawing(salt=f"history {sweep['study']}"):
        drawn = figure(_WIDTH, 2.8)
        axes = drawn.subplots()
        best = list(accumulate((trial["value"] for trial in trials), max))
        numbers = [trial["number"] for trial in trials]
        handles = axes.plot(numbers, best, color=INK, drawstyle="steps-post", linewidth=1.2)
        labels = ["best so far"]
        for index, system in enumerate(systems):
            colour, marker = SERIES[index % len(SERIES)], _MARKERS[index % len(_MARKERS)]
            for early in (True, False):
                mine = [trial for trial in trials if trial["architecture"] == system
                        and (trial["state"] == "pruned") is early]  # fmt: skip
                handle, = axes.plot(
                    [t["number"] for t in mine], [t["value"] for t in mine], marker, color=colour,
                    markersize=4.5, markerfacecolor=PAPER if early else colour,
                )  # fmt: skip
            handles.append(handle)
            labels.append(shortened(system))
        axes.set_xlabel("trial (hollow: stopped early)")
        axes.set_ylabel(sweep["objective"])
        axes.set_xlim(-0.5, max(numbers) + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        drawn.legend(handles, labels, loc="outside upper left", ncol=3)
        return to_svg(drawn, description=f"Search history of {sweep['study']}")


def coordinates(sweep: Sweep) -> list[tuple[str, str]]:
    """Give for each system its trials as lines from setting to setting, down to the objective.

    The better a trial, the stronger its line; the best one has a colour of its own. Every axis
    spans what was searched, logarithmically where the search was. Systems with one trial have none.
    """
    charts = []
    for name in systems(sweep):
        trials = [trial for trial in _scored(sweep["trials"]) if system(trial) == name]
        keys = _searched(trials, (sweep.get("importance") or {}).get(name) or {})
        if len(trials) > 1 and keys:
            space = ((sweep.get("searches") or {}).get(name) or {}).get("space") or {}
            charts.append((name, _coordinates(name, sweep["objective"], trials, keys, space)))
    return charts


def importance(name: str, shares: Mapping[str, float]) -> str:
    """Give the share of the objective's variance that each setting explains, as bars."""
    kept = sorted(shares.items(), key=lambda item: -item[1])[:SETTINGS]
    with drawing(salt=f"importance {name}"):
        drawn = figure(_WIDTH, 0.55 + 0.34 * len(kept))
        axes = drawn.subplots()
        for place, (key, value) in enumerate(kept):
            axes.barh(place + 0.2, value, height=0.3, color=NORMAL, alpha=0.8)
            axes.text(0, place - 0.05, f"{_short(key)}  {100 * value:.0f} %", color=INK,
                      va="bottom", fontsize=8)  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(len(kept) - 0.4, -0.5))
        axes.set_yticks([])
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
        axes.spines["left"].set_visible(False)
        return to_svg(drawn, description=f"Importance of settings, {name}")


def front(sweep: Sweep) -> str:
    """Give value against cost of every trial that has both, and the front that none beats."""
    trials = [trial for trial in _scored(sweep["trials"]) if _finite(trial.get("cost"))]
    by_number = {trial["number"]: trial for trial in trials}
    best = [by_number[number] for number in sweep["pareto"] if number in by_number]
    with drawing(salt=f"front {sweep['study']}"):
        drawn = figure(_WIDTH, 2.8)
        axes = drawn.subplots()
        axes.plot([t["cost"] for t in trials], [t["value"] for t in trials], "o", color=NORMAL,
                  markersize=4.5, alpha=0.5)  # fmt: skip
        axes.plot([t["cost"] for t in best], [t["value"] for t in best], "o-", color=MARK,
                  drawstyle="steps-post", markersize=5.5, linewidth=1.1)  # fmt: skip
        for trial in best:
            axes.annotate(str(trial["number"]), (trial["cost"], trial["value"]), (4, 4),
                          textcoords="offset points", color=MARK, fontsize=8)  # fmt: skip
        axes.set_xlabel(sweep.get("cost") or "cost")
        axes.set_ylabel(sweep["objective"])
        return to_svg(drawn, description=f"Pareto front of {sweep['study']}")


def system(trial: Trial) -> str:
    """Name a trial's system as its search is called: the architecture, with its variant."""
    return "-".join(filter(None, (trial["architecture"], trial.get("variant", ""))))


def systems(sweep: Sweep) -> list[str]:
    """Name the systems of a sweep, in the order of their first trials."""
    return list(dict.fromkeys(system(trial) for trial in sweep["trials"]))


def _coordinates(
    name: str,
    objective: str,
    trials: Sequence[Trial],
    keys: Sequence[str],
    space: Mapping[str, str],
) -> str:
    ranked = sorted(trials, key=lambda trial: (trial["value"], -trial["number"]))  # best on top
    rows = [{**flatten(trial["params"]), objective: trial["value"]} for trial in ranked]
    with drawing(salt=f"coordinates {name}"):
        drawn = figure(_WIDTH, 0.2 + 0.52 * (len(keys) + 1))
        axes = drawn.subplots()
        placed = []
        over = {"bbox": {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}, "zorder": 3}
        for line, key in enumerate([*keys, objective]):
            values = [row[key] for row in rows if key in row]
            place, ends = _axis(values, logarithmic=space.get(key, "").startswith("LogUniform"))
            placed.append([place(row[key]) if key in row else math.nan for row in rows])
            axes.plot([0, 1], [line, line], color=RULE, linewidth=1.0, zorder=0)
            axes.text(0, line - 0.1, _short(key), color=INK, fontsize=8, **over)
            for at, text in ends:
                axes.text(at, line + 0.14, text, color=MUTED, fontsize=7, va="top", **over,
                          ha="left" if at == 0 else "right" if at == 1 else "center")  # fmt: skip
        for index in range(len(rows)):
            best = index == len(rows) - 1
            strength = 0.12 + 0.6 * (index / max(len(rows) - 1, 1)) ** 2
            axes.plot([row[index] for row in placed], range(len(placed)), zorder=1 + best,
                      color=MARK if best else NORMAL, linewidth=1.8 if best else 1.0,
                      alpha=1.0 if best else strength)  # fmt: skip
        axes.set(xlim=(-0.02, 1.02), ylim=(len(placed) - 0.6, -0.45))
        axes.axis("off")
        return to_svg(drawn, description=f"Settings and {objective} of the trials of {name}")


def _axis(values: Sequence[Any], *, logarithmic: bool) -> tuple[Place, list[tuple[float, str]]]:
    """Give where values stand on an axis that spans them, and what is written below it where."""
    if not all(_finite(value) for value in values):
        options = list(dict.fromkeys(sorted(map(str, values))))
        steps = max(len(options) - 1, 1)
        at = {option: index / steps for index, option in enumerate(options)}
        return (lambda value: at[str(value)]), [(x, shortened(o, 14)) for o, x in at.items()]
    scale = math.log if logarithmic and min(values) > 0 else float
    low, high = scale(min(values)), scale(max(values))
    ends = [(0.0, number(min(values))), (1.0, number(max(values)))]
    return (lambda value: (scale(value) - low) / (high - low) if high > low else 0.5), ends


def _searched(trials: Sequence[Trial], found: Mapping[str, Any]) -> list[str]:
    """Give the settings that differ among trials, the important ones first, then by name."""
    shares = found.get("shares") or {}
    values: dict[str, set[str]] = {}
    for trial in trials:
        for key, value in flatten(trial["params"]).items():
            values.setdefault(key, set()).add(repr(value))
    differing = [key for key, seen in values.items() if len(seen) > 1]
    return sorted(differing, key=lambda key: (-shares.get(key, 0.0), key))[:SETTINGS]


def _short(key: str) -> str:
    return shortened(key.removeprefix("model."), 44)


def _scored(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if _finite(trial.get("value"))]


def _finite(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)
