"""A directory, a zip and a bucket with the same files are the same tree."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from gan_ray.data import tree
from gan_ray.data.tree import open_tree
from gan_ray.errors import DataError
from gan_ray.storage import open_store
from tests.data.trees import write_folder, write_zip

FILES = {"train/normal/a b.png": b"one", "test/normal/ü.png": b"two", "readme.txt": b"three"}


@pytest.fixture(params=["directory", "zip", "zip with a top folder", "file uri", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "directory":
        return write_folder(tmp_path / "set", FILES)
    if request.param.startswith("zip"):
        return write_zip(tmp_path / "set.zip", FILES, top="set" if "top" in request.param else "")
    if request.param == "file uri":
        write_folder(tmp_path / "set", FILES)
        return f"file://{tmp_path}/set"
    uri = request.getfixturevalue("s3").uri + "/some/set"
    for name, content in FILES.items():
        open_store(uri).put(name, content)
    return str(uri)


def test_the_same_files_are_found_everywhere(root: str):
    found = open_tree(root)
    assert {name: found.read(name) for name in found.names} == FILES
    assert list(found.names) == sorted(FILES)


def test_a_single_split_is_no_top_folder(tmp_path: Path):
    found = open_tree(write_folder(tmp_path, {"train/normal/a.png": b"x"}))
    assert found.names == ("train/normal/a.png",)


def test_litter_of_operating_systems_is_left_out(tmp_path: Path):
    litter = {"__MACOSX/._a.png": b"", "set/.DS_Store": b"", "set/train/normal/Thumbs.db": b""}
    root = write_zip(tmp_path / "a.zip", {"set/train/normal/a.png": b"x", **litter})
    assert open_tree(root).names == ("train/normal/a.png",)


def test_links_are_followed_but_not_in_circles(tmp_path: Path):
    write_folder(tmp_path / "elsewhere", {"a.png": b"x"})
    (tmp_path / "set" / "train").mkdir(parents=True)
    (tmp_path / "set" / "train" / "normal").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "set")
    assert open_tree(str(tmp_path / "set")).names == ("train/normal/a.png",)


def test_nothing_usable_is_refused_with_a_way_out(tmp_path: Path):
    (tmp_path / "text.zip").write_text("no zip")
    (tmp_path / "empty").mkdir()
    for root, reason in (
        ("", "no data set is named"),
        (str(tmp_path / "no"), "no directory or zip at"),
        (str(tmp_path / "text.zip"), "neither a directory nor a readable zip"),
        (str(tmp_path / "empty"), "no files below"),
    ):
        with pytest.raises(DataError, match=reason) as caught:
            open_tree(root)
        assert "--data.root" in str(caught.value)


def test_a_damaged_entry_of_a_zip_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "a.zip"
    write_zip(path, {"train/normal/a.png": b"0123456789", "train/normal/b.png": b"fine"})
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"0123456780"))
    found = open_tree(str(path))
    assert found.read("train/normal/b.png") == b"fine"
    with pytest.raises(DataError, match=r"'train/normal/a.png' cannot be read .*CRC"):
        found.read("train/normal/a.png")


def test_a_file_that_unpacks_to_too_much_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tree, "MAX_FILE_BYTES", 1000)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/normal/a.png", bytes(1001))
    assert path.stat().st_size < 500
    for root in (str(path), write_folder(tmp_path / "set", {"train/normal/a.png": bytes(1001)})):
        with pytest.raises(DataError, match="1,001 bytes"):
            open_tree(root).read("train/normal/a.png")


def test_a_file_that_vanished_is_refused_by_name(tmp_path: Path):
    found = open_tree(write_folder(tmp_path, FILES))
    (tmp_path / "readme.txt").unlink()
    with pytest.raises(DataError, match=r"'readme.txt' cannot be read \(No such file"):
        found.read("readme.txt")
