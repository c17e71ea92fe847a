"""Numbers in words that a reader who trains no networks understands."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

OUTCOMES = {
    "miss": ("Missed", "abnormal, judged normal"),
    "false_alarm": ("False alarms", "normal, judged abnormal"),
    "hit": ("Found", "abnormal, judged abnormal"),
    "correct_pass": ("Passed", "normal, judged normal"),
}
"""The four outcomes in reading order, failures first: title and meaning."""

METRICS = {
    "image_auroc": ("AUROC", "the chance that an abnormal image scores above a normal one"),
    "image_ap": ("Average precision", "precision averaged over all sensitivities"),
    "sensitivity_at_95": (
        "Sensitivity at 95\u00a0%",
        "share of abnormal images found by the threshold that passes 95\u00a0% of these normal"
        " images",
    ),
    "pixel_auroc": ("Pixel AUROC", "the AUROC of the heat map's pixels against the mask"),
    "pixel_ap": ("Pixel AP", "the average precision of the heat map's pixels against the mask"),
    "pixel_aupro_30": (
        "AUPRO 30\u00a0%",
        "share of an abnormal region that the heat map marks, averaged over regions and over"
        " thresholds that mark up to 30\u00a0% of the normal pixels",
    ),
    "pixel_aupro_05": (
        "AUPRO 5\u00a0%",
        "the same for thresholds that mark up to 5\u00a0% of them",
    ),
    "sensitivity": ("Sensitivity", "share of abnormal images that are flagged"),
    "specificity": ("Specificity", "share of normal images that are passed"),
    "precision": ("Precision", "share of flagged images that are abnormal"),
    "f1": ("F1", "harmonic mean of sensitivity and precision"),
    "specificity_at_95": (
        "Specificity at 95\u00a0%",
        "share of normal images passed by the threshold that finds 95\u00a0% of these abnormal"
        " images",
    ),
    "image_pr_auc": (
        "PR-AUC",
        "average precision with straight lines between thresholds, for comparison with papers",
    ),
    "accuracy": (
        "Accuracy",
        "share of images that are judged rightly; depends on how many are abnormal",
    ),
    "balanced_accuracy": ("Balanced accuracy", "mean of sensitivity and specificity"),
    "brier": (
        "Brier",
        "mean squared error of 1 − p as a forecast; lower is better, and a third knows nothing",
    ),
    "calibration_error": (
        "Calibration error",
        "how far the share of normal images flagged is from the one stated, averaged over all"
        " thresholds; 0 is best",
    ),
    "pixel_best_dice": (
        "Best Dice (oracle)",
        "overlap of heat map and masks at the threshold that suits these masks best; in use nobody"
        " knows that threshold",
    ),
}
"""Known metrics in the order of the table: heading and meaning."""

FURTHER = (
    "precision",
    "f1",
    "specificity_at_95",
    "image_pr_auc",
    "accuracy",
    "balanced_accuracy",
    "brier",
    "calibration_error",
    "pixel_best_dice",
)
"""Metrics that stand in a second, folded table."""

HEADS = (
    "Heads are other scores of the same networks, told apart here by test labels. To take the best"
    " of them is to tune to these test images: a description, no choice. Choose a head by"
    " `gan-ray heads`, which reads no label."
)
"""What stands beside every table of heads."""


def number(value: Any, digits: int = 3) -> str:
    """Give a number as a reader wants it: three significant digits, or a dash for none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if not math.isfinite(value):
        return "–" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", "\u202f").replace("-", "−")
    return f"{value:.{digits}g}".replace("-", "−")


def p_value(value: float | None) -> str:
    """Give a p-value: `0.012`, `< 0.001` below what a tail is good for, or a dash for none."""
    return "<\u00a00.001" if value is not None and value < 0.001 else number(value)


def share(value: float) -> str:
    """Give a share in [0, 1] as a percentage: 0.05 is `5 %`, 0.1394 is `13.9 %`."""
    return f"{round(100 * value, 1 if value >= 0.01 else 3):g}\u00a0%"


def duration(seconds: float) -> str:
    """Give a time as a reader says it: `12.3 s`, `4 min 5 s`, `2 h 40 min`."""
    if seconds < 60:
        return f"{seconds:.3g}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\u00a0min {rest}\u00a0s"
    return f"{minutes // 60}\u00a0h {minutes % 60}\u00a0min"


def fixed(value: float, *, sign: bool = False) -> str:
    """Give a metric with three decimals: 0.953, or with its `sign`: +0.021."""
    return f"{value:{'+' if sign else ''}.3f}".replace("-", "−")


def bounds(metric: Mapping[str, float]) -> str:
    """Give the 95 % interval of a metric: `0.921–0.978`."""
    return f"{fixed(metric['low'])}–{fixed(metric['high'])}"


def interval(metric: Mapping[str, float]) -> str:
    """Give a metric with its 95 % interval: `0.953 (0.921–0.978)`."""
    return f"{fixed(metric['value'])} ({bounds(metric)})"


def model_name(model: Mapping[str, Any]) -> str:
    """Name a model or baseline: `name@version`, or the name alone where there is no version."""
    version = model.get("version")
    return f"{model['name']}@{version}" if version else str(model["name"])


def breakable(name: str) -> Markup:
    """Give a name that may go on in the next line after `_` and before `@`."""
    return Markup(str(escape(name)).replace("_", "_<wbr>").replace("@", "<wbr>@"))


def shortened(name: str, limit: int = 30) -> str:
    """Give a name that fits beside a chart."""
    return name if len(name) <= limit else name[: limit - 1] + "…"


def called(model: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    """Give which of the test images [N] a model flags, or None when it has no threshold."""
    value, scores = (model.get("threshold") or {}).get("value"), model["scores"]
    if value is None:
        return None
    return np.array(scores.get("abnormal") or [score > value for score in scores["values"]], bool)


def counts(model: Mapping[str, Any]) -> dict[str, int] | None:
    """Count the four outcomes of a model on the test images, or None when it has no threshold."""
    flagged = called(model)
    if flagged is None:
        return None
    pairs = list(zip(model["scores"]["labels"], flagged.tolist(), strict=True))
    return {
        "miss": pairs.count((1, False)),
        "false_alarm": pairs.count((0, True)),
        "hit": pairs.count((1, True)),
        "correct_pass": pairs.count((0, False)),
    }


def stratum_rate(stratum: Mapping[str, Any]) -> str:
    """Say how many normal test images of a stratum its threshold flagged: a row of `strata`."""
    name = repr(stratum["stratum"]) if stratum["stratum"] else "not known"
    whose = "its own" if stratum["own"] else "the common"
    rate = share(stratum["flagged"] / max(stratum["normals"], 1))
    return (
        f"{stratum['by']} {name}: {stratum['flagged']} of {stratum['normals']} normal images"
        f" ({rate}) are above {whose} threshold {number(stratum['value'])}, set on"
        f" {stratum['images']}"
    )


def threshold_promise(value: float, *, fpr: float, images: int, upper: float | None = None) -> str:
    """Say what a threshold promises about normal images.

    `images` is how many held-out normals it was set on; `upper` the rate that 95 % of such sets
    stay below, where it is known.
    """
    text = (
        f"An image is flagged as abnormal when its score is above {number(value)}. The threshold"
        f" was set on {images} normal images held out from training, so that on average at most"
        f" {share(fpr)} of normal images like them are flagged"
    )
    sure = f"; with 95\u00a0% certainty at most {share(upper)}" if upper is not None else ""
    return f"{text}{sure}."


def threshold_outcome(model: Mapping[str, Any], outcomes: Mapping[str, int]) -> str:
    """Say what a model's threshold did on the test images, and whether its promise held there."""
    specificity, sensitivity = (model["metrics"].get(k) for k in ("specificity", "sensitivity"))
    flagged = _counted(outcomes["false_alarm"], outcomes["correct_pass"], specificity, invert=True)
    found = _counted(outcomes["hit"], outcomes["miss"], sensitivity)
    text = (
        f"On the test images it flags {flagged[0]} normal images ({flagged[1]}) and finds"
        f" {found[0]} abnormal ones ({found[1]})."
    )
    if specificity and 1.0 - specificity["high"] > model["threshold"]["fpr"]:
        text += (
            " That is more false alarms than promised on average: the threshold was set on few"
            " images, or on images unlike these."
        )
    return text


def _counted(
    part: int, rest: int, metric: Mapping[str, float] | None, *, invert: bool = False
) -> tuple[str, str]:
    """Give `7 of 78` and `9 %, 95 % interval 4 % to 15 %`; `invert` takes one minus the metric."""
    rate = share(part / max(part + rest, 1))
    if metric is not None:
        ends = (metric["low"], metric["high"])
        low, high = (1.0 - ends[1], 1.0 - ends[0]) if invert else ends
        rate += f", 95\u00a0% interval {share(low)} to {share(high)}"
    return f"{part} of {part + rest}", rate


def verdict(pair: Mapping[str, Any]) -> str:
    """Say which of two models is better: `pca@2 is better`, or that nothing was measured.

    A difference that the correction for many comparisons does not let stand is said to be one.
    """
    sides = {"a is better": pair["a"], "b is better": pair["b"]}
    better = sides.get(pair["verdict"])
    if better is None:
        return str(pair["verdict"])
    doubt = ", but not among so many comparisons" if pair.get("p_holm", 0) > 0.05 else ""
    return f"{better} is better{doubt}"


def metric_heading(key: str) -> str:
    """Give a metric's heading; one that is not known here keeps its key."""
    return METRICS[key][0] if key in METRICS else key


def metric_keys(models: Iterable[Mapping[str, Any]]) -> list[str]:
    """Give the metrics that any of the models has, known ones first in the order of the table."""
    present = dict.fromkeys(key for model in models for key in model["metrics"])
    return [key for key in METRICS if key in present] + [k for k in present if k not in METRICS]
