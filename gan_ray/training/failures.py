"""Why a training on a cluster ended, read from what Ray raises."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gan_ray.errors import OutOfMemoryError

_MONITOR = re.compile(
    r"Memory on the node \(IP: (?P<node>[^,]+), ID: \w+\) was (?P<used>[\d.]+)GB used / "
    r"(?P<limit>[\d.]+)GB limit"
)
"""What Ray's memory monitor says of the workers it ends; GB are GiB there."""


def out_of_memory(failure: BaseException) -> OutOfMemoryError | None:
    """Give the error of a training that memory ended; None when it was something else.

    A worker that could not allocate says so itself. A node whose memory is nearly full ends
    workers before that, without a word from them.
    """
    workers: Mapping[int, BaseException] = getattr(failure, "worker_failures", {})
    for error in workers.values():
        if isinstance(error, OutOfMemoryError):
            return error
    found = _MONITOR.search(str(failure))
    if found is None:
        return None
    return OutOfMemoryError(
        f"Ray ended workers on node {found['node']}, whose memory was nearly full: "
        f"{found['used']} of {found['limit']} GiB were in use, by whomever. What was trained is "
        "kept. Lower --train.workers or add nodes and give the same command; or start another "
        "run with a smaller --train.batch-size, a larger --train.accumulate or smaller images."
    )


def reason(failure: BaseException) -> str:
    """Give what went wrong in one line, without the tracebacks that Ray puts around it."""
    workers: Mapping[int, BaseException] = getattr(failure, "worker_failures", {})
    told: dict[str, list[str]] = {}
    for rank, error in sorted(workers.items()):
        told.setdefault(_last_words(error), []).append(str(rank))
    if not told:
        return _last_words(getattr(failure, "controller_failure", failure))
    return " ".join(f"[worker {', '.join(ranks)}] {words}" for words, ranks in told.items())


def _last_words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    traced = any(line.startswith("File ") for line in lines)
    return lines[-1 if traced else 0] if lines else type(error).__name__
