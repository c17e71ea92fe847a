"""A real S3-compatible server over HTTP on loopback, for the tests of the whole project."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
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
    with log.open("wb") as output:
        port = _free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _wait_for(port, server, log)
            endpoint = f"http://127.0.0.1:{port}"
            with pytest.MonkeyPatch.context() as patch:
                for name in [name for name in os.environ if name.startswith("AWS_")]:
                    patch.delenv(name)
                patch.setenv("AWS_ENDPOINT_URL", endpoint)
                patch.setenv("AWS_ACCESS_KEY_ID", "tester")
                patch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
                patch.setenv("AWS_REGION", "us-east-1")
                patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
                yield endpoint
        finally:
            server.terminate()
            server.wait(timeout=20)


@pytest.fixture
def s3(s3_server: str) -> Bucket:
    """A bucket of its own for every test."""
    name = f"bucket-{next(_numbers)}"
    urlopen(Request(f"{s3_server}/{name}", method="PUT")).close()
    return Bucket(uri=f"s3://{name}", endpoint=s3_server)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not start: {log.read_text()}")
