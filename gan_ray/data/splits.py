"""Held-out images by hash of the patient: stable, disjoint, and independent of any seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from gan_ray.errors import DataError

T = TypeVar("T")


def position(name: str, purpose: str = "") -> float:
    """Give a fixed place in [0, 1) for a name, the same on every machine and for ever.

    Different purposes give independent places.
    """
    digest = hashlib.blake2b(f"{purpose}/{name}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 2**56


def hold_out(
    items: Sequence[T], group: Callable[[T], str], share: float
) -> tuple[list[T], list[T], list[T]]:
    """Split items into (train, select, calibrate) so that no group is in two of them.

    A group whose place in [0, 1) is below `share` is held out, for selection in the lower half
    and for calibration in the upper; so images that are added later move no other group. Only
    where this leaves a part empty (a handful of groups) the groups with the next places fill it.
    A share of 1 trains on nothing and halves the items.

    Raises:
        DataError: fewer groups than parts.
    """
    groups = sorted({group(item) for item in items}, key=lambda name: (position(name), name))
    parts = 2 if share >= 1 else 3
    if len(groups) < parts:
        raise DataError(
            f"{len(items)} normal images of {len(groups)} group(s) (patients) cannot be split "
            f"into {parts} parts by group: training, selection and calibration need groups of "
            "their own. Add images, or check --data.group-pattern and --data.manifest."
        )
    select = sum(position(name) < share / 2 for name in groups)
    held = sum(position(name) < share for name in groups)
    select = min(max(select, 1), len(groups) - parts + 1)
    held = len(groups) if share >= 1 else min(max(held, select + 1), len(groups) - 1)
    place = {name: index for index, name in enumerate(groups)}
    train = [item for item in items if place[group(item)] >= held]
    selected = [item for item in items if place[group(item)] < select]
    calibrate = [item for item in items if select <= place[group(item)] < held]
    return train, selected, calibrate


def set_aside(
    items: Sequence[T], group: Callable[[T], str], share: float
) -> tuple[list[T], list[T]]:
    """Split items into (rest, aside) so that no group is in both.

    Aside are the groups whose place in [0, 1) is below `share`. The places are those of `hold_out`:
    a group that occurs in two sets of items is set aside in both or in neither, at equal shares.

    Raises:
        DataError: a part would be empty.
    """
    parts: tuple[list[T], list[T]] = ([], [])
    for item in items:
        parts[position(group(item)) < share].append(item)
    if not all(parts):
        raise DataError(
            f"of {len(items)} unlabeled images a share of {share:g} by group (patient) leaves "
            f"{len(parts[0])} to train on and {len(parts[1])} held out: both need one. Choose "
            "another --data.mix-held-out, or check --data.group-pattern and --data.manifest."
        )
    return parts


def shared(first: Iterable[str], second: Iterable[str]) -> list[str]:
    """Names that occur in both, sorted."""
    return sorted(set(first) & set(second))
