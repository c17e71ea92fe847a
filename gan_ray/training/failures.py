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
