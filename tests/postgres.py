"""A real PostgreSQL server on loopback, where its binaries are installed (Debian: postgresql)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PASSWORD = "pass/word:with@all%of#it"


class Server:
    """A server with the database `studies`, whose user `searcher` has a password."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self._folder, self._binaries = folder, binaries
        # The server refuses to run as root; its package brings a user.
        self._user = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        secret = folder / "secret"
        secret.write_text(PASSWORD)
        if self._user:
            shutil.chown(folder, "postgres", "postgres")
            shutil.chown(secret, "postgres", "postgres")
        self._run("initdb", "-D", str(folder / "data"), "-U", "searcher", "--pwfile", str(secret),
                  "--auth=scram-sha-256", "-E", "UTF8", "--no-sync")  # fmt: skip
        self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "searcher", "studies",
                  PGPASSWORD=PASSWORD)  # fmt: skip

    def url(self, password: str) -> str:
        """Give the address with an encoded password."""
        return f"postgresql+psycopg://searcher:{password}@127.0.0.1:{self.port}/studies"

    def start(self) -> None:
        """Start, and wait until it answers."""
        log = (self._folder.parent / f"{self._folder.name}.log").open("a")
        self._process = subprocess.Popen(
            [self._binaries / "postgres", "-D", self._folder / "data", "-p", str(self.port),
             "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self._folder}",
             "-c", "fsync=off"],
            stdout=log, stderr=log, cwd=self._folder, **self._user,
        )  # fmt: skip
        ends = time.monotonic() + 60
        ready = [self._binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready).returncode:
            assert time.monotonic() < ends, "PostgreSQL does not answer"
            time.sleep(0.1)

    def kill(self) -> None:
        """End at once, as with the machine: children see their parent gone."""
        self._process.kill()
        self._process.wait()
        pid = self._folder / "data" / "postmaster.pid"
        pid.unlink(missing_ok=True)

    def stop(self) -> None:
        """End in order, without waiting for those who are connected."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)

    def _run(self, program: str, *arguments: str, **variables: str) -> None:
        subprocess.run([self._binaries / program, *arguments], check=True, capture_output=True,
                       cwd=self._folder, env={**os.environ, **variables}, **self._user)  # fmt: skip


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server for the whole session; skips where none is installed."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install '.[postgresql]'")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [
        Path(path) for path in filter(None, [shutil.which("initdb")])
    ]
    if not found:
        pytest.skip("no PostgreSQL server here: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="gan-ray-postgres-"))  # pytest's own are root's alone
    server = Server(folder, found[-1].resolve().parent)
    yield server
    server.stop()
    shutil.rmtree(folder)
    (folder.parent / f"{folder.name}.log").unlink()
