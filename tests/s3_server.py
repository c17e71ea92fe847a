"""A real S3-compatible server over HTTP on loopback, for the tests of the whole project."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import pytest


@dataclass(frozen=True)
class Bucket:
    """An empty bucket on the server."""

    uri: str
    endpoint: str


_numbers = itertools.count()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the server; boto3, Arrow and processes started later find it in the environment."""
    log = tmp_path_factory.mktemp("s3") / "server.log"
    with serving("127.0.0.1", log) as endpoint, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in access(endpoint).items():
            patch.setenv(name, value)
        yield endpoint


@contextmanager
def serving(host: str, log: Path) -> Iterator[str]:
    """Run a server of its own on a free port of `host`; gives its URL."""
    with log.open("wb") as output:
        port = _free_port(host)
        command = [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)]
        server = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _wait_for(host, port, server, log)
            yield f"http://{host}:{port}"
        finally:
            server.terminate()
            server.wait(timeout=20)


def access(endpoint: str) -> dict[str, str]:
    """Give the variables by which boto3 and Arrow find a server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "canary-secret",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture
def s3(s3_server: str) -> Bucket:
    """A bucket of its own for every test."""
    return make_bucket(s3_server)


def make_bucket(endpoint: str) -> Bucket:
    """Make an empty bucket that no other test has."""
    name = f"bucket-{next(_numbers)}"
    urlopen(Request(f"{endpoint}/{name}", method="PUT")).close()
    return Bucket(uri=f"s3://{name}", endpoint=endpoint)


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _wait_for(host: str, port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not start: {log.read_text()}")
