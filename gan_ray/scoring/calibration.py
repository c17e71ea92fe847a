"""A threshold one can defend: from held-out normal images alone, with a stated guarantee.

Split-conformal prediction (Vovk et al. 2005; Lei et al. 2018). It assumes that new normal images
and the calibration images are exchangeable (same population, none of them seen in training), and
nothing about the score. All of it is monotone in the score and looks at one image at a time.

Images of several scanners or sites are exchangeable within each of these strata only: thresholds of
their own (Mondrian conformal prediction, Vovk et al. 2003) then keep the rate in every stratum.
Images of one patient are not exchangeable with those of others either: see `Bound`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import field
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import betaincinv

from gan_ray.config import config, fingerprint, to_dict
from gan_ray.errors import ArtifactError, ConfigError
from gan_ray.scoring.subjects import by_subject, numbered, repeat

_COLOUR_QUANTILES = (0.01, 0.999)


@config
class Bound:
    """What a threshold promises about the share of normal images above it.

    With n images and the k-th smallest score as threshold. Where groups (patients) have several
    images, new images come from new groups, and n images tell less: the bound is then the larger
    one of this and of G groups whose images all score alike, with rank ceil(k G / n) of G.
    """

    expected: float
    """At most this on average over calibration sets: (n + 1 - k) / (n + 1), never above the fpr."""
    upper: float
    """At most this for 95 % of calibration sets: the 0.95 quantile of Beta(n + 1 - k, k)."""


@config
class Threshold:
    """Scores of held-out normals, and the threshold that they give for a false-positive rate."""

    fpr: float
    """Stated false-positive rate, in (0, 1)."""
    threshold: float
    """The k-th smallest of the n scores, k = ceil((n + 1)(1 - fpr)); abnormal is above it."""
    images: int
    """n, the number of held-out normals."""
    scores: tuple[float, ...]
    """Their scores, ascending."""
    groups: int = 0
    """Groups (patients) they belong to; 0 where it was not asked."""
    bound: Bound
    """The guarantee of the threshold for this n."""

    @cached_property
    def id(self) -> str:
        """Name of the threshold, by its content."""
        return "thr-" + fingerprint(self)[:8]

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """Give (1 + #{calibration scores >= s}) / (n + 1) for each score s, float64 [N].

        Of normal images, a share of at most p has a p-value of p or less, on average over
        calibration sets; p <= fpr exactly when the score is above the threshold.
        """
        below = np.searchsorted(np.asarray(self.scores), np.asarray(scores, np.float64), "left")
        p_values: np.ndarray = (1 + self.images - below) / (self.images + 1)
        return p_values

    def abnormal(self, scores: np.ndarray) -> np.ndarray:
        """Say which scores are above the threshold, bool [N]."""
        decisions: np.ndarray = np.asarray(scores, np.float64) > self.threshold
        return decisions


@config
class Calibration(Threshold):
    """The common threshold, and those of strata: what an image is known to be when it is scored."""

    map_range: tuple[float, float] | None = None
    """1 % and 99.9 % quantiles of their map pixels: one colour scale for all heat maps."""
    by: str = ""
    """Column of the manifest that tells the strata (scanner, site, product); empty without."""
    strata: dict[str, Threshold] = field(default_factory=dict)
    """Threshold of each stratum with enough held-out normals for the rate."""
    few: dict[str, int] = field(default_factory=dict)
    """Held-out normals of each stratum with too few; it is judged by the common threshold."""

    subjects: Threshold | None = None
    """Threshold of a group's mean score, where groups have several images and are enough."""

    def of(self, stratum: str) -> Threshold:
        """Give the threshold for images of a stratum: its own, or else the common one."""
        return self.strata.get(stratum, self)

    def p_values(self, scores: np.ndarray, strata: np.ndarray | None = None) -> np.ndarray:
        """Give the p-value of each score, float64 [N], by the threshold of its stratum."""
        return self._by_stratum(Threshold.p_values, scores, strata)

    def abnormal(self, scores: np.ndarray, strata: np.ndarray | None = None) -> np.ndarray:
        """Say which scores are above the threshold of their stratum, bool [N]."""
        return self._by_stratum(Threshold.abnormal, scores, strata)

    def summary(self) -> dict[str, Any]:
        """Give all but the scores, and the thresholds' ids, as a dict ready for JSON."""
        own = {name: _brief(threshold) for name, threshold in self.strata.items()}
        subjects = None if self.subjects is None else _brief(self.subjects)
        return _brief(self) | {"strata": own, "subjects": subjects}

    def _by_stratum(
        self,
        judge: Callable[[Threshold, np.ndarray], np.ndarray],
        scores: np.ndarray,
        strata: np.ndarray | None,
    ) -> np.ndarray:
        judged = judge(self, scores)
        if strata is not None:
            for name, threshold in self.strata.items():
                rows = strata == name
                judged[rows] = judge(threshold, scores[rows])
        return judged


def calibrate(
    scores: np.ndarray,
    fpr: float,
    maps: np.ndarray | None = None,
    *,
    groups: np.ndarray | None = None,
    by: str = "",
    strata: np.ndarray | None = None,
) -> Calibration:
    """Set the threshold for a false-positive rate from the scores [n] of held-out normals.

    `maps` [n, S, S] are their anomaly maps, for the colour scale; `groups` [n] their patients, for
    the bound and for a threshold of mean scores; `strata` [n] is what the column `by` says of each,
    empty where it says nothing.

    Raises:
        ConfigError: `fpr` is not in (0, 1), or n is too small for it: no finite threshold can
            promise a rate below 1 / (n + 1).
        ArtifactError: a score is not finite.
    """
    common = _set_threshold(scores, fpr, groups)
    own: dict[str, Threshold] = {}
    few: dict[str, int] = {}
    for name in [] if strata is None else sorted(set(strata.tolist()) - {""}):
        rows = strata == name
        if rows.sum() < needed(fpr):
            few[name] = int(rows.sum())
        else:
            own[name] = _set_threshold(scores[rows], fpr, None if groups is None else groups[rows])
    subjects = None
    if groups is not None and repeat(groups):
        _, means = by_subject(np.zeros(len(scores)), scores, groups)
        subjects = _set_threshold(means, fpr, None) if len(means) >= needed(fpr) else None
    return Calibration(
        **vars(common),
        map_range=None if maps is None else _colour_scale(maps),
        by=by,
        strata=own,
        few=few,
        subjects=subjects,
    )


def realised(
    calibration: Calibration, strata: np.ndarray | None, labels: np.ndarray, called: np.ndarray
) -> list[dict[str, Any]]:
    """Give what became of the normal images (label 0) of each stratum, in the order of the names.

    Each row has `by`, `stratum`, `own` (whether the threshold is its own), `value`, `id`, `images`
    that it was set on, `normals` that were judged, and `flagged` of them.
    """
    rows = []
    for name in [] if strata is None else sorted(set(strata.tolist())):
        threshold, normal = calibration.of(name), (strata == name) & (labels == 0)
        rows.append(
            {
                "by": calibration.by,
                "stratum": name,
                "own": name in calibration.strata,
                "value": threshold.threshold,
                "id": threshold.id,
                "images": threshold.images,
                "normals": int(normal.sum()),
                "flagged": int(called[normal].sum()),
            }
        )
    return rows


def calibration_warnings(calibration: Mapping[str, Any] | None, stratum: str) -> list[str]:
    """Say what the decisions on images of a stratum lack, by a manifest's `calibration`."""
    if calibration is None:
        return ["the bundle is not calibrated: no p-value, no decision, no fixed colour scale"]
    if stratum and stratum not in calibration["strata"]:
        return ["this stratum has no threshold of its own: judged by the common one"]
    return []


def needed(fpr: float) -> int:
    """Give the number of held-out normals without which no threshold can promise this rate."""
    return math.ceil(1 / _exact(fpr) - 1)


def _set_threshold(scores: np.ndarray, fpr: float, groups: np.ndarray | None) -> Threshold:
    if not 0 < fpr < 1:
        raise ConfigError(f"a false-positive rate lies between 0 and 1, but fpr is {fpr}")
    images = len(scores)
    rank = math.ceil((images + 1) * (1 - _exact(fpr)))
    if rank > images:
        raise ConfigError(
            f"{images} held-out normal images are too few for a false-positive rate of {fpr}: "
            f"{needed(fpr)} are needed. Hold out more (--data.holdout) or state a "
            "higher rate (--fpr)."
        )
    ordered = np.sort(np.asarray(scores, np.float64))
    if not np.isfinite(ordered).all():
        raise ArtifactError(
            f"{np.count_nonzero(~np.isfinite(ordered))} of {images} scores of held-out normals are "
            "not finite: the detector diverged; calibrate an earlier checkpoint."
        )
    members = 0 if groups is None else int(numbered(groups, images).max()) + 1
    return Threshold(
        fpr=float(fpr),
        threshold=float(ordered[rank - 1]),
        images=images,
        scores=tuple(ordered.tolist()),
        groups=members,
        bound=_bound(rank, images, members or images),
    )


def _bound(rank: int, images: int, groups: int) -> Bound:
    pairs = {(rank, images), (-(-rank * groups // images), groups)}
    return Bound(
        expected=max((n + 1 - k) / (n + 1) for k, n in pairs),
        upper=max(float(betaincinv(n + 1 - k, k, 0.95)) for k, n in pairs),
    )


def _exact(fpr: float) -> Fraction:
    return Fraction(repr(float(fpr)))  # as written: 100 * (1 - 0.45) is 55, not 55.00000000000001


def _brief(threshold: Threshold) -> dict[str, Any]:
    plain = to_dict(threshold)
    return {"id": threshold.id} | {key: plain[key] for key in plain if key != "scores"}


def _colour_scale(maps: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(maps, _COLOUR_QUANTILES)
    return float(low), float(high)
