"""Choosing a checkpoint or a model without a test label.

AUCp (Rahman Siddiquee et al., WACV 2024) needs an unlabeled mix; without one there are held-out
normals against their copies with foreign patches, a proxy, their mean score, and the last
checkpoint. The lowest FID, HealthyGAN's choice before its authors found AUCp better, needs the mix
and a feature network. A validation split with labels can be named too; the record of a choice says
by what it was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gan_ray.config import config
from gan_ray.errors import ConfigError, unknown
from gan_ray.scoring.frechet import frechet_distance
from gan_ray.scoring.metrics import auroc

_SELECTORS: Mapping[str, tuple[str, int, str]] = {
    "aucp": ("val/aucp", 1, "highest AUCp of held-out normals against the unlabeled mix"),
    "pseudo": (
        "val/pseudo_auroc",
        1,
        "highest AUROC of held-out normals against their copies with foreign patches",
    ),
    "fid": ("val/fid", -1, "lowest FID of the translated mix to held-out normals"),
    "validation": ("val/image_auroc", 1, "highest AUROC on the labelled validation split"),
    "normal_score": ("val/normal_score", -1, "lowest mean score of held-out normals"),
    "last": ("images", 1, "last report"),
}
"""Key of the figure, its good direction, and the choice in words."""

SMALLEST = 30
"""Images on either side below which an AUCp is not trusted."""
SMALLEST_SHARE = 0.05
"""Share of abnormal images in the mix below which an AUCp is not trusted."""

DISTRUST = (
    "this AUCp fails its validity check (not measurably above 0.5, too few images, or hardly any "
    "abnormal ones in the mix), so the choice is little better than chance"
)


@config
class Selection:
    """Which report was chosen, and by what."""

    by: str
    """aucp, pseudo, fid, validation, normal_score or last."""
    images: int
    """Images seen at the chosen report."""
    value: float
    """Its figure."""
    reports: int
    """Number of reports it was chosen from."""
    reason: str
    """The choice in words."""
    labels_used: bool
    """Whether validation labels were read; test labels never are."""
    valid: bool = True
    """False for an AUCp that fails its validity check."""


@config
class Validity:
    """An AUCp with what it can be trusted for."""

    aucp: float
    """AUROC of held-out normals against the unlabeled mix."""
    standard_error: float
    """Its standard error (DeLong et al. 1988)."""
    normals: int
    """Number of held-out normals."""
    unlabeled: int
    """Number of unlabeled images."""
    abnormal_share: float
    """Estimated share of abnormal images in the mix; images that score as normals do not count."""
    valid: bool
    """Whether checkpoints can be told apart by it."""
    reason: str
    """Why it is not valid; empty when it is."""


def aucp(normal: np.ndarray, unlabeled: np.ndarray) -> float:
    """Give the AUROC of scores of held-out normals (as 0) against an unlabeled mix (as 1).

    1/(|H||M|) sum over H, M of [1(s_j > s_i) + 1(s_j = s_i)/2]. Deviation: H are held-out normals;
    Brainomaly takes training normals, whose scores are too low, which rewards memorising them.
    """
    return _auroc_of(normal, unlabeled)


def debiased_auc(aucp: float, normal_fraction: float) -> float:
    """Give the AUROC that an AUCp stands for when `normal_fraction` of the mix is normal.

    (AUCp - rho/2) / (1 - rho), the inverse of AUCp = (1 - rho) AUROC + rho/2; it holds when the
    normals of the mix score as the held-out ones do. Not limited to [0, 1].
    """
    if not 0 <= normal_fraction < 1:
        raise ConfigError(
            f"the normal fraction of a mix lies in [0, 1), but is {normal_fraction}: without "
            "abnormal images an AUCp says nothing."
        )
    return (aucp - normal_fraction / 2) / (1 - normal_fraction)


def validity(normal: np.ndarray, unlabeled: np.ndarray) -> Validity:
    """Judge whether AUCp can select by these scores [H] and [M], without a label.

    Valid means: enough images on both sides, an AUCp at least two standard errors above 0.5, and
    an estimated abnormal share that is not next to nothing.
    """
    value, error = aucp(normal, unlabeled), _delong_error(normal, unlabeled)
    share = _abnormal_share(normal, unlabeled)
    few = min(len(normal), len(unlabeled)) < SMALLEST
    faults = {
        f"needs {SMALLEST} images on both sides, has {len(normal)} held-out normals and "
        f"{len(unlabeled)} unlabeled images": few,
        f"AUCp {value:.3f} is not measurably above 0.5 (standard error {error:.3f}): the mix "
        "scores as the normals do, or lower": value - 0.5 < 2 * error or value <= 0.5,
        f"the scores show an abnormal share of {share:.3f} in the mix, below {SMALLEST_SHARE}": (
            share < SMALLEST_SHARE
        ),
    }
    reason = "; ".join(fault for fault, holds in faults.items() if holds)
    return Validity(
        aucp=value,
        standard_error=error,
        normals=len(normal),
        unlabeled=len(unlabeled),
        abnormal_share=share,
        valid=not reason,
        reason=reason,
    )


def figures(
    normal: np.ndarray,
    unlabeled: np.ndarray | None = None,
    labelled: tuple[np.ndarray, np.ndarray] | None = None,
    translated: tuple[np.ndarray, np.ndarray] | None = None,
    pseudo: np.ndarray | None = None,
) -> dict[str, float]:
    """Give the figures that selection knows, by the names they are reported under.

    `normal` are scores of held-out normals, `unlabeled` those of the mix, `labelled` the labels
    and scores of a labelled validation split, `translated` features [M, d] of the healthy versions
    of the mix and [H, d] of held-out normals, `pseudo` scores of a pseudo-anomaly made of each
    held-out normal, in their order. A figure's standard error is called as it is with `_error`.

    `val/normal_score` is their plain mean. It is justified where the scale of the score stays put:
    for pixel residuals, and for features of a frozen critic (f-AnoGAN's encoder stage; ALAD stops
    early by it). A score of latents that still move can shrink without detecting more, so it is
    never chosen unless named. `val/aucp_valid` is 1 where `validity` holds, else 0.
    """
    values = {"val/normal_score": float(np.mean(normal, dtype=np.float64))}
    if unlabeled is not None:
        judged = validity(normal, unlabeled)
        values["val/aucp"] = judged.aucp
        values["val/aucp_error"] = judged.standard_error
        values["val/aucp_valid"] = float(judged.valid)
    if labelled is not None:
        labels, scores = labelled
        values["val/image_auroc"] = auroc(labels, scores)
        values["val/image_auroc_error"] = _delong_error(scores[labels == 0], scores[labels == 1])
    if translated is not None:
        values["val/fid"] = frechet_distance(*translated)
    if pseudo is not None:
        values["val/pseudo_auroc"] = _auroc_of(normal, pseudo)
        values["val/pseudo_auroc_error"] = _paired_error(normal, pseudo)
    return values


def select(reports: Sequence[Mapping[str, Any]], by: str = "") -> Selection:
    """Choose one of the `reports`, each with `images` and its figures; ties go to the earliest.

    Without `by`: AUCp where a report has it, else the last report. Reports without the figure (a
    stage that cannot score yet) are passed over.

    Raises:
        ConfigError: `by` is unknown, or no report has its figure.
    """
    by = by or ("aucp" if any("val/aucp" in report for report in reports) else "last")
    if by not in _SELECTORS:
        raise ConfigError(unknown("selector", by, _SELECTORS))
    key, sign, words = _SELECTORS[by]
    able = [report for report in reports if np.isfinite(report.get(key, np.nan))]
    if not able:
        raise ConfigError(
            f"selection by '{by}' needs '{key}', which none of {len(reports)} reports has: give "
            f"the data it is made of, or select by another of {', '.join(sorted(_SELECTORS))}."
        )
    best = max(able, key=lambda report: sign * report[key])
    valid = by != "aucp" or trusted(best)
    return Selection(
        by=by,
        images=int(best["images"]),
        value=float(best[key]),
        reports=len(able),
        reason=f"{words}: {best[key]:.6g} at {int(best['images'])} images, of {len(able)} reports"
        + ("" if valid else f"; {DISTRUST}"),
        labels_used=by == "validation",
        valid=valid,
    )


def trusted(report: Mapping[str, Any]) -> bool:
    """Tell whether a report's AUCp passed its validity check (reports without one are trusted)."""
    return bool(report.get("val/aucp_valid", 1.0))


def _auroc_of(normal: np.ndarray, others: np.ndarray) -> float:
    labels = np.repeat([0, 1], [len(normal), len(others)])
    return auroc(labels, np.concatenate([normal, others]))


def _paired_error(normal: np.ndarray, pseudo: np.ndarray) -> float:
    """Standard error of the AUROC of images against changed copies of the same images.

    An image and its copy are one draw: the placement values are added before their spread is taken
    (Obuchowski 1997, Biometrics 53, clusters of one normal and one abnormal image).
    """
    if len(normal) < 2:
        return 0.5
    gained = _placements(normal, pseudo) - _placements(pseudo, normal)
    return float(gained.std(ddof=1) / np.sqrt(len(normal)))


def _delong_error(normal: np.ndarray, unlabeled: np.ndarray) -> float:
    """Standard error of the AUROC from placement values (DeLong et al. 1988, eq. 4 and 5)."""
    if min(len(normal), len(unlabeled)) < 2:
        return 0.5
    of_normal, of_unlabeled = _placements(unlabeled, normal), _placements(normal, unlabeled)
    variance = of_normal.var(ddof=1) / len(normal) + of_unlabeled.var(ddof=1) / len(unlabeled)
    return float(np.sqrt(variance))


def _placements(among: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Share of `among` below each score, equal ones counting half."""
    ordered = np.sort(among)
    twice = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    shares: np.ndarray = twice / (2 * len(ordered))
    return shares


def _abnormal_share(normal: np.ndarray, unlabeled: np.ndarray) -> float:
    """1 - pi0 of Storey (2002) at lambda = 1/2: half of the mix's normals are below the median."""
    below = _placements(unlabeled, np.median(normal, keepdims=True))
    return max(0.0, 1 - 2 * float(below[0]))
