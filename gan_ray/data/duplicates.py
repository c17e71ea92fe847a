"""The same picture twice in a data set: with equal pixels, or resized, re-encoded or relit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from gan_ray.data.findings import NAMED, Findings, in_test, leaks, pairs, some
from gan_ray.data.looks import Look
from gan_ray.data.sketches import detail_correlation, most_similar
from gan_ray.names import shown

COPY, COPY_DETAIL = 0.999, 0.995
"""Least correlation of 32 x 32 area averages, and of their details, of two files of one picture.

Measured on chest films, brain slices, fundus photographs and tiles of 128 pixels: halved, enlarged
or JPEG copies have 0.9991 and 0.996 or more, different patients less than 0.998; crops of binary
circuit boards that show little reach 0.9996 or 0.9949, but not both.
"""
ALIKE = 0.995
"""Least such correlation, whatever the details, of pictures that a person should compare."""

Parts = Mapping[str, Sequence[Look]]


def find_equal(looks: Parts, findings: Findings) -> None:
    """Find images of equal pixels: errors between training and test, warnings elsewhere."""
    where: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for part, seen in looks.items():
        for one in seen:
            where[one.digest].append((part, shown(one.item.name)))
    equal = [places for places in where.values() if len(places) > 1]
    leaking = [
        places
        for places in equal
        if any(leaks(first, second) for first, second in pairs([part for part, _ in places]))
    ]
    for found, told, remedy in (
        (leaking, findings.errors, "are both in training and in test. Remove them from one side"),
        (
            [p for p in equal if p not in leaking],
            findings.warnings,
            "exist more than once (keep one of each)",
        ),
    ):
        if found:
            names = some([" = ".join(name for _, name in places[:NAMED]) for places in found])
            told.append(f"{len(found)} image(s) {remedy}: {names}.")


def find_copies(looks: Parts, findings: Findings) -> None:
    """Find images without equal pixels that show the same picture.

    Between training and test, copies are errors and pictures that look alike are warnings; between
    training normals and the mix or validation images, copies are warnings.
    """
    training = [one for part, seen in looks.items() if not in_test(part) for one in seen]
    test = [one for part, seen in looks.items() if in_test(part) for one in seen]
    copies, alike = _compare(training, test)
    if copies:
        findings.errors.append(
            f"{len(copies)} test image(s) show the same picture as a training image, resized or "
            f"saved otherwise (correlation of 32 x 32 area averages at least {COPY}, of their "
            f"details {COPY_DETAIL}): {some(copies)}. Remove them from one side."
        )
    if alike:
        findings.warnings.append(
            f"{len(alike)} test image(s) look almost like a training image (correlation of 32 x 32 "
            f"area averages at least {ALIKE}): {some(alike)}. Look at them; where they show the "
            "same patient, part or scene, name it (--data.group-pattern or --data.manifest) and "
            "keep it on one side."
        )
    normal = looks.get("train/normal", ())
    others = [
        one
        for part, seen in looks.items()
        if part != "train/normal" and not in_test(part)
        for one in seen
    ]
    copies, _ = _compare(normal, others)
    if copies:
        findings.warnings.append(
            f"{len(copies)} image(s) of the mix or of validation show the same picture as a "
            f"training normal, resized or saved otherwise: {some(copies)}. Keep one of each; "
            "figures on held-out images may be a little too good."
        )


def _compare(training: Sequence[Look], others: Sequence[Look]) -> tuple[list[str], list[str]]:
    """Name the others that are copies of a training image, and those that look like one."""
    known = {one.digest for one in training}
    others = [one for one in others if one.digest not in known]
    if not training or not others:
        return [], []
    sketches, among = (np.stack([one.sketch for one in side]) for side in (others, training))
    nearest, correlation = most_similar(sketches, among, ALIKE)
    rows = np.flatnonzero(nearest >= 0)
    detail = detail_correlation(sketches[rows], among[nearest[rows]])
    copies, alike = [], []
    for row, agreement in zip(rows, detail, strict=True):
        one, twin = others[row], training[nearest[row]]
        text = f"{shown(twin.item.name)} ({twin.size}) ~ {shown(one.item.name)} ({one.size})"
        if correlation[row] >= COPY and agreement >= COPY_DETAIL:
            copies.append(text)
        else:
            alike.append(text)
    return copies, alike
