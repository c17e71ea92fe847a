"""Source `data-json`: the lists of DDAD, DDAD-ASR, MedIAnomaly and SAGAN, unchanged.

    {"train": {"0": [names], "unlabeled": {"0": [names], "1": [names]}},
     "test": {"0": [names], "1": [names]}}

"0" is normal, "1" abnormal; `unlabeled` may be missing. The images lie in `images/` or
`train_png_512/` beside the file.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gan_ray.config import DataConfig
from gan_ray.data.brightness import refusal
from gan_ray.data.groups import grouping
from gan_ray.data.items import Item, Labels, file_item
from gan_ray.data.kinds import manifest_kinds
from gan_ray.data.one_vs_rest import refuse_classes
from gan_ray.data.splits import position
from gan_ray.data.tree import Tree, open_tree, refuse_missing
from gan_ray.errors import ConfigError, DataError
from gan_ray.names import Public, shown

FILES = tuple(map(Public, ("data.json", "rsna_data.json", "vin_data.json")))
FOLDERS = ("images", "train_png_512")

_FORMAT = (
    'It must be {"train": {"0": [...], "unlabeled": {"0": [...], "1": [...]}}, '
    '"test": {"0": [...], "1": [...]}} with lists of file names.'
)


class DataJson:
    """Images by the lists of one file; listing them opens none."""

    def __init__(self, data: DataConfig) -> None:
        """Read the lists and choose the unlabeled mix.

        The mix holds `data.unlabeled_size` images (0: as many as normals), of which
        `data.anomaly_ratio` are abnormal, rounded down. Where the lists hold too few of a kind the
        mix is smaller, the ratio is kept, and `notes` says so. Chosen by hash of the name: the same
        on every machine and for every seed. References take the first entries of each list.

        Raises:
            ConfigError: settings of other sources, or a ratio that no mix of the lists can have.
            DataError: there is nothing at the root, or the file is not in this format.
        """
        refuse_classes(data)
        self._tree = open_tree(data.root)
        self._file = _only_file(self._tree, data.root)
        lists = _parse(self._tree.read(self._file), self._file)
        self._folder = _image_folder(self._tree, data.root)
        self._normal = self._paths(lists["train", "0"])
        pool = [self._paths(lists["unlabeled", kind]) for kind in "01"]
        self._mix, self.notes = _mix(pool, len(self._normal), data)
        self._abnormal = frozenset(self._paths(lists["test", "1"]))
        # In the order of the names, not of the lists: that would be the order of the labels.
        self._test = sorted({*self._paths(lists["test", "0"]), *self._abnormal})
        listed = {self._file, *self._normal, *pool[0], *pool[1], *self._test}
        self.ignored = tuple(name for name in self._tree.names if name not in listed)
        self.grouped_by, self._group = grouping(data, self._tree)
        self._kinds = manifest_kinds(data, self._tree)

    def training(self) -> Mapping[str, Sequence[Item]]:
        """Give the normals and the mix.

        Raises:
            DataError: listed files that are not there.
        """
        return {
            "train/normal": self._items(self._normal),
            "train/unlabeled": self._items(self._mix),
            "val/normal": [],
            "val/abnormal": [],
        }

    def test(self) -> Sequence[Item]:
        """Give the items of the test lists, in the order of their names.

        Raises:
            DataError: listed files that are not there.
        """
        return self._items(self._test)

    def test_groups(self) -> frozenset[str]:
        """Give the groups of the test images, which their names or the manifest tell."""
        return frozenset(self._group(name) for name in self._test)

    def labels(self) -> Labels:
        """Say which test images are abnormal."""
        labels = np.array([name in self._abnormal for name in self._test], dtype=np.int64)
        return Labels(labels, np.where(labels == 1, "abnormal", "normal"))

    def _paths(self, names: Sequence[str]) -> list[str]:
        return [f"{self._folder}/{name}" for name in names]

    def _items(self, names: Sequence[str]) -> list[Item]:
        refuse_missing(names, self._tree, self._file)
        return [
            file_item(name, self._group(name), self._tree.read, self._kinds.get(name, ""))
            for name in names
        ]


def mixture(normals: int, abnormal: int, size: int, ratio: float) -> tuple[int, int]:
    """Give how many normals and how many abnormals make the largest mix up to `size`.

    `ratio` of the mix are abnormal, rounded down; `normals` and `abnormal` are there to choose
    from. (0, 0) when no mix has that ratio.
    """
    limits = [(abnormal, ratio), (normals, 1 - ratio)]
    room = min(size, *(there / share for there, share in limits if share > 0))
    size = math.floor(room + 1e-9)
    planted = math.floor(size * ratio + 1e-9)
    return min(size - planted, normals), planted


def _mix(
    pool: Sequence[Sequence[str]], wanted: int, data: DataConfig
) -> tuple[list[str], tuple[str, ...]]:
    there = (len(pool[0]), len(pool[1]))
    size, ratio = data.unlabeled_size or wanted, data.anomaly_ratio
    if not size or not sum(there):
        return [], ()
    counts = mixture(*there, size, ratio)
    held = f"{there[0]} normal and {there[1]} abnormal images to choose from"
    if not sum(counts):
        raise ConfigError(
            f"no unlabeled mix has data.anomaly_ratio {ratio:g}: the lists hold {held}. "
            "Set --data.anomaly-ratio to 0 or 1, whichever kind is there."
        )
    chosen = [
        name
        for names, count in zip(pool, counts, strict=True)
        for name in sorted(names, key=lambda name: position(name, "unlabeled"))[:count]
    ]
    notes: tuple[str, ...] = ()
    if sum(counts) < size:
        notes = (
            f"the unlabeled mix has {sum(counts)} images ({counts[0]} normal, {counts[1]} "
            f"abnormal) instead of {size}: data.anomaly_ratio is {ratio:g} and there are {held}. "
            "Set --data.anomaly-ratio or --data.unlabeled-size to what is there.",
        )
    return sorted(chosen), notes


def _only_file(tree: Tree, root: str) -> str:
    found = [name for name in FILES if name in tree.names]
    if not found or (len(found) > 1 and found[0] != FILES[0]):
        raise DataError(
            f"there is {'more than one' if found else 'none'} of the files {', '.join(FILES)} in "
            f"'{root}'. Source 'data-json' reads one of them: name it data.json."
        )
    return found[0]


def _image_folder(tree: Tree, root: str) -> str:
    tops = {name.partition("/")[0] for name in tree.names if "/" in name}
    found = [folder for folder in FOLDERS if folder in tops]
    if len(found) != 1:
        raise DataError(
            f"there are {'both' if found else 'neither'} of the folders {' and '.join(FOLDERS)} "
            f"in '{root}', but the images must lie in one of them. Check --data.root."
        )
    return found[0]


def _parse(content: bytes, name: str) -> dict[tuple[str, str], list[str]]:
    try:
        plain = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise refusal(name, f"is not readable as JSON ({error})", _FORMAT) from None
    train, test = _branch(plain, "train", name), _branch(plain, "test", name)
    pool = _branch(train, "unlabeled", name) if "unlabeled" in train else {"0": [], "1": []}
    lists = {
        (part, kind): _names(branch, kind, part, name)
        for part, branch, kinds in (
            ("train", train, "0"),
            ("unlabeled", pool, "01"),
            ("test", test, "01"),
        )
        for kind in kinds
    }
    for parts in (("train", "unlabeled"), ("test",)):
        counts = Counter(
            one for (part, _), names in lists.items() if part in parts for one in names
        )
        twice = [one for one, count in counts.items() if count > 1]
        if twice:
            raise refusal(
                name,
                f"lists {len(twice)} image(s) more than once in {' and '.join(parts)}, the first "
                f"is {shown(twice[0])}",
                "Leave each in one list.",
            )
    return lists


def _branch(plain: Any, key: str, name: str) -> Mapping[str, Any]:
    branch = plain.get(key) if isinstance(plain, dict) else None
    if not isinstance(branch, dict):
        raise refusal(name, f'has no object "{key}"', _FORMAT)
    return branch


def _names(branch: Mapping[str, Any], kind: str, part: str, name: str) -> list[str]:
    names = branch.get(kind, [] if part == "unlabeled" else None)
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise refusal(name, f'has no list of names "{kind}" in "{part}"', _FORMAT)
    return names
