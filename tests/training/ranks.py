"""Two gloo processes that run the same function, as ranks of one process group."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing


def on_two_ranks(work: Callable[..., None], folder: Path, *arguments: Any) -> None:
    """Call `work(rank, *arguments)` on both; an exception on either is raised here."""
    torch.multiprocessing.spawn(_rank, (work, f"file://{folder}/meet", arguments), nprocs=2)


def _rank(rank: int, work: Callable[..., None], meet: str, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    work(rank, *arguments)
    dist.barrier()
    sys.stdout.flush()
    # Not through the interpreter's end: gloo's threads abort it now and then, after all is done.
    os._exit(0)
