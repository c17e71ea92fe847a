"""Memory that networks free stays in the process, in whichever thread they run."""

import os
import platform
import subprocess
import sys

import pytest

from gan_ray.heap import environment

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's malloc")

FAULTS = """
import resource, sys, threading
import torch
from gan_ray import heap

def faults():
    cycles = []
    for _ in range(8):  # the first ones settle the heap, now and then a later one does
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        held = [torch.ones(1 << 23) for _ in range(6)]  # 32 MiB each
        del held
        cycles.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    print(min(cycles))

if "kept" in sys.argv:
    heap.keep_freed_memory()
if "thread" in sys.argv:
    thread = threading.Thread(target=faults)
    thread.start()
    thread.join()
else:
    faults()
"""


def faults(*how, **variables):
    command, known = [sys.executable, "-c", FAULTS, *how], {**os.environ, **variables}
    return int(
        subprocess.run(command, capture_output=True, text=True, check=True, env=known).stdout
    )


def test_a_cycle_asks_the_kernel_for_nothing_it_had_before():
    assert faults("as ever") > 10_000, "6 blocks of 32 MiB are 49,152 pages"
    assert faults("kept") < 100
    assert faults("kept", "thread", **environment()) < 100


def test_the_users_own_choice_of_arenas_holds(monkeypatch):
    assert environment() == {"MALLOC_ARENA_MAX": "1"}
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert environment() == {"MALLOC_ARENA_MAX": "4"}
