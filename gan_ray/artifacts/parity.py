"""The gate: what was trained, and what each file of its bundle computes, score alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gan_ray.artifacts.bundle import Bundle, load_bundle, read_verified
from gan_ray.artifacts.formats import FORMATS, GraphScorer, missing
from gan_ray.artifacts.golden import golden_classes
from gan_ray.artifacts.manifest import WEIGHTS
from gan_ray.config import to_dict
from gan_ray.errors import ArtifactError, ConfigError
from gan_ray.scoring.calibration import Calibration
from gan_ray.scoring.scorer import Scorer

TOLERANCE = 1e-4
"""Largest difference between two scores of one image that counts as none; of a score above 1, the
largest share of it."""
LAST_BITS = 1e-6
"""Share of a score that last bits of the same arithmetic move it by."""
OTHER_BITS = 1e-5
"""Share of a score that another runtime moves it by, which sums in another order."""

Scores = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From images uint8 [N, C, S, S] and their classes [N] to scores float32 [N]."""


def verify(bundle: str | Path, *, device: str = "cpu", trusted: bool = False) -> dict[str, Any]:
    """Check a bundle as a whole: schema, digests, weights, and the scores of its golden images.

    They are replayed by the weights and by each graph. One whose loading can run code is loaded
    only when the bundle is `trusted`; one whose packages are not installed is passed over, too.

    Raises:
        ArtifactError: something is not as it was exported.
        ConfigError: `trusted` changes nothing: the bundle holds no such graph.
    """
    loaded = load_bundle(bundle)
    manifest, golden = loaded.manifest, loaded.golden
    if trusted and not any(f.runs_code and f.file in manifest.files for f in FORMATS.values()):
        raise ConfigError(
            f"{manifest.reference} has no graph that needs trust: leave out --trust-pt2"
        )
    scorers, passed_over = replays(loaded, device=device, trusted=trusted)
    classes = golden_classes(golden.images, manifest.image)
    differences = {
        file: same(
            f"golden images of {manifest.reference}, {file}",
            golden.scores,
            scores(golden.images, classes),
        )
        for file, scores in scorers.items()
    }
    return {
        "bundle": manifest.reference,
        "digest": manifest.digest,
        "schema": manifest.schema_version,
        "architecture": manifest.architecture,
        "files": sorted(manifest.files),
        "golden_images": len(golden.images),
        "max_score_difference": max(differences.values()),
        "replayed": differences,
        "not_replayed": passed_over,
        "precision": manifest.precision,
        "drift": None if manifest.drift is None else to_dict(manifest.drift),
    }


def replay(bundle: Bundle, scorer: Scorer, images: int | None = None) -> float:
    """Score the golden images again, or the first of them; give the largest difference.

    Raises:
        ArtifactError: it is above 1e-4.
    """
    rows = bundle.golden.images[:images]
    classes = golden_classes(rows, bundle.manifest.image)
    found = scorer.score_images(rows, classes=classes).scores
    what = f"golden images of {bundle.manifest.reference}"
    return same(what, bundle.golden.scores[:images], found)


def replays(
    bundle: Bundle, *, device: str = "cpu", trusted: bool
) -> tuple[dict[str, Scores], dict[str, str]]:
    """Give what scores by each file of a bundle, and why the others are passed over, by file.

    Raises:
        ArtifactError: a file is not what the manifest says, or is no graph.
    """
    scorer = Scorer.from_bundle(bundle, device=device)
    scorers: dict[str, Scores] = {
        WEIGHTS: lambda images, classes: scorer.score_images(images, classes=classes).scores
    }
    passed_over = {}
    graphs = [format_ for format_ in FORMATS.values() if format_.file in bundle.manifest.files]
    contents = read_verified(bundle.path)[1] if graphs else {}
    for format_ in graphs:
        needs = missing(format_.reader)
        if format_.runs_code and not trusted:
            passed_over[format_.file] = (
                "loading it can run code of whoever made it: replay one you trust with --trust-pt2"
            )
        elif needs:
            passed_over[format_.file] = needs
        else:
            scorers[format_.file] = GraphScorer(
                format_, contents[format_.file], conditional=bundle.detector.conditional
            )
    return scorers, passed_over


def same(
    what: str,
    expected: np.ndarray,
    found: np.ndarray,
    calibration: Calibration | None = None,
    *,
    bits: float = LAST_BITS,
) -> float:
    """Give the largest difference between two rows of scores.

    Raises:
        ArtifactError: one is above `TOLERANCE`, or a decision of `calibration` flips by more than
            the share `bits` of a score.
    """
    gaps = np.abs(expected - found)
    flips = 0
    if calibration is not None:
        # The threshold is some image's own score, where a last bit can decide and means nothing.
        equal = np.isclose(expected, found, rtol=bits, atol=0)
        for threshold in (calibration, *calibration.strata.values()):
            flipped = threshold.abnormal(expected) != threshold.abnormal(found)
            flips += int((flipped & ~equal).sum())
    if not (gaps <= TOLERANCE * np.maximum(1, np.abs(expected))).all() or flips:
        raise ArtifactError(
            f"{what}: scores changed; the largest difference is {gaps.max():.3g} (allowed: "
            f"{TOLERANCE:g}, of scores above 1 as a share) and {flips} of {len(expected)} "
            "decisions flipped. Use the library versions the bundle was made with, or export the "
            "run again"
        )
    return float(gaps.max())
