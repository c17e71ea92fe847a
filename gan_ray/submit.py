"""`gan-ray submit`: a command as a Ray job, with what would be uploaded shown first."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

from gan_ray.errors import CheckFailed, ClusterError, ConfigError
from gan_ray.node import status_without_token
from serve.settings import is_loopback

ADDRESS = "http://127.0.0.1:8265"
NOT_CODE = ("/data", "/runs")
"""Left out beside what .gitignore, .rayignore and Ray name; only at the top of the folder."""
SHOWN = 10
INTERRUPTED = 130

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Package:
    """What Ray would upload of a folder."""

    folder: Path
    files: tuple[tuple[str, int], ...]
    """(path below the folder, bytes), largest first."""
    limit: int
    """Bytes from which on Ray refuses."""

    @property
    def size(self) -> int:
        """Bytes of the archive: Ray's are not compressed, each file has two headers."""
        return 22 + sum(size + 76 + 2 * len(name.encode()) for name, size in self.files)

    def lines(self) -> str:
        """Give the size and the largest files as text."""
        head = (
            f"package: {self.folder}, {len(self.files)} files, {self.size / 2**20:.1f} MiB "
            f"(Ray takes less than {self.limit / 2**20:.0f} MiB)"
        )
        rows = (f"{size / 2**10:12,.1f} KiB  {name}" for name, size in self.files[:SHOWN])
        return "\n".join((head, *rows))

    def check(self) -> None:
        """Refuse what Ray would refuse after the upload.

        Raises:
            ConfigError: it is too large.
        """
        if self.size >= self.limit:
            raise ConfigError(
                f"the package of {self.folder} has {self.size / 2**20:.1f} MiB, Ray takes less "
                f"than {self.limit / 2**20:.0f}: leave the files above out (--exclude PATTERN, "
                ".rayignore or .gitignore); data belong into an object store."
            )


def command(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    """Run the verb; the exit code is that of the job's command.

    Raises:
        ConfigError: the package is too large, a file of variables is malformed.
        CheckFailed: the job was stopped.
        ClusterError: no Jobs server answers, it refuses us, anyone could use it, or the job did
            not start.
    """
    _declare(parser)
    words = list(arguments)
    cut = words.index("--") if "--" in words else len(words)
    options, entrypoint = parser.parse_args(words[:cut]), words[cut + 1 :]
    out = sys.stderr if options.json else sys.stdout
    job = options.status or options.logs or options.stop
    if bool(job) == bool(entrypoint):
        raise ConfigError(
            "give either a command after `--`, such as `gan-ray submit -- gan-ray sweep …`, or one "
            "of --status, --logs and --stop with a job's id."
        )
    url = _told(options.address)
    if not job:
        excludes = [*NOT_CODE, *options.exclude]
        package = pack(Path(options.working_dir), excludes)
        print(package.lines(), file=sys.stderr, flush=True)
        package.check()
        variables = read_variables(Path(options.env_file)) if options.env_file else {}
        if options.dry_run:
            if options.json:
                print(json.dumps({"files": package.files, "bytes": package.size}, indent=1))
            return 0
    client = _client(url, allow_open=options.allow_open)
    if not job:
        runtime = {
            "working_dir": str(package.folder),
            "excludes": excludes,
            "env_vars": dict(variables),
        }
        job = _asked(client.submit_job, entrypoint=shlex.join(entrypoint), runtime_env=runtime)
        print(f"job: {job}", file=sys.stderr, flush=True)
    if options.stop:
        _asked(client.stop_job, job)
        details = _ended(client, job)
    elif options.status or options.no_wait:
        details = _asked(client.get_job_info, job)
    else:
        try:
            details = _followed(client, job, out)
        except KeyboardInterrupt:
            print(
                f"gan-ray: the job goes on; `gan-ray submit --logs {job}` follows it, "
                f"--stop {job} ends it.",
                file=sys.stderr,
            )
            return INTERRUPTED
    state = {"job": job, "status": str(details.status), "exit_code": details.driver_exit_code}
    if options.json:
        print(json.dumps(state, indent=1))
    elif options.status or options.stop:
        print(state["status"])
    if options.status or options.stop or options.no_wait:
        return 0
    return exit_code(state, details.message or "")


def pack(folder: Path, excludes: Sequence[str]) -> Package:
    """List what Ray uploads of a folder: by Ray's own walk, so that nothing differs.

    Raises:
        ConfigError: there is no such folder.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise ConfigError(f"--working-dir '{folder}' is no folder: give the one with the code.")
    from ray._private import ray_constants
    from ray._private.runtime_env import packaging

    files: list[tuple[str, int]] = []

    def note(path: Path) -> None:
        if path.is_file():
            files.append((str(path.relative_to(folder)), path.stat().st_size))

    packaging.default_logger.setLevel(logging.WARNING)  # it names ignore files at every walk
    patterns = [*ray_constants.get_runtime_env_default_excludes(), *excludes]
    packaging._dir_travel(
        folder,
        [packaging._get_excludes(folder, patterns)],
        note,
        include_gitignore=os.environ.get(ray_constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE) != "1",
    )
    files.sort(key=lambda file: (-file[1], file[0]))
    return Package(folder, tuple(files), packaging.GCS_STORAGE_MAX_SIZE)


def read_variables(path: Path) -> dict[str, str]:
    """Read NAME=VALUE lines; blank lines and those that begin with # are passed over.

    Raises:
        ConfigError: a line is neither, or the file cannot be read; values are never shown.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--env-file '{path}' cannot be read: {error}.") from None
    found = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.removeprefix("export ").partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise ConfigError(f"{path}, line {number}: write NAME=VALUE, a comment or nothing.")
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        found[name] = value[1:-1] if quoted else value
    return found


def exit_code(state: Mapping[str, Any], message: str) -> int:
    """Give the code of the job's command; 128 + n for one that signal n ended, as shells do.

    Raises:
        CheckFailed: the job was stopped.
        ClusterError: its command never ran.
    """
    if state["status"] == "STOPPED":
        raise CheckFailed(f"job {state['job']} was stopped.")
    code = 0 if state["status"] == "SUCCEEDED" else state["exit_code"]
    if code is None:
        raise ClusterError(
            f"job {state['job']} did not run: {message} Look at it in the dashboard, and check the "
            "cluster with `gan-ray doctor`."
        )
    return int(code) if code >= 0 else 128 - int(code)


def _declare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    address = os.environ.get("RAY_API_SERVER_ADDRESS", ADDRESS)
    add("--address", default=address, metavar="URL", help=f"the dashboard's; default {ADDRESS}")
    add("--working-dir", default=".", metavar="DIR", help="folder with the code; is uploaded")
    add("--exclude", action="append", default=[], metavar="PATTERN", help="as in a .gitignore")
    add("--env-file", default="", metavar="FILE", help="NAME=VALUE lines for the job")
    add("--dry-run", action="store_true", help="show what would be uploaded, and stop")
    add("--no-wait", action="store_true", help="do not follow the job to its end")
    add("--allow-open", action="store_true", help="even to a cluster that asks for no token")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--status", default="", metavar="JOB", help="print a job's status")
    one.add_argument("--logs", default="", metavar="JOB", help="follow a job to its end")
    one.add_argument("--stop", default="", metavar="JOB", help="stop a job")
    parser.usage = "gan-ray submit [options] -- COMMAND …"
    parser.epilog = (
        "The exit code is that of COMMAND. The token is that of RAY_AUTH_TOKEN or "
        "RAY_AUTH_TOKEN_PATH. Left out of the package: what .gitignore and .rayignore name, "
        "/data and /runs."
    )


def _told(address: str) -> str:
    """Tell Ray, which reads its environment when imported, of address and token; gives the URL."""
    url = (address if "://" in address else f"http://{address}").rstrip("/")
    kept = (Path.home() / ".ray" / "auth_token").exists()
    known = kept or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    os.environ.setdefault("RAY_AUTH_MODE", "token" if known else "disabled")
    os.environ["RAY_API_SERVER_ADDRESS"] = url  # else RAY_ADDRESS wins over the argument
    return url


def _client(url: str, *, allow_open: bool) -> Any:
    off_loopback = not is_loopback(urlsplit(url).hostname or "")
    if not allow_open and off_loopback and status_without_token(f"{url}/api/jobs/") == 200:
        raise ClusterError(
            f"{url} takes jobs from anyone, without a token: start the cluster with "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or add --allow-open."
        )
    from ray.job_submission import JobSubmissionClient

    return _asked(JobSubmissionClient, url)


def _asked(request: Any, *arguments: Any, **named: Any) -> Any:
    """Give the answer of the Jobs server.

    Raises:
        ClusterError: there is none, or it is a refusal.
    """
    import ray.exceptions

    try:
        return request(*arguments, **named)
    except (OSError, RuntimeError, ray.exceptions.RayError) as error:
        raise ClusterError(
            f"the Jobs server at {os.environ['RAY_API_SERVER_ADDRESS']} does not do it: "
            f"{str(error).strip()} Check --address and RAY_AUTH_TOKEN; `gan-ray doctor` looks at "
            "the cluster."
        ) from None


def _followed(client: Any, job: str, out: TextIO) -> Any:
    """Print the job's log until its end."""

    async def tail() -> None:
        async for text in client.tail_job_logs(job):
            print(text, end="", file=out, flush=True)

    _asked(lambda: asyncio.run(tail()))
    return _ended(client, job)


def _ended(client: Any, job: str) -> Any:
    while not (details := _asked(client.get_job_info, job)).status.is_terminal():
        time.sleep(0.5)
    return details
