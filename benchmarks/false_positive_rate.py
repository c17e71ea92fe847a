"""Is the false-positive rate of a threshold what it says, on normals that nobody has seen?

`python -m benchmarks.false_positive_rate BUNDLE ...`: scores the normal images of each bundle's
data that it was not trained on, and splits them 100 times at random into a calibration half and a
fresh half. Of m fresh ones, BetaBinomial(m, n + 1 - k, k) are above the k-th of n scores: chance of
calibration and of test together. At least 95 of 100 rates must lie in its 99 % band. Where patients
have several images, that holds of patients only: the last column takes n, k and m for patients, as
if all images of one scored alike.

Normals of the test split are among the fresh ones; nothing is chosen by them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import betabinom

from gan_ray.artifacts.bundle import Bundle, load_bundle
from gan_ray.data.sources import load_test, load_training
from gan_ray.scoring.calibration import Threshold, calibrate
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.subjects import by_subject, numbered, repeat

SPLITS = 100
BAND = 0.99
Calibrator = Callable[[np.ndarray, float, np.ndarray], Threshold]


@dataclass(frozen=True)
class Found:
    """What became of the rate over many splits."""

    inside: int
    """Splits whose rate lies in the 99 % band."""
    inside_by_group: int
    """The same with the band of as many groups as there are, whose images score alike."""
    rates: np.ndarray
    """The rates, one per split."""


def conformal(scores: np.ndarray, fpr: float, groups: np.ndarray) -> Threshold:
    """Give the threshold that bundles carry."""
    return calibrate(scores, fpr, groups=groups)


def over_splits(
    scores: np.ndarray,
    fpr: float,
    *,
    groups: np.ndarray | None = None,
    calibrator: Calibrator = conformal,
    splits: int = SPLITS,
) -> Found:
    """Split exchangeable scores [N] in halves, and compare the rates with what chance allows.

    With `groups` [N], whole groups go to one half.
    """
    rng = np.random.default_rng(0)
    members = np.arange(len(scores)) if groups is None else numbered(groups, len(scores))
    inside, inside_by_group, rates = 0, 0, []
    for _ in range(splits):
        fresh = rng.permutation(members.max() + 1) % 2 == 1
        image_is_fresh = fresh[members]
        held = scores[~image_is_fresh]
        threshold = calibrator(held, fpr, members[~image_is_fresh].astype(str))
        rate = threshold.abnormal(scores[image_is_fresh]).mean()
        inside += in_band(rate, fpr, len(held), int(image_is_fresh.sum()))
        inside_by_group += in_band(rate, fpr, int((~fresh).sum()), int(fresh.sum()))
        rates.append(rate)
    return Found(inside, inside_by_group, np.array(rates))


def in_band(rate: float, fpr: float, held: int, fresh: int) -> bool:
    """Say whether chance explains the rate of `fresh` normals, after `held` have calibrated."""
    rank = min(int(np.ceil((held + 1) * (1 - fpr) - 1e-9)), held)
    ends = ((1 - BAND) / 2, (1 + BAND) / 2)
    low, high = betabinom.ppf(ends, fresh, held + 1 - rank, rank) / fresh
    return bool(low <= rate <= high)


def normals(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """Give scores and groups of the normal images that the bundle was not trained on."""
    data = bundle.experiment.data
    known, test = load_training(data), load_test(data)
    parts = [known.select, known.calibrate, test.split.take(np.flatnonzero(test.labels == 0))]
    scorer = Scorer.from_bundle(bundle)
    scores = [scorer.score_images(part.images, classes=part.classes).scores for part in parts]
    return np.concatenate(scores), np.concatenate([part.groups for part in parts])


def rows(name: str, scores: np.ndarray, groups: np.ndarray, fpr: float) -> list[str]:
    """Give the rows of a table about one bundle."""
    cases = {"images, mixed": (scores, None)}
    if repeat(groups):
        means = by_subject(np.zeros(len(scores)), scores, groups)[1]
        cases |= {"images, groups apart": (scores, groups), "means of groups": (means, None)}
    lines = []
    for case, (values, apart) in cases.items():
        found = over_splits(values, fpr, groups=apart)
        mean, spread = found.rates.mean(), found.rates.std()
        lines.append(
            f"| {name} | {case} | {len(values):,} | {mean:.2%} | {spread:.2%} | {found.inside} | "
            f"{found.inside_by_group if apart is not None else '-'} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--fpr", type=float, default=0.05)
    options = parser.parse_args()
    print(f"rates of the {options.fpr:.0%} threshold over {SPLITS} splits in halves\n")
    print("| bundle | split | normals | mean | spread | in the 99 % band | in that of groups |")
    print("|---|---|---|---|---|---|---|")
    for path in options.bundles:
        bundle = load_bundle(path)
        scores, groups = normals(bundle)
        name = f"{Path(bundle.experiment.data.root).stem}: {bundle.manifest.name}"
        print("\n".join(rows(name, scores, groups, options.fpr)), flush=True)


if __name__ == "__main__":
    main()
