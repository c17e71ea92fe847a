"""Subjects (patients, parts) of several images: one score and one label for each of them."""

from __future__ import annotations

import numpy as np

from gan_ray.scoring.metrics import Array


def repeat(groups: Array) -> bool:
    """Say whether a group has more than one image; images without a group (empty) have none."""
    named = groups[groups != ""]
    return len(np.unique(named)) < len(named)


def numbered(groups: Array | None, images: int) -> Array:
    """Give the number of each image's group, int64 [N]; an image without a group is its own."""
    names = np.full(images, "") if groups is None else np.asarray(groups, str)
    alone = np.char.add("\0", np.arange(images).astype(str))
    _, group_of = np.unique(np.where(names == "", alone, names), return_inverse=True)
    return group_of


def by_subject(labels: Array, scores: Array, groups: Array) -> tuple[Array, Array]:
    """Give labels int64 [G] and scores float64 [G] of the groups of images [N].

    The score is the mean over a group's images; a group is abnormal when any of its images is.
    """
    group_of = numbered(groups, len(labels))
    images = np.bincount(group_of)
    abnormal = np.bincount(group_of, weights=labels) > 0
    means: Array = np.bincount(group_of, weights=scores) / images
    return abnormal.astype(np.int64), means
