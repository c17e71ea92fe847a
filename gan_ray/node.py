"""What one machine of a cluster says about itself; runs on the node and imports no Ray at first."""

from __future__ import annotations

import platform
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from gan_ray.errors import StorageError
from gan_ray.storage import ObjectMissing, open_store
from serve.settings import is_loopback

PACKAGES = ("gan-ray", "ray", "torch", "numpy", "optuna", "pyarrow", "safetensors")
"""What must be the same on every node: it travels between them, or decides numbers."""


@dataclass(frozen=True)
class NodeFacts:
    """One node; sizes in bytes."""

    versions: dict[str, str]
    """Of Python and of the packages."""
    token: bool
    """Whether Ray asks for a token."""
    gpus: tuple[str, ...]
    """Names and memory of the GPUs that the driver finds."""
    shared_memory: int
    folder: str
    """Ray's own folder, whose disk is measured."""
    disk: int
    disk_free: int
    address: str = ""
    """Ray's name for the node; this and the following are from Ray's own list of nodes."""
    object_store: int = 0
    """What Ray keeps for objects."""
    ray_gpus: float = 0.0
    """GPUs that Ray hands out."""


@dataclass(frozen=True)
class StoreTrial:
    """What a store answered from one machine."""

    uri: str
    milliseconds: dict[str, float] = field(default_factory=dict)
    """Per request: write, read, list, delete."""
    error: str = ""
    """What went wrong; empty when nothing did."""


class Probe:
    """The actor that looks at its node."""

    def facts(self) -> NodeFacts:
        """Give all but what only Ray's own list of nodes knows."""
        import ray
        from ray._private.authentication.authentication_utils import is_token_auth_enabled

        memory = Path("/dev/shm")
        folder = ray.get_runtime_context().get_temp_dir()
        usage = shutil.disk_usage(folder)
        return NodeFacts(
            versions=installed(),
            token=is_token_auth_enabled(),
            gpus=_gpus(),
            shared_memory=shutil.disk_usage(memory).total if memory.is_dir() else 0,
            folder=folder,
            disk=usage.total,
            disk_free=usage.free,
        )

    def clock(self) -> float:
        """Give the seconds since 1970 here."""
        return time.time()

    def ask(self, address: str, port: int, path: str) -> dict[str, int]:
        """Give what this node answers, on other addresses than loopback, to a stranger's request.

        `address` is Ray's name for the node. The answer maps "host:port" to the HTTP status; an
        address that does not listen is absent.
        """
        answers = {}
        for host in sorted({address, *_outward()}):
            if is_loopback(host):
                continue
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            status = status_without_token(f"http://{place}{path}")
            if status is not None:
                answers[place] = status
        return answers

    def try_store(self, uri: str, beacon: str) -> StoreTrial:
        """See the function of this name."""
        return try_store(uri, beacon)


def installed() -> dict[str, str]:
    """Give the versions of Python and of the packages in this process's environment."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def status_without_token(url: str) -> int | None:
    """Give the HTTP status of a stranger's GET; None when nobody listens there."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


@contextmanager
def beacon(uri: str) -> Iterator[str]:
    """Keep an object in a store for a while; gives its key."""
    store, key = open_store(uri), f"gan-ray-doctor-{secrets.token_hex(8)}"
    try:
        store.put(key, b"")
        yield key
    finally:
        store.delete(key)


def try_store(uri: str, beacon: str = "") -> StoreTrial:
    """Write one small object, read, list, overwrite conditionally and delete it.

    `beacon` is an object that another machine keeps there.
    """
    milliseconds: dict[str, float] = {}
    key, content = f"gan-ray-doctor-{secrets.token_hex(8)}", secrets.token_bytes(1024)

    def timed(name: str, began: float) -> None:
        milliseconds[name] = 1000 * (time.perf_counter() - began)

    try:
        store = open_store(uri)
        uri = store.uri
        began = time.perf_counter()
        store.put(key, content)
        timed("write", began)
        try:
            began = time.perf_counter()
            read = store.get(key)
            timed("read", began)
            began = time.perf_counter()
            listed = [entry.key for entry in store.list(key)]
            timed("list", began)
            overwritten = store.put(key, b"", if_absent=True)
        finally:
            began = time.perf_counter()
            store.delete(key)
            timed("delete", began)
        faults = {
            "what was read is not what was written": read != content,
            "an object that was just written is not listed": listed != [key],
            "a conditional write (If-None-Match) replaced an object": overwritten,
            "not the place that the other machine sees under this name": beacon
            and not store.exists(beacon),
            "an object that was deleted is still there": store.exists(key),
        }
        error = "; ".join(fault for fault, happened in faults.items() if happened)
        return StoreTrial(uri, milliseconds, f"{uri}: {error}" if error else "")
    except ObjectMissing:
        return StoreTrial(uri, milliseconds, f"{uri}: an object that was just written is missing")
    except StorageError as error:
        return StoreTrial(uri, milliseconds, str(error))


def _gpus() -> tuple[str, ...]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())


def _outward() -> set[str]:
    """Give the addresses that packets leave by; connecting a datagram socket sends none."""
    found = set()
    for family, anywhere in ((socket.AF_INET, "8.8.8.8"), (socket.AF_INET6, "2001:4860::8888")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((anywhere, 53))
                found.add(probe.getsockname()[0])
        except OSError:
            continue
    return found
