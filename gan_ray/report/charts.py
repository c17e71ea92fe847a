"""The figures of the page, each one chart as inline SVG: what an evaluation or a run says.

Models and baselines are the plain dicts of evaluation.json; `trials` draws sweeps. Every chart has
a single pair of axes, so that the page can set them side by side or, on a telephone, in one column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from gan_ray.report.figures import Metrics, curve_names, draw_curve
from gan_ray.report.style import (
    ABNORMAL,
    INK,
    MARK,
    MUTED,
    NORMAL,
    drawing,
    figure,
    to_svg,
)
from gan_ray.report.words import called, model_name, share, shortened

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
        axes.set_yticks(range(len(rows)), [shortened(model_name(m)) for m, _ in rows], color=INK)
        axes.set_xlabel("image AUROC (dotted: chance)")
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        return to_svg(drawn, description="Image AUROC with 95 % intervals")


def scores_by_kind(model: Model) -> str:
    """Give a histogram of the scores of normal images and of each kind of abnormal ones.

    They stand one under the other, the kinds that look most normal first, each with the share that
    is flagged and scaled to its own highest bar. The last bar holds the highest 0.5 % too.
    """
    scores, labels = _scores(model)
    sublabels = np.array(model["scores"]["sublabels"], dtype=str)
    flagged, threshold = called(model), (model.get("threshold") or {}).get("value")
    highest = float(np.quantile(scores, 0.995))  # a few far out would press the others together
    if _finite(threshold):  # what is flagged stays right of it
        highest = max(highest, threshold + 0.1 * (threshold - scores.min()))
    shown = np.minimum(scores, highest)
    edges = np.histogram_bin_edges(shown, bins=min(40, max(12, round(math.sqrt(len(scores))))))
    kinds = [(name or "abnormal", (labels == 1) & (sublabels == name))
             for name in np.unique(sublabels[labels == 1]).tolist()]  # fmt: skip
    kinds.sort(key=lambda kind: float(np.median(scores[kind[1]])))
    rows = [("normal", labels == 0, NORMAL), *((*kind, ABNORMAL) for kind in kinds)]
    with drawing(salt=f"scores {model_name(model)}"):
        drawn = figure(_WIDTH, 0.75 + max(1.9, 0.42 * len(rows)))
        axes = drawn.subplots()
        for place, (_, mine, colour) in enumerate(rows):
            counts = np.histogram(shown[mine], edges)[0]
            tops = place - 0.84 * counts / max(counts.max(), 1)
            axes.stairs(tops, edges, baseline=place, fill=True, color=colour, alpha=0.3)
            axes.stairs(tops, edges, baseline=place, color=colour, linewidth=1.0)
        names = [f"{shortened(name, 24)} ({np.count_nonzero(mine)})" for name, mine, _ in rows]
        axes.set_yticks(range(len(rows)), names, color=INK)
        axes.set_ylim(len(rows) - 0.9, -1.0)
        axes.margins(x=0.01)
        if flagged is not None:
            beside = axes.secondary_yaxis("right")
            shares = [share(float(np.mean(flagged[mine]))) for _, mine, _ in rows]
            beside.set_yticks(range(len(rows)), shares, color=INK)
            beside.spines["right"].set_visible(False)
            axes.text(1.02, 1.0, "flagged", color=MUTED, transform=axes.transAxes)
        if _finite(threshold):
            axes.axvline(threshold, color=MARK, linewidth=1.1, linestyle=(0, (4, 2)))
        axes.set_xlabel("score (higher is more abnormal)")
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        return to_svg(drawn, description=f"Scores by kind, {model_name(model)}")


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


def _scores(model: Model) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    scores = model["scores"]
    return np.array(scores["values"], np.float64), np.array(scores["labels"], np.int64)


def _finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
