"""S3 when the server is slow, full, unreachable or in a bad mood: real requests over HTTP."""

import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest

from gan_ray.errors import StorageError
from gan_ray.storage import ObjectMissing, Store, open_store, s3
from gan_ray.storage.arrow import arrow_filesystem
from tests.s3_server import Bucket
from tests.storage.chaos_proxy import ChaosProxy, chaos


@pytest.fixture
def proxy(s3: Bucket, monkeypatch) -> Iterator[ChaosProxy]:
    with chaos(s3.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        yield running


@pytest.fixture
def store(s3: Bucket, proxy: ChaosProxy) -> Store:
    return open_store(s3.uri + "/in")


def test_requests_are_repeated_after_503_and_broken_connections(store: Store, proxy: ChaosProxy):
    proxy.faults.extend(["503", "reset"])
    store.put("a", b"content")
    proxy.faults.extend(["503", "503"])
    assert store.get("a") == b"content"
    proxy.faults.extend(["503"])
    assert [entry.key for entry in store.list()] == ["a"]
    proxy.faults.extend(["reset"])
    assert store.exists("a")
    assert not proxy.faults
    assert len(proxy.requests) == 10


def test_a_download_that_breaks_off_is_repeated(store: Store, proxy: ChaosProxy, tmp_path):
    content = os.urandom(200_000)
    store.put("a", content)
    proxy.faults.extend(["truncate", "truncate"])
    assert store.get("a") == content
    proxy.faults.extend(["", "truncate"])  # the first request asks for the size
    store.download("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == content
    assert not proxy.faults


def test_a_conditional_put_is_repeated_after_a_conflict(store: Store, proxy: ChaosProxy):
    proxy.faults.extend(["409", "409"])
    assert store.put("a", b"x", if_absent=True) is True
    assert [line.split()[-1] for line in proxy.requests[:2]] == ["409", "409"]


def test_a_conditional_put_whose_answer_got_lost_has_happened(store: Store, proxy: ChaosProxy):
    proxy.faults.extend(["lost"])
    assert store.put("a", b"mine", if_absent=True) is False
    assert store.get("a") == b"mine"


def test_giving_up_says_where_and_what_to_do(s3: Bucket, monkeypatch):
    monkeypatch.setattr("gan_ray.storage.s3.ATTEMPTS", 2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9.*Check the network") as caught:
        open_store(s3.uri).get("a")
    assert not isinstance(caught.value, ObjectMissing)
    assert "canary-secret" not in str(caught.value)


def test_throttling_without_end_is_an_error(store: Store, proxy: ChaosProxy, monkeypatch):
    monkeypatch.setattr("gan_ray.storage.s3.ATTEMPTS", 2)
    proxy.faults.extend(["503"] * 2)
    with pytest.raises(StorageError, match="SlowDown"):
        store.get("a")


def test_a_bucket_that_does_not_exist_is_named(s3: Bucket):
    store = open_store("s3://no-such-bucket/x")
    for call in (lambda: store.get("a"), lambda: store.put("a", b""), lambda: list(store.list())):
        with pytest.raises(StorageError, match=r"no-such-bucket.*create it or correct its name"):
            call()


def test_a_listing_goes_beyond_a_page_and_streams(store: Store, proxy: ChaosProxy):
    keys = [f"{number:04d}.png" for number in range(1005)]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda key: store.put(key, b"x"), keys))
    proxy.requests.clear()
    listing = store.list()
    assert next(listing).key == keys[0]
    assert len(proxy.requests) == 1
    assert [entry.key for entry in listing] == keys[1:]
    assert len(proxy.requests) == 2


def test_a_prefix_does_not_reach_into_its_neighbour(s3: Bucket):
    open_store(s3.uri + "/inner").put("a", b"")
    open_store(s3.uri + "/in").put("b", b"")
    assert [entry.key for entry in open_store(s3.uri + "/in").list()] == ["b"]
    assert [entry.key for entry in open_store(s3.uri).list()] == ["in/b", "inner/a"]


def test_folder_markers_are_no_objects(s3: Bucket):
    client = boto3.client("s3", region_name="us-east-1")
    for key in ("in/", "in/sub/", "in/sub/a.png", "in//odd.png"):
        client.put_object(Bucket=s3.uri.removeprefix("s3://"), Key=key, Body=b"")
    store = open_store(s3.uri + "/in")
    assert [entry.key for entry in store.list()] == ["/odd.png", "sub/a.png"]
    assert store.get("/odd.png") == b""


def test_thirty_two_threads_share_one_client(store: Store, proxy: ChaosProxy, caplog):
    for number in range(8):
        store.put(str(number), b"%d" % number * 1000)
    s3._make_client.cache_clear()  # all of them need the first one at once
    with ThreadPoolExecutor(32) as pool:
        contents = list(pool.map(lambda n: store.get(str(n % 8)), range(256)))
    assert contents == [b"%d" % (n % 8) * 1000 for n in range(256)]
    assert "pool is full" not in caplog.text
    assert s3._make_client.cache_info().misses == 1


def test_arrow_is_as_patient_also_in_another_process(s3: Bucket, proxy: ChaosProxy):
    system, folder = arrow_filesystem(s3.uri + "/in")
    system = pickle.loads(pickle.dumps(system))
    proxy.faults.extend(["reset"] * 6)
    with system.open_output_stream(f"{folder}/a") as stream:
        stream.write(b"content")
    assert not proxy.faults
    assert open_store(s3.uri + "/in").get("a") == b"content"
