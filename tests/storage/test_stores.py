"""What every store does, on a directory and on a real S3-compatible server."""

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gan_ray.errors import StorageError
from gan_ray.storage import ObjectMissing, ObjectTooLarge, Store, open_store


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    return open_store(request.getfixturevalue("s3").uri + "/some/prefix")


def test_what_was_put_is_got(store: Store):
    for key in ("a", "a b/ü+%20#?&.png", "x/y/z"):
        assert store.put(key, key.encode())
        assert store.get(key) == key.encode()
    assert store.put("a", b"")
    assert store.get("a") == b""


def test_a_missing_object_is_named_with_its_store(store: Store):
    for call in (
        lambda: store.get("no"),
        lambda: store.download("no", Path("never-written")),
    ):
        with pytest.raises(ObjectMissing, match=f"no object 'no' in {store.uri}"):
            call()
    assert not Path("never-written").exists()
    assert not store.exists("no")
    store.delete("no")


def test_an_object_larger_than_its_reader_takes_is_not_read(store: Store):
    store.put("a", b"0123456789")
    assert store.get("a", most=10) == b"0123456789"
    with pytest.raises(ObjectTooLarge, match=r"'a' in .* has 10 bytes, but 9 are allowed"):
        store.get("a", most=9)
    assert store.get("a") == b"0123456789"


def test_the_first_conditional_put_wins(store: Store):
    assert store.put("a", b"first", if_absent=True) is True
    assert store.put("a", b"second", if_absent=True) is False
    assert store.get("a") == b"first"
    assert store.put("a", b"third") is True
    assert store.get("a") == b"third"


def test_of_many_writers_at_once_exactly_one_wins(store: Store):
    barrier = threading.Barrier(8)

    def write(number: int) -> bool:
        barrier.wait()
        return store.put("a", b"%d" % number * 10_000, if_absent=True)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert won.count(True) == 1
    assert store.get("a") == b"%d" % won.index(True) * 10_000


def test_readers_never_see_half_a_write(store: Store):
    store.put("a", b"x" * 300_000)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for letter in (b"x", b"y"):
                store.put("a", letter * 300_000)

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        seen = [store.get("a") for _ in range(30)]
        stop.set()
        writer.result()
    assert all(content in (b"x" * 300_000, b"y" * 300_000) for content in seen)


def test_a_listing_is_sorted_and_begins_with_the_prefix(store: Store):
    keys = ["a-b", "a.b", "a/b", "a/b.c", "a/b-c/d", "a/b0/c", "a0", "b/ü", "b/z", "Z"]
    for key in reversed(keys):
        store.put(key, key.encode())
    listed = list(store.list())
    assert [entry.key for entry in listed] == sorted(keys)
    assert [entry.size for entry in listed] == [len(key.encode()) for key in sorted(keys)]
    for prefix in ("a", "a/", "a/b", "a/b-c", "b/", "none", "a/b0/c"):
        wanted = [key for key in sorted(keys) if key.startswith(prefix)]
        assert [entry.key for entry in store.list(prefix)] == wanted


def test_a_place_without_objects_lists_nothing(store: Store):
    assert list(store.list()) == []


def test_the_etag_tells_whether_an_object_changed(store: Store):
    store.put("a", b"before")
    (before,) = store.list()
    assert store.get("a", etag=before.etag) == b"before"
    store.put("a", b"after!")
    with pytest.raises(ObjectMissing, match="changed after it was listed"):
        store.get("a", etag=before.etag)


def test_files_go_up_and_come_down_whole(store: Store, tmp_path: Path):
    content = os.urandom(9 * 2**20)  # boto sends more than 8 MiB in parts
    (tmp_path / "up").write_bytes(content)
    store.upload(tmp_path / "up", "big/file")
    store.download("big/file", tmp_path / "new" / "folder" / "down")
    assert (tmp_path / "new" / "folder" / "down").read_bytes() == content
    with pytest.raises(StorageError, match="not-there"):
        store.upload(tmp_path / "not-there", "x")


def test_a_key_that_leaves_the_store_is_refused(store: Store):
    for key in ("", ".", "..", "../x", "a/../../x", "a/./b", "a/.."):
        for call in (
            lambda key: store.get(key),
            lambda key: store.put(key, b"x"),
            lambda key: store.delete(key),
            lambda key: store.exists(key),
            lambda key: store.upload(Path(__file__), key),
            lambda key: store.download(key, Path("never-written")),
        ):
            with pytest.raises(StorageError, match="is not usable"):
                call(key)


def test_a_store_travels_between_processes(store: Store):
    store.put("a", b"1")
    there = pickle.loads(pickle.dumps(store))
    assert (there.uri, there.get("a")) == (store.uri, b"1")
    assert b"canary-secret" not in pickle.dumps(store)


class TestLocal:
    def test_links_out_of_the_directory_are_refused(self, tmp_path: Path):
        outside, root = tmp_path / "outside", tmp_path / "root"
        outside.mkdir()
        root.mkdir()
        (outside / "secret").write_bytes(b"secret")
        (root / "file").symlink_to(outside / "secret")
        (root / "folder").symlink_to(outside)
        (root / "inside").write_bytes(b"1")
        (root / "link").symlink_to(root / "inside")
        store = open_store(str(root))
        assert store.get("link") == b"1"
        for key in ("file", "folder/secret"):
            with pytest.raises(StorageError, match="leads out of"):
                store.get(key)
        with pytest.raises(StorageError, match="leads out of"):
            store.put("folder/new", b"x")
        with pytest.raises(StorageError, match="leads out of"):
            store.delete("folder/secret")
        store.put("file", b"mine")  # replaces the link, not what it points to
        assert (outside / "secret").read_bytes() == b"secret"
        store.delete("link")
        assert store.get("inside") == b"1"
        with pytest.raises(StorageError, match=r"'folder' .* is a link to a directory"):
            list(store.list())

    def test_absolute_keys_and_empty_parts_are_refused(self, tmp_path: Path):
        store = open_store(str(tmp_path))
        for key in ("/etc/passwd", "a//b", "a/", "a\0b", ".partial-1"):
            with pytest.raises(StorageError, match="is not usable"):
                store.get(key)

    def test_an_interrupted_write_leaves_the_old_content_and_no_listing(self, tmp_path: Path):
        store = open_store(str(tmp_path))
        store.put("a/b", b"old")
        (tmp_path / "a" / ".partial-0123").write_bytes(b"half")  # as kill -9 would leave it
        assert [entry.key for entry in store.list()] == ["a/b"]
        full = open_store("/dev/full/never")
        with pytest.raises(StorageError, match="/dev/full"):
            full.put("a", b"x")
        assert store.get("a/b") == b"old"

    def test_what_is_no_file_is_no_object(self, tmp_path: Path):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "folder").mkdir()
        (tmp_path / "dangling").symlink_to(tmp_path / "gone")
        store = open_store(str(tmp_path))
        for key in ("pipe", "folder", "dangling"):
            with pytest.raises(ObjectMissing):
                store.get(key)
        assert [entry.key for entry in store.list()] == ["dangling"]

    def test_files_get_the_permissions_of_the_user(self, tmp_path: Path):
        open_store(str(tmp_path)).put("a", b"1")
        (tmp_path / "b").write_bytes(b"1")
        assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode

    def test_a_name_that_is_not_utf8_is_reported(self, tmp_path: Path):
        with open(os.fsencode(tmp_path) + b"/\xff.png", "wb"):
            pass
        with pytest.raises(StorageError, match="not UTF-8"):
            list(open_store(str(tmp_path)).list())
