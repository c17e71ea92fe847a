"""Where the time of a training cycle goes: shares of its operators, forward and backward apart.

`python -m benchmarks.training_profile [SYSTEM ...]`, the cycles of `training_cycle`, one thread.
The profiler's own cost is in the figures: read shares from it, not milliseconds.
"""

from __future__ import annotations

import sys

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.training_cycle import cycles

SYSTEMS = ("brainomaly", "sagan")
SHOWN = 14


def main(chosen: list[str]) -> None:
    torch.set_num_threads(1)
    for name in chosen or SYSTEMS:
        trained = cycles(name)
        next(trained)
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            next(trained)
        operators = profiled.key_averages()
        whole = sum(operator.self_cpu_time_total for operator in operators)
        print(f"| {name}: operator | share | calls |\n|---|---|---|")
        ordered = sorted(operators, key=lambda operator: -operator.self_cpu_time_total)
        for operator in ordered[:SHOWN]:
            share = operator.self_cpu_time_total / whole
            print(f"| `{operator.key}` | {share:.1%} | {operator.count} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
