"""Whose image it is: the patient, by a pattern on the file name or by a manifest.

Of a manifest only the columns that are asked for are looked at: it may hold labels of images that
must stay unlabeled.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gan_ray.config import DataConfig
from gan_ray.data.tree import Tree
from gan_ray.errors import ConfigError, DataError
from gan_ray.names import are_shown, shown

COLUMNS = ("file", "split", "label", "group", "sublabel", "mask", "class")
"""Columns of a manifest that mean something."""


def grouping(data: DataConfig, tree: Tree) -> tuple[str, Callable[[str], str]]:
    """Give how images are grouped (`pattern`, `manifest` or `file`) and the function that does it.

    The function gives the group of a file, by its path in the tree; without a pattern and without
    a manifest each file is a group of its own.

    Raises:
        ConfigError: both are set, or the pattern is none.
        DataError: the manifest is missing or has no such column. The function raises it for a
            file whose group is unknown, since a guess could put a patient into two splits.
    """
    if data.group_pattern and data.manifest:
        raise ConfigError(
            "data.group_pattern and data.manifest both say how images are grouped: set one of them."
        )
    if data.manifest:
        groups = manifest_column(data, tree, "group")
        return "manifest", lambda name: _from_manifest(data.manifest, groups, name)
    if data.group_pattern:
        pattern = _compiled(data.group_pattern)
        return "pattern", lambda name: _from_pattern(pattern, name)
    return "file", lambda name: name


def manifest_column(
    data: DataConfig, tree: Tree, column: str, *, needed: bool = True
) -> Mapping[str, str]:
    """Give one column of the manifest by the file it is about; empty cells are left out.

    A manifest inside a zip with one top folder may name its files with that folder or without.

    Raises:
        DataError: there is no such manifest, it is no CSV with a column `file`, or it has no such
            `column` although that is `needed`.
    """
    rows = csv.reader(io.StringIO(manifest_text(data, tree)))
    try:
        header = next(rows, [])
        if column not in header and not needed:
            return {}
        if "file" not in header or column not in header:
            raise DataError(
                f"manifest '{data.manifest}' has the columns {told_columns(header)}, but "
                f"'file' and '{column}' are needed. Add or rename them in its first line."
            )
        file, value = header.index("file"), header.index(column)
        cells = {row[file]: row[value] for row in rows if len(row) > max(file, value)}
    except csv.Error as error:
        raise DataError(f"manifest '{data.manifest}' is not readable as CSV: {error}.") from None
    inside = {name.partition("/")[2]: cell for name, cell in cells.items()}
    return {name: cell for name, cell in {**inside, **cells}.items() if name and cell}


def manifest_text(data: DataConfig, tree: Tree) -> str:
    """Give the manifest, which lies inside the tree, beside it or where its path says.

    Raises:
        DataError: there is none, or it is no text.
    """
    beside = Path(data.root).expanduser().parent / data.manifest
    for name in (data.manifest, data.manifest.partition("/")[2]):
        if name in tree.names:
            content = tree.read(name)
            break
    else:
        found = [path for path in (Path(data.manifest).expanduser(), beside) if path.is_file()]
        if not found:
            raise DataError(
                f"there is no manifest '{data.manifest}' inside or beside '{data.root}'. "
                "Check --data.manifest."
            )
        content = found[0].read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(
            f"manifest '{data.manifest}' is not UTF-8 text. Save it as CSV in UTF-8."
        ) from None


def told_columns(header: Sequence[str]) -> str:
    """Say in a message which columns a table has; what is none of ours may be a first row."""
    told = [name for name in header if name in COLUMNS or are_shown()]
    others = len(header) - len(told)
    return ", ".join(told + ([f"{others} other(s)"] if others else [])) or "none"


def _from_manifest(manifest: str, groups: Mapping[str, str], name: str) -> str:
    if name not in groups:
        raise DataError(
            f"manifest '{manifest}' has no group for {shown(name)}. Add a row for every image."
        )
    return groups[name]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"data.group_pattern {pattern!r} is no regular expression: {error}."
        ) from None
    if not compiled.groups:
        raise ConfigError(
            f"data.group_pattern {pattern!r} has no group in parentheses to name the patient. "
            r"Write for instance '(patient\d+)_.*'."
        )
    return compiled


def _from_pattern(pattern: re.Pattern[str], name: str) -> str:
    match = pattern.search(name.rpartition("/")[2])
    if match is None or not match[1]:
        raise DataError(
            f"data.group_pattern {pattern.pattern!r} finds no patient in the name of "
            f"{shown(name)}. Change it so that it fits every file name."
        )
    return match[1]
