"""Addresses: what they mean, and the tricks by which an allow-list must not be left."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_ray.errors import StorageError
from gan_ray.storage import AllowList, open_store, split_uri


def test_the_spellings_of_a_place_give_one_address(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    spellings = ["data", "./data/", f"{tmp_path}/x/../data", f"file://{tmp_path}/data/", "link"]
    assert {open_store(uri).uri for uri in spellings} == {f"file://{os.path.realpath('data')}"}
    assert open_store("s3://bucket/a/b/").uri == "s3://bucket/a/b"
    assert open_store("s3://bucket/").uri == "s3://bucket"
    assert open_store("/").uri == "file:///"


@pytest.mark.parametrize(
    "uri",
    ["", "http://host/a", "https:/host", "S3://bucket/a", "gs://bucket", "s3:/bucket/a", "s3://",
     "s3:///key", "s3://user@bucket/a", "s3://bucket:80/a", "s3://../a", "s3://b%75cket/a",
     "s3://bucket/a/../b", "s3://bucket/./a", "s3://bucket/a//b", "s3://bucket/a?endpoint=evil",
     "s3://bucket/a#b", "file://host/a", "file:/a", "a\0b", "a\nb"],
)  # fmt: skip
def test_an_address_that_means_nothing_is_refused(uri: str):
    with pytest.raises(StorageError):
        open_store(uri)


def test_an_unknown_scheme_names_the_known_ones():
    with pytest.raises(StorageError, match=r"known are file, s3.*Did you mean 's3'"):
        open_store("s3n://bucket/a")


def test_an_object_is_split_into_its_parent_and_its_key(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = os.path.realpath(tmp_path)
    assert split_uri("s3://bucket/a/b.png") == ("s3://bucket/a", "b.png")
    assert split_uri("s3://bucket/b.png") == ("s3://bucket", "b.png")
    assert split_uri("a/b c%20#.png") == (f"file://{here}/a", "b c%20#.png")
    assert split_uri("b.png") == (f"file://{here}", "b.png")
    assert split_uri("file:///b.png") == ("file:///", "b.png")
    for uri in ("s3://bucket", "s3://bucket/", "s3://bucket/a/", "a/", "/", "..", "http://h/a"):
        with pytest.raises(StorageError):
            split_uri(uri)


def test_splitting_leaves_links_to_the_store(tmp_path: Path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "link.png").symlink_to(secret)
    parent, key = split_uri(f"{tmp_path}/open/link.png")
    with pytest.raises(StorageError, match="leads out of"):
        open_store(parent).get(key)


@pytest.fixture
def places(tmp_path: Path) -> tuple[AllowList, Path]:
    root = tmp_path / "open"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "openly").mkdir()
    (tmp_path / "secret").mkdir()
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "loop").symlink_to(root / "loop")
    (root / "in").symlink_to(root / "sub")
    return AllowList([str(root), "s3://bucket/in", "s3://whole"]), tmp_path


def test_what_lies_in_an_allowed_place_is_allowed(places: tuple[AllowList, Path]):
    allowed, folder = places
    for uri in ("s3://bucket/in", "s3://bucket/in/", "s3://bucket/in/a b/ä@2.png", "s3://whole/x",
                f"{folder}/open", f"file://{folder}/open/new/x.png", f"{folder}/open/in/x.png",
                f"{folder}/open/..."):  # fmt: skip
        allowed.check(uri)


@pytest.mark.parametrize(
    "uri",
    ["s3://bucket", "s3://bucket/inner/x", "s3://bucket/i", "s3://bucket/In/x", "s3://bucke/in/x",
     "s3://bucket/in/../x", "s3://bucket/in/./x", "s3://bucket/in//x", "s3://bucket//in/x",
     "s3://bucket/in/..", "s3://bucket/../whole/x", "s3://bucket/x/../in/x",
     "s3://bucket/in/%2e%2e/x", "s3://bucket/in/%2E./x", "s3://bucket/in/%252e%252e/x",
     "s3://bucket/in%2f..%2fx", "s3://bucket/in\\..\\x", "s3://bucket/in#/../x",
     "s3://bucket/in?versionId=1", "s3://bucket/in/x\n", "s3://bucket/in/\0", "s3://whole@bucket/x",
     "s3://whole:x@bucket/x", "s3://whole:80/x", "s3://whole%00/x", "s3://[::1]/in/x",
     "s3://WHOLE/../bucket/x", "S3://bucket/in/x", "s3:/bucket/in/x", "s3:bucket/in/x",
     "//bucket/in/x", "http://bucket/in/x", "https://127.0.0.1/in", "http://2130706433/in",
     "gopher://whole/x", "ftp://whole", "data:,x", "javascript:x", "s3 ://bucket/in/x",
     " s3://bucket/in/x", "s3://bucket /in/x", "file://localhost/etc/passwd", "file:/etc/passwd",
     "file:etc/passwd", "file:////etc/passwd", "/etc/passwd", "//etc/passwd", "~/x", "etc/passwd",
     "FILE:///etc/passwd", "{}/open/../secret/x", "{}/open/./x", "{}/open//x", "{}/openly/x",
     "{}/open/out/x", "{}/open/out", "file://{}/open/out/x", "{}/open/%2e%2e/secret/x",
     "{}/open/loop/../out/x", "{}/secret", "{}", "s3://{}/open/x", "", ".", ".."],
)  # fmt: skip
def test_no_trick_leaves_the_allowed_places(places: tuple[AllowList, Path], uri: str):
    allowed, folder = places
    with pytest.raises(StorageError):
        allowed.check(uri.replace("{}", str(folder)))


def test_a_refusal_says_what_is_allowed_and_an_empty_list_allows_nothing():
    with pytest.raises(StorageError, match=r"'s3://other/x'.*allowed is s3://bucket/in\."):
        AllowList(["s3://bucket/in/"]).check("s3://other/x")
    with pytest.raises(StorageError, match="allowed is nothing"):
        AllowList([]).check("s3://bucket/in")


@given(st.text(alphabet="ab./%2e#?@:\\~ \n", max_size=30))
def test_an_allowed_address_is_below_the_prefix_however_it_is_read(tail: str):
    from urllib.parse import unquote, urlsplit

    uri = f"s3://bucket/in/{tail}"
    try:
        AllowList(["s3://bucket/in"]).check(uri)
    except StorageError:
        return
    read = urlsplit(unquote(uri))
    assert read.netloc == "bucket"
    assert os.path.normpath(read.path).startswith("/in")
    assert os.path.normpath(read.path) in ("/in", f"/in/{tail}".rstrip("/"))
