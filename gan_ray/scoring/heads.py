"""Heads: other scores of a detector's evidence, compared without a second look at an image.

A head is written `[name][,setting=number]…`: `ssim`, `residual,top=0.01`, `smooth=2,top=0.02`. One
that is named starts from the usual settings, one without a name from those of the bundle's own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from gan_ray.config import ScoreConfig
from gan_ray.data.sources import Split, TestData
from gan_ray.detector import Detector
from gan_ray.errors import ConfigError, unknown
from gan_ray.scoring.comparison import compare
from gan_ray.scoring.intervals import intervals
from gan_ray.scoring.metrics import RANKING, Array
from gan_ray.scoring.pixels import pixel_figures
from gan_ray.scoring.scorer import Result, Scorer
from gan_ray.scoring.scores import Score, make_score, offered, settings_read
from gan_ray.scoring.selection import Validity, validity

SETTINGS = ("smooth", "top", "feature_weight", "pixel_weight", "feature_share")
"""What a head can set, of `ScoreConfig`."""


def parse_head(text: str, own: ScoreConfig, detector: Detector) -> ScoreConfig:
    """Read a head; `own` is the score that it changes when it has no name.

    Raises:
        ConfigError: the text is no head, or `make_score` refuses it for this detector.
    """
    first, *rest = (word.strip() for word in text.split(","))
    if not first:
        raise ConfigError(
            f"head '{text}' begins with no word: write a name, a setting or both, like 'ssim', "
            f"'top=0.01' or 'ssim,top=0.01'; names are {', '.join(offered(detector))}."
        )
    if "=" in first:
        head, changes = own, [first, *rest]
    else:
        scales = own.scales if first == own.name else {}
        head, changes = ScoreConfig(name=first, scales=scales), rest
    settings: dict[str, Any] = {}
    for change in changes:
        setting, _, number = (word.strip() for word in change.partition("="))
        if setting not in SETTINGS:
            raise ConfigError(f"head '{text}': {unknown('setting', setting, SETTINGS)}")
        try:
            settings[setting] = float(number)
        except ValueError:
            settings[setting] = math.nan
        if not math.isfinite(settings[setting]):
            raise ConfigError(
                f"head '{text}': {setting} takes a number, not '{number}'; write it like "
                "'ssim,top=0.01'."
            )
    head = dataclasses.replace(head, name=head.name or detector.score, **settings)
    make_score(head, detector)
    return head


def head_name(head: ScoreConfig, detector: Detector) -> str:
    """Write a head as `parse_head` reads it, with the settings that are not the usual ones."""
    usual = ScoreConfig()
    numbers = {setting: getattr(head, setting) for setting in SETTINGS}
    changed = [f"{key}={x:g}" for key, x in numbers.items() if x != getattr(usual, key)]
    return ",".join([head.name or detector.score, *changed])


def make_heads(texts: Iterable[str], own: ScoreConfig, detector: Detector) -> dict[str, Score]:
    """Give the heads by name, without those that are the bundle's `own` score.

    Raises:
        ConfigError: one is no head, the detector cannot feed it, or it divides its parts by means
            over held-out normals that `own` does not carry.
    """
    heads = {}
    for text in texts:
        head = parse_head(text, own, detector)
        if "scales" in settings_read(head, detector) and not head.scales:
            raise ConfigError(
                f"head '{text}' divides its parts by their means over held-out normals, which this "
                f"bundle does not carry: export the run with it (gan-ray export --head {text})."
            )
        heads[head_name(head, detector)] = make_score(head, detector)
    heads.pop(head_name(own, detector), None)
    return heads


def judge_heads(
    own: tuple[str, Array], heads: Mapping[str, Result], test: TestData, resamples: int
) -> dict[str, Any] | None:
    """Give the figures of each head on the test images, and its difference from the own score.

    `own` is a name with scores [N]. Each head has ranking and pixel figures with intervals and its
    scores; thresholds and p-values belong to the own score. `paired` compares the own score (`a`)
    with every head (`b`), corrected over all of these comparisons. None without a head.
    """
    if not heads:
        return None
    labels, groups = test.labels, test.split.groups
    figures = {}
    for name, result in heads.items():
        metrics = intervals([(RANKING, result.scores)], labels, groups, resamples)
        if test.masks is not None and result.maps is not None:
            metrics |= pixel_figures(test.masks, result.maps, labels, groups, resamples)
        plain = {metric: dataclasses.asdict(value) for metric, value in metrics.items()}
        figures[name] = {"metrics": plain, "values": result.scores.tolist()}
    rows = [own, *((name, result.scores) for name, result in heads.items())]
    return {
        "own": own[0],
        "figures": figures,
        "paired": compare(rows, 1, labels, groups, resamples),
    }


def aucp_of_heads(scorer: Scorer, normals: Split, unlabeled: Split) -> dict[str, Validity]:
    """Give the AUCp of each of the scorer's heads, and what it can be trusted for; reads no label.

    Every image goes through the networks once, however many heads there are. `normals` are held-out
    normals of selection, `unlabeled` is the mix.
    """
    normal, mixed = (
        scorer.score_images(split.images, classes=split.classes).heads
        for split in (normals, unlabeled)
    )
    return {name: validity(normal[name].scores, mixed[name].scores) for name in scorer.heads}
