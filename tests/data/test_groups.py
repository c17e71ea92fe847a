"""Whose image it is, and that nothing else of a manifest is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from gan_ray.config import DataConfig
from gan_ray.data.groups import grouping, manifest_column
from gan_ray.data.tree import Tree, open_tree
from gan_ray.errors import ConfigError, DataError
from tests.data.trees import write_folder, write_zip

MANIFEST = b"label,file,group\nabnormal,set/train/normal/a.png,p1\nnormal,train/normal/b.png,p2\n"
FILES = {"train/normal/a.png": b"", "train/normal/b.png": b"", "manifest.csv": MANIFEST}


def tree(tmp_path: Path, files: dict[str, bytes] = FILES) -> tuple[str, Tree]:
    root = write_zip(tmp_path / "set.zip", files, top="set")
    return root, open_tree(root)


def test_each_file_is_its_own_group_by_default(tmp_path: Path):
    root, files = tree(tmp_path)
    how, group = grouping(DataConfig(root=root), files)
    assert how == "file"
    assert group("train/normal/a.png") == "train/normal/a.png"


def test_a_pattern_names_the_patient_in_the_file_name(tmp_path: Path):
    root, files = tree(tmp_path)
    how, group = grouping(DataConfig(root=root, group_pattern=r"^(p\d+)-"), files)
    assert how == "pattern"
    assert group("train/p9-folder/p12-x.png") == "p12"
    with pytest.raises(DataError, match=r"finds no patient in the name of 'train/normal/a.png'"):
        group("train/normal/a.png")


@pytest.mark.parametrize("name", ["manifest.csv", "set/manifest.csv"])
def test_a_manifest_inside_a_zip_may_name_files_with_the_top_folder(tmp_path: Path, name: str):
    root, files = tree(tmp_path)
    how, group = grouping(DataConfig(root=root, manifest=name), files)
    assert how == "manifest"
    assert [group("train/normal/a.png"), group("train/normal/b.png")] == ["p1", "p2"]
    with pytest.raises(DataError, match=r"no group for 'train/normal/c.png'"):
        group("train/normal/c.png")


def test_a_manifest_may_lie_beside_the_root(tmp_path: Path):
    root = write_folder(tmp_path / "set", {"train/normal/a.png": b""})
    (tmp_path / "who.csv").write_bytes(b"\xef\xbb\xbffile,group\ntrain/normal/a.png,p1\n")
    for manifest in ("who.csv", str(tmp_path / "who.csv")):
        _, group = grouping(DataConfig(root=root, manifest=manifest), open_tree(root))
        assert group("train/normal/a.png") == "p1"


def test_a_column_that_is_not_needed_may_be_missing(tmp_path: Path):
    root, files = tree(tmp_path)
    data = DataConfig(root=root, manifest="manifest.csv")
    assert manifest_column(data, files, "sublabel", needed=False) == {}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"file,patient\na,b\n", "columns file, patient, but 'file' and 'group' are needed"),
        (b"", "columns none"),
        (b"file,group\n\xff,\xff\n", "not UTF-8"),
        (b'file,group\n"' + b"x" * 200_000 + b'",p\n', "not readable as CSV"),
    ],
)
def test_a_manifest_that_says_nothing_is_refused(tmp_path: Path, content: bytes, reason: str):
    root, files = tree(tmp_path, {**FILES, "manifest.csv": content})
    with pytest.raises(DataError, match=reason):
        grouping(DataConfig(root=root, manifest="manifest.csv"), files)


def test_settings_that_cannot_work_are_refused(tmp_path: Path):
    root, files = tree(tmp_path)
    for settings, reason in (
        ({"group_pattern": "("}, "no regular expression"),
        ({"group_pattern": r"p\d+"}, "no group in parentheses"),
        ({"group_pattern": r"(p\d+)", "manifest": "manifest.csv"}, "set one of them"),
    ):
        with pytest.raises(ConfigError, match=reason):
            grouping(DataConfig(root=root, **settings), files)
    with pytest.raises(DataError, match=r"no manifest 'other\.csv'"):
        grouping(DataConfig(root=root, manifest="other.csv"), files)
