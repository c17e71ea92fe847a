"""The figures of the page, each one chart as inline SVG: what an evaluation, a run, a sweep says.

Models, baselines and trials are the plain dicts of evaluation.json and sweep.json. Every chart has
a single pair of axes, so that the page can set them side by side or, on a telephone, in one column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_ray.report.figures import Metrics, curve_names, draw_curve
from gan_ray.report.style import (
    ABNORMAL,
    INK,
    MARK,
    MUTED,
    NORMAL,
    PAPER,
    RULE,
    SERIES,
    STROKES,
    drawing,
    figure,
    to_svg,
)
from gan_ray.report.words import interval, model_name

Model = Mapping[str, Any]

_WIDTH = 4.4


def curves(metrics: Metrics) -> list[str]:
    """Give one chart per loss term and validation figure, and one of the speed."""
    charts = []
    for name in curve_names(metrics):
        with drawing(salt=f"curve {name}"):
            drawn = figure(3.3, 2.0)
            draw_curve(drawn.subplots(), metrics, name)
            charts.append(to_svg(drawn, description=f"{name} over training images"))
    return charts


def forest(models: Sequence[Model], baselines: Sequence[Model]) -> str:
    """Give the image AUROC of everything evaluated with its 95 % interval, one line each."""
    rows = [(m, NORMAL) for m in models] + [(m, MUTED) for m in baselines]
    with drawing(salt="forest"):
        drawn = figure(_WIDTH, 0.62 + 0.26 * len(rows))
        axes = drawn.subplots()
        for place, (model, colour) in enumerate(rows):
            metric = model["metrics"]["image_auroc"]
            axes.plot([metric["low"], metric["high"]], [place, place], color=colour, linewidth=1.8)
            axes.plot(metric["value"], place, "o", color=colour, markersize=4.5)
        axes.axvline(0.5, color=MUTED, linewidth=0.8, linestyle=":")
        lows = [model["metrics"]["image_auroc"]["low"] for model, _ in rows]
        axes.set(xlim=(min(0.48, *lows, 0.5) - 0.01, 1.005), ylim=(len(rows) - 0.5, -0.5))
        axes.set_yticks(range(len(rows)), [_short(model_name(m)) for m, _ in rows], color=INK)
        axes.set_xlabel("image AUROC (dotted: chance)")
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        return to_svg(drawn, description="Image AUROC with 95 % intervals")


def roc(models: Sequence[Model], baselines: Sequence[Model]) -> str:
    """Give the ROC curves; a dot marks where a model's threshold stands, labels carry intervals."""
    styles = [(SERIES[i % len(SERIES)], STROKES[i % len(STROKES)], 1.7) for i in range(len(models))]
    greys = [(MUTED, STROKES[1 + i % (len(STROKES) - 1)], 0.9) for i in range(len(baselines))]
    everything = [*models, *baselines]
    with drawing(salt="roc"):
        drawn = figure(3.7, 3.75 + 0.17 * len(everything))
        axes = drawn.subplots()
        axes.plot([0, 1], [0, 1], color=RULE, linewidth=0.8)
        lines = []
        for model, (colour, stroke, width) in zip(everything, styles + greys, strict=True):
            x, y = _thinned(model["roc"]["fpr"], model["roc"]["tpr"])
            lines += axes.plot(x, y, color=colour, linestyle=stroke, linewidth=width)
            at = model["metrics"]
            if "sensitivity" in at and "specificity" in at and model.get("threshold"):
                point = 1.0 - at["specificity"]["value"], at["sensitivity"]["value"]
                axes.plot(*point, "o", color=colour, markersize=5.5, markeredgecolor=PAPER)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set_xlabel("share of normal images flagged")
        axes.set_ylabel("share of abnormal images found")
        labels = [f"{_short(model_name(m))}: {interval(m['metrics']['image_auroc'])}"
                  for m in everything]  # fmt: skip
        drawn.legend(lines, labels, loc="outside lower center", handlelength=2.6)
        return to_svg(drawn, description="ROC curves. " + "; ".join(labels))


def histogram(model: Model) -> str:
    """Give the scores of normal and of abnormal test images, each as shares of its own class."""
    scores, labels = _scores(model)
    edges = np.histogram_bin_edges(scores, bins=min(40, max(12, round(math.sqrt(len(scores))))))
    with drawing(salt=f"histogram {model_name(model)}"):
        drawn = figure(_WIDTH, 2.7)
        axes = drawn.subplots()
        for label, name, colour in ((0, "normal", NORMAL), (1, "abnormal", ABNORMAL)):
            mine = scores[labels == label]
            shares = np.histogram(mine, edges)[0] / max(len(mine), 1)
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.22)
            axes.stairs(shares, edges, color=colour, label=f"{name} ({len(mine)})",
                        linestyle=STROKES[label], linewidth=1.3)  # fmt: skip
        _threshold_line(axes, model, legend=True)
        axes.set_xlabel("score (higher is more abnormal)")
        axes.set_ylabel("share of the class")
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        drawn.legend(loc="outside upper left", ncol=3, handlelength=1.8, columnspacing=1.4)
        return to_svg(drawn, description=f"Scores per class, {model_name(model)}")


def boxes(model: Model) -> str:
    """Give a box of scores for normal images and for each sub-label of the abnormal ones.

    Box: quartiles and median; whiskers: 5th and 95th percentile; dots: the images beyond them.
    """
    scores, labels = _scores(model)
    sublabels = np.array(model["scores"]["sublabels"], dtype=str)
    names = sorted(set(sublabels[labels == 1]))
    groups = [("normal", scores[labels == 0], NORMAL)]
    groups += [(name or "abnormal", scores[(labels == 1) & (sublabels == name)], ABNORMAL)
               for name in names]  # fmt: skip
    with drawing(salt=f"boxes {model_name(model)}"):
        drawn = figure(_WIDTH, 0.75 + 0.34 * len(groups))
        axes = drawn.subplots()
        for place, (_, values, colour) in enumerate(groups):
            axes.boxplot(
                values, positions=[place], orientation="horizontal", widths=0.56, whis=(5, 95),
                patch_artist=True, manage_ticks=False,
                boxprops={"facecolor": colour + "38", "edgecolor": colour, "linewidth": 0.9},
                medianprops={"color": colour, "linewidth": 2.0},
                whiskerprops={"color": colour, "linewidth": 0.9},
                capprops={"color": colour, "linewidth": 0.9},
                flierprops={"marker": ".", "markersize": 3, "markerfacecolor": colour,
                            "markeredgecolor": colour, "markeredgewidth": 0, "alpha": 0.6},
            )  # fmt: skip
        _threshold_line(axes, model)
        axes.set_yticks(range(len(groups)), [f"{_short(n)} ({len(v)})" for n, v, _ in groups],
                        color=INK)  # fmt: skip
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.set_xlabel("score")
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        return to_svg(drawn, description=f"Scores per sub-label, {model_name(model)}")


def calibration(model: Model) -> str | None:
    """Give the share of normal test images with a p-value of at most a, for every rate a.

    It should follow the diagonal. The band holds 95 % of the shares at each rate that chance makes
    with so many calibration and so many independent test images (beta-binomial).
    """
    from scipy.stats import betabinom

    threshold, p_values = model.get("threshold"), model["scores"].get("p_values")
    if not threshold or not p_values:
        return None
    _, labels = _scores(model)
    found = np.sort(np.array(p_values, np.float64)[labels == 0])
    held_out, normals = int(threshold["images"]), len(found)
    ranks = np.unique(np.linspace(1, held_out, min(held_out, 50)).round())
    ends = [
        betabinom.ppf(q, normals, ranks, held_out + 1 - ranks) / normals for q in (0.025, 0.975)
    ]
    rates = np.linspace(0, 1, 201)
    with drawing(salt=f"calibration {model_name(model)}"):
        drawn = figure(_WIDTH, 2.7)
        axes = drawn.subplots()
        axes.fill_between(ranks / (held_out + 1), *ends, color=MUTED, alpha=0.2, linewidth=0)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
        shares = np.searchsorted(found, rates, "right") / normals
        axes.plot(rates, shares, color=NORMAL, drawstyle="steps-post")
        axes.axvline(threshold["fpr"], color=MARK, linewidth=1.1, linestyle=(0, (4, 2)))
        axes.set(xlim=(0, 1), ylim=(0, 1.01))
        axes.set_xlabel("stated rate of false alarms")
        axes.set_ylabel("share of normal images flagged")
        return to_svg(drawn, description=f"Calibration of p-values, {model_name(model)}")


def search_history(search: Mapping[str, Any]) -> str:
    """Give every trial's objective in order of its number, with the best so far as a line."""
    trials = sorted((t for t in search["trials"] if _finite(t.get("value"))),
                    key=lambda trial: int(trial["number"]))  # fmt: skip
    systems = sorted({trial["architecture"] for trial in trials})
    with drawing(salt=f"search {search['study']}"):
        drawn = figure(_WIDTH, 2.7)
        axes = drawn.subplots()
        numbers = [trial["number"] for trial in trials]
        best = list(accumulate((trial["value"] for trial in trials), max))
        handles = axes.plot(numbers, best, color=INK, drawstyle="steps-post", linewidth=1.2)
        labels = ["best so far"]
        for index, system in enumerate(systems):
            mine = [trial for trial in trials if trial["architecture"] == system]
            handles += axes.plot(
                [t["number"] for t in mine], [t["value"] for t in mine], "os^Dv"[index % 5],
                color=SERIES[index % len(SERIES)], markersize=4.5, alpha=0.85,
            )  # fmt: skip
            labels.append(_short(system))
        axes.set_xlabel("trial")
        axes.set_ylabel(search["objective"])
        axes.xaxis.get_major_locator().set_params(integer=True)
        drawn.legend(handles, labels, loc="outside upper left", ncol=3)
        return to_svg(drawn, description=f"Search history of {search['study']}")


def _scores(model: Model) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    scores = model["scores"]
    return np.array(scores["values"], np.float64), np.array(scores["labels"], np.int64)


def _threshold_line(axes: Any, model: Model, *, legend: bool = False) -> None:
    value = (model.get("threshold") or {}).get("value")
    if _finite(value):
        axes.axvline(value, color=MARK, linewidth=1.1, linestyle=(0, (4, 2)),
                     label="threshold" if legend else None)  # fmt: skip


def _thinned(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """Keep the corners of a step curve: the points where its direction changes."""
    points = list(zip(x, y, strict=True))
    kept = [
        point
        for before, point, after in zip(points, points[1:], points[2:], strict=False)
        if (point[0] - before[0]) * (after[1] - point[1])
        != (after[0] - point[0]) * (point[1] - before[1])
    ]
    corners = [*points[:1], *kept, *points[-1:]]
    return [p[0] for p in corners], [p[1] for p in corners]


def _short(name: str, limit: int = 30) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
