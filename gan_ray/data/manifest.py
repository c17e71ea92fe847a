"""Source `csv`: a table that says what each image is, one row per image.

Columns: `file`, its path below the root; `split`: train, unlabeled, val or test, or our folders'
names such as train/normal; `label`: normal or abnormal, or 0 and 1; and, where they are known,
`group` (patient), `sublabel` (kind of abnormality), `mask` (path) and `class` (kind of image).

Training looks at the labels of training and validation rows. Those of the test rows are read by
`labels` alone, and those of unlabeled rows by nobody.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gan_ray.config import DataConfig
from gan_ray.data.groups import grouping, manifest_text, told_columns
from gan_ray.data.items import Item, Labels, are_kinds, file_item
from gan_ray.data.kinds import manifest_kinds
from gan_ray.data.one_vs_rest import refuse_classes
from gan_ray.data.tree import Tree, open_tree, refuse_missing
from gan_ray.errors import DataError
from gan_ray.names import shown

MANIFEST = "manifest.csv"

_LABELS = {"normal": 0, "good": 0, "0": 0, "abnormal": 1, "ungood": 1, "1": 1}
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class _Row:
    """What the table says of one image; `told` is read where labels may be read."""

    part: str
    """train, val, test or train/unlabeled."""
    told: tuple[str, str]
    """The label, and the split's second half, which may say the same."""
    sublabel: str
    mask: str


class Manifest:
    """Images by the rows of a table; listing them opens none."""

    notes: tuple[str, ...] = ()

    def __init__(self, data: DataConfig) -> None:
        """Read the table.

        Groups come from `data.group_pattern`, or else from the column `group`, or else each file
        is a group of its own.

        Raises:
            ConfigError: settings of other sources are given, or classes that no column tells.
            DataError: there is nothing at the root, no table, or a row that says nothing usable.
        """
        refuse_classes(data)
        data = dataclasses.replace(data, manifest=data.manifest or MANIFEST)
        self._file = data.manifest
        self._tree = open_tree(data.root)
        header, self._rows = _read(data, self._tree)
        grouped = "group" in header and not data.group_pattern
        by = dataclasses.replace(data, manifest=data.manifest if grouped else "")
        self.grouped_by, self._group = grouping(by, self._tree)
        self._kinds = manifest_kinds(data, self._tree)
        used = {*self._rows, *(row.mask for row in self._rows.values())}
        tables = {self._file, self._file.partition("/")[2]}
        self.ignored = tuple(name for name in self._tree.names if name not in used | tables)

    def training(self) -> Mapping[str, Sequence[Item]]:
        """Give the items of all parts that training may open.

        Raises:
            DataError: files that are not there, training rows without a label, or abnormal ones.
        """
        abnormal = [name for name in self._in("train") if self._label(name)]
        if abnormal:
            raise DataError(
                f"{len(abnormal)} row(s) of '{self._file}' are abnormal training images, the first "
                f"is {shown(abnormal[0])}. Systems train on normals and on a mix: give these and "
                "some normals the split unlabeled, or leave them out."
            )
        validation = self._in("val")
        return {
            "train/normal": self._items(self._in("train")),
            "train/unlabeled": self._items(self._in("train/unlabeled")),
            "val/normal": self._items([name for name in validation if not self._label(name)]),
            "val/abnormal": self._items([name for name in validation if self._label(name)]),
        }

    def test(self) -> Sequence[Item]:
        """Give the items of the test rows, in the order of their names.

        Raises:
            DataError: files that are not there.
        """
        return self._items(self._in("test"))

    def test_groups(self) -> frozenset[str]:
        """Give the groups of the test images."""
        return frozenset(self._group(name) for name in self._in("test"))

    def labels(self) -> Labels:
        """Say which test images are abnormal, of which kind and where.

        The kind is the column `sublabel` where that holds kinds (fewer than half as many as
        abnormal images) rather than remarks.

        Raises:
            DataError: a test row without a label, or masks but not for every abnormal image.
        """
        names = self._in("test")
        labels = np.array([self._label(name) for name in names], dtype=np.int64)
        abnormal = [name for name, label in zip(names, labels, strict=True) if label]
        told = {name: self._rows[name].sublabel for name in abnormal}
        known = {name: kind for name, kind in told.items() if kind}
        if not are_kinds(known.values(), len(abnormal)):
            known = {}
        kinds = [
            known.get(name, "abnormal") if label else "normal"
            for name, label in zip(names, labels, strict=True)
        ]
        return Labels(labels, np.array(kinds, dtype=np.str_), self._masks(names, abnormal))

    def _masks(self, names: Sequence[str], abnormal: Sequence[str]) -> Sequence[Item | None] | None:
        masks = {name: self._rows[name].mask for name in abnormal if self._rows[name].mask}
        if not masks:
            return None
        without = [name for name in abnormal if name not in masks]
        if without:
            raise DataError(
                f"'{self._file}' names a mask for {len(masks)} abnormal images, but none for "
                f"{shown(without[0])}. Fill the column mask for all abnormal images or for none."
            )
        refuse_missing(list(masks.values()), self._tree, self._file)
        found = {name: file_item(mask, mask, self._tree.read) for name, mask in masks.items()}
        return [found.get(name) for name in names]

    def _in(self, part: str) -> list[str]:
        return [name for name, row in self._rows.items() if row.part == part]

    def _items(self, names: Sequence[str]) -> list[Item]:
        refuse_missing(names, self._tree, self._file)
        return [
            file_item(name, self._group(name), self._tree.read, self._kinds.get(name, ""))
            for name in names
        ]

    def _label(self, name: str) -> int:
        told = {_LABELS.get(text) for text in self._rows[name].told if text}
        if len(told) != 1 or None in told:
            raise DataError(
                f"'{self._file}' does not say whether {shown(name)} is normal: its label must be "
                f"one of {', '.join(_LABELS)}, and agree with its split."
            )
        return int(*told)  # type: ignore[arg-type]


def _read(data: DataConfig, tree: Tree) -> tuple[Sequence[str], dict[str, _Row]]:
    """Give the header and the rows by the file each is about, sorted."""
    table = csv.DictReader(io.StringIO(manifest_text(data, tree)))
    there = frozenset(tree.names)

    def path(cell: str) -> str:
        # The top folder of a zip may be named or not, see `open_tree`.
        inside = cell.partition("/")[2]
        return inside if cell not in there and inside in there else cell

    rows: dict[str, _Row] = {}
    try:
        header = table.fieldnames or []
        if not {"file", "split"} <= set(header):
            raise DataError(
                f"'{data.manifest}' has the columns {told_columns(header)}, but source 'csv' needs "
                " 'file', 'split' and 'label'. Add or rename them in its first line."
            )
        for cells in table:
            name = path(cells["file"] or "")
            if name in rows:
                raise DataError(
                    f"'{data.manifest}' has two rows for {shown(name)}. Leave one of them out."
                )
            rows[name] = _row(cells, path, name, data.manifest)
    except csv.Error as error:
        raise DataError(f"'{data.manifest}' is not readable as CSV: {error}.") from None
    return header, dict(sorted(rows.items()))


def _row(cells: Mapping[str, str | None], path: Callable[[str], str], name: str, file: str) -> _Row:
    split, _, kind = (cells["split"] or "").strip().lower().partition("/")
    if "unlabeled" in (split, kind) and split in ("unlabeled", "train"):
        part, kind = "train/unlabeled", ""
    elif split in _SPLITS:
        part = _SPLITS[split]
    else:
        raise DataError(
            f"'{file}' gives {shown(name)} the split {shown(cells['split'] or '')}, but train, "
            "unlabeled, val and test are known. Correct the column split."
        )
    label, sublabel, mask = (
        (cells.get(key) or "").strip() for key in ("label", "sublabel", "mask")
    )
    return _Row(part, (label.lower(), kind), sublabel, path(mask) if mask else "")
