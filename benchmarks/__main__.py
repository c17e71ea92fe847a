"""`python -m benchmarks [NAME ...]`: run benchmarks; the last line of each is one JSON object."""

from __future__ import annotations

import importlib
import json
import sys

NAMES = ("training_cycle", "inference", "metrics")


def main(chosen: list[str]) -> None:
    for name in chosen or NAMES:
        print(f"== {name}", flush=True)
        print(json.dumps({name: importlib.import_module(f"benchmarks.{name}").run()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
