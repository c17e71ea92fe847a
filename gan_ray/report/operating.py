"""What models do at every threshold: the ROC and the precision-recall curve, with their bands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_ray.report.style import MUTED, PAPER, RULE, SERIES, STROKES, drawing, figure, to_svg
from gan_ray.report.words import interval, model_name, shortened

Model = Mapping[str, Any]
Points = tuple[NDArray[np.float64], NDArray[np.float64]]

BANDED = 3
"""Models up to which bands are drawn; those of more would hide each other."""

_STEP = 0.01


def roc(models: Sequence[Model], baselines: Sequence[Model]) -> str:
    """Give the ROC curves; a dot marks where a model's threshold stands, labels carry intervals."""
    with drawing(salt="roc"):
        drawn, axes = _plane([*models, *baselines])
        axes.plot([0, 1], [0, 1], color=RULE, linewidth=1.8)
        axes.set_xlabel("share of normal images flagged")
        axes.set_ylabel("share of abnormal images found")
        _bands(axes, models, "roc")
        lines = _curves(axes, models, baselines, corners)
        for model, line in zip(models, lines, strict=False):
            _dot(axes, line, 1.0 - _decided(model, "specificity"), _decided(model, "sensitivity"))
        return _finished(drawn, lines, [*models, *baselines], "image_auroc", "ROC curves")


def precision_recall(models: Sequence[Model], baselines: Sequence[Model]) -> str:
    """Give the precision-recall curves, dots and labels likewise; chance is a level line."""
    with drawing(salt="precision-recall"):
        drawn, axes = _plane([*models, *baselines])
        axes.axhline(np.mean(models[0]["scores"]["labels"]), color=RULE, linewidth=1.8)
        axes.set_xlabel("share of abnormal images found (recall)")
        axes.set_ylabel("share of flagged images that are abnormal (precision)")
        _bands(axes, models, "precision_recall")
        lines = _curves(axes, models, baselines, recall_and_precision)
        for model, line in zip(models, lines, strict=False):
            _dot(axes, line, _decided(model, "sensitivity"), _decided(model, "precision"))
        return _finished(drawn, lines, [*models, *baselines], "image_ap", "Precision-recall curves")


def corners(model: Model) -> Points:
    """Give the points [K] where the ROC changes its direction: false-positive rate, sensitivity."""
    x, y = (np.array(model["roc"][key], np.float64) for key in ("fpr", "tpr"))
    across, up = np.diff(x), np.diff(y)
    turns = across[:-1] * up[1:] != across[1:] * up[:-1]
    kept = np.concatenate([[True], turns, [True]])
    return x[kept], y[kept]


def recall_and_precision(model: Model) -> Points:
    """Give points [K] of the precision-recall curve, from the first recall above 0 on.

    A straight piece of the ROC is a curve here (Davis and Goadrich 2006), so it is walked in steps.
    """
    x, y = corners(model)
    steps = np.maximum(np.ceil(np.diff(y) / _STEP).astype(int), 1)
    places = np.concatenate([[0.0], *(i + np.arange(1, n + 1) / n for i, n in enumerate(steps))])
    false_alarms, hits = (np.interp(places, np.arange(len(x)), each) for each in (x, y))
    labels = np.array(model["scores"]["labels"])
    found, flagged_too = hits * (labels == 1).sum(), false_alarms * (labels == 0).sum()
    some = hits > 0
    return hits[some], found[some] / (found + flagged_too)[some]


def _plane(everything: Sequence[Model]) -> tuple[Any, Any]:
    drawn = figure(3.7, 3.75 + 0.17 * len(everything))
    axes = drawn.subplots()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    return drawn, axes


def _bands(axes: Any, models: Sequence[Model], name: str) -> None:
    for index, model in enumerate(models if len(models) <= BANDED else ()):
        if band := model.get("bands", {}).get(name):  # older evaluations have none
            axes.fill_between(band["at"], band["low"], band["high"], color=SERIES[index],
                              alpha=0.15, linewidth=0)  # fmt: skip


def _curves(
    axes: Any,
    models: Sequence[Model],
    baselines: Sequence[Model],
    points: Callable[[Model], Points],
) -> list[Any]:
    styles = [(SERIES[i % len(SERIES)], STROKES[i % len(STROKES)], 1.7) for i in range(len(models))]
    styles += [(MUTED, STROKES[1 + i % (len(STROKES) - 1)], 0.9) for i in range(len(baselines))]
    lines = []
    for model, (colour, stroke, width) in zip([*models, *baselines], styles, strict=True):
        lines += axes.plot(*points(model), color=colour, linestyle=stroke, linewidth=width)
    return lines


def _decided(model: Model, metric: str) -> float:
    """Give what a model's own threshold does, NaN where it has none."""
    known = model.get("threshold") and metric in model["metrics"]
    return float(model["metrics"][metric]["value"]) if known else float("nan")


def _dot(axes: Any, line: Any, x: float, y: float) -> None:
    if np.isfinite([x, y]).all():
        axes.plot(x, y, "o", color=line.get_color(), markersize=5.5, markeredgecolor=PAPER)


def _finished(
    drawn: Any, lines: Sequence[Any], everything: Sequence[Model], metric: str, title: str
) -> str:
    labels = [f"{shortened(model_name(m))}: {interval(m['metrics'][metric])}" for m in everything]
    drawn.legend(lines, labels, loc="outside lower center", handlelength=2.6)
    return to_svg(drawn, description=f"{title}. {'; '.join(labels)}")
