"""How much memory a training takes, and what is said when none is left."""

from __future__ import annotations

import gc
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from gan_ray.errors import OutOfMemoryError
from gan_ray.training import distributed

GIB = 2**30

_SIGNS = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "bad_alloc")
"""What torch's allocators say; only CUDA's has an exception of its own."""

T = TypeVar("T")


def peak_bytes(device: torch.device) -> int:
    """Give the most bytes held so far: by torch on a GPU, by the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak(device: torch.device) -> None:
    """Let the next peak of a GPU be that of what is to come."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def free_bytes(device: torch.device) -> int | None:
    """Give the bytes that can still be had; None where the system does not tell.

    On a CPU the least of what the machine has, what the container's limit leaves, and what the
    process's own limit of address space leaves.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        free.append(max(0, limit - pages * resource.getpagesize()))
    group = Path("/sys/fs/cgroup")
    try:
        most, held = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        free.append(max(0, most - held))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        pass
    return min(free, default=None)


def ran_out(error: BaseException) -> bool:
    """Tell whether an allocator had nothing left."""
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or (isinstance(error, RuntimeError) and any(s in str(error) for s in _SIGNS))


@dataclass(frozen=True)
class Shortage:
    """What was seen on the device at the moment when memory ran out."""

    device: torch.device
    peak: int
    """Bytes."""
    free: int | None
    """Bytes."""

    def error(self, doing: str, remedy: str) -> OutOfMemoryError:
        """Give the error that names rank, node, what was being done, the peak and the remedy."""
        place = socket.gethostname() + (f", {self.device}" if self.device.type != "cpu" else "")
        free = "" if self.free is None else f", {self.free / GIB:.2f} GiB were free"
        return OutOfMemoryError(
            f"out of memory on rank {distributed.rank()} of {distributed.world_size()} (node "
            f"{place}) {doing}: peak {self.peak / GIB:.2f} GiB{free}. {remedy}"
        )


def attempt(
    work: Callable[[], T],
    device: torch.device,
    otherwise: Callable[[Shortage], OutOfMemoryError],
) -> T:
    """Do `work`; when memory runs out, let go of all that it held and raise what `otherwise` gives.

    Raises:
        OutOfMemoryError: memory ran out.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        seen = Shortage(device, peak_bytes(device), free_bytes(device))
    # Out of the handler: the traceback, and with it every tensor of the failed work, is gone.
    release(device)
    raise otherwise(seen)


def release(device: torch.device) -> None:
    """Give back what nobody refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def largest_that_fits(work: Callable[[int], object], rows: int, device: torch.device) -> int | None:
    """Halve `rows` until `work(rows)` fits; None when not even one row does.

    An estimate: what fits now may not at another moment, and nothing between halves is tried.
    """
    while rows > 1:
        rows //= 2
        try:
            work(rows)
        except Exception as error:
            # Other faults come of so few rows, such as batch norm of a single one.
            if not ran_out(error):
                return None
        else:
            return rows
        release(device)
    return None


def smaller_batch(fits: int | None, rows: int, *, batch: int, accumulate: int, parts: bool) -> str:
    """Say which settings make a step fit that did not with `rows` images at a time.

    `fits` images did; `batch` and `accumulate` are the settings now; `parts` tells whether the
    losses allow a batch to be cut into parts.
    """
    if fits is None:
        return (
            f"{rows} images at a time did not fit, nor did any smaller number that was tried: "
            "lower --data.image-size or the networks' sizes, or take a device with more memory."
        )
    cut = next(k for k in range(1, rows + 1) if rows % k == 0 and rows // k <= fits)
    keep = f", or --train.accumulate {accumulate * cut}, which keeps the batch of {batch}"
    return (
        f"{rows} images at a time did not fit; tried once more, {fits} did, an estimate with "
        f"nothing to spare: set --train.batch-size {batch // rows * fits}{keep if parts else ''} "
        "(another experiment: another --out, or --fresh)."
    )
