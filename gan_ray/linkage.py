"""`gan-ray names`: which pseudonyms the files below a place have, for those who hold the key."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from gan_ray.config import DataConfig
from gan_ray.names import DIGITS, OBJECT_DIGITS, pseudonym

COLUMNS = ("id", "image", "patient", "name")


def linkage(data: DataConfig, *, contents: bool = False) -> Iterator[dict[str, str]]:
    """Give a row of `COLUMNS` for each image file below `data.root`, sorted by name.

    `id` stands in the rows of `score`, and begins as messages name the file; `patient` and, where
    `contents` are read, `image` stand in evaluations, reports and validation scores. A data set in
    one top folder has two rows per file: with that folder, as `score` names it, and without.

    Raises:
        DataError: there is nothing at the root, or a file whose patient is unknown.
    """
    from gan_ray.data.groups import grouping
    from gan_ray.data.items import digest
    from gan_ray.data.suffixes import names_image
    from gan_ray.data.tree import open_tree
    from gan_ray.storage import open_store

    tree = open_tree(data.root)
    _, group = grouping(data, tree)
    is_store = "://" in data.root or Path(data.root).expanduser().is_dir()
    keys = [entry.key for entry in open_store(data.root).list()] if is_store else []
    for name in filter(names_image, sorted({*tree.names, *keys})):
        inside = name in tree.names
        yield {
            "id": pseudonym(name, OBJECT_DIGITS),
            "image": pseudonym(digest(tree.read(name))) if contents and inside else "",
            "patient": pseudonym(digest(group(name).encode())) if inside else "",
            "name": name,
        }


def command(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    """Run the verb.

    Raises:
        DataError: there is nothing at the root, or a file whose patient is unknown.
    """
    parser.description = (
        f"List files with their pseudonyms: id (messages show its first {DIGITS} digits), image, "
        "patient. The table tells who is who: keep it as the images themselves."
    )
    parser.add_argument("root", help="directory, zip or s3://bucket/prefix")
    parser.add_argument("--contents", action="store_true", help="read the files, for their image")
    parser.add_argument("--group-pattern", default="", help="as --data.group-pattern")
    parser.add_argument("--manifest", default="", help="as --data.manifest")
    options = parser.parse_args(arguments)
    data = DataConfig(
        root=options.root, group_pattern=options.group_pattern, manifest=options.manifest
    )
    rows = linkage(data, contents=options.contents)
    if options.json:
        print(json.dumps({"names": list(rows)}, indent=1))
        return 0
    table = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return 0
