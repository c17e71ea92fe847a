"""AUROC of one MNIST digit against the rest, every normal-only system at about 5 CPU-minutes a run.

`python -m benchmarks.one_class ROOT OUT [SYSTEM ...] [--digits 1 4 8]`, ROOT the folder of the idx
files. Widths were chosen for this budget and images for the rate, never for a test figure.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.trained import Case, line, run_case
from gan_ray.config import DataConfig
from gan_ray.data.idx import read_idx

METRICS = ("image_auroc", "image_ap")
SUBSET = 1000
"""Test images for AnoGAN, whose score is a search."""


def cases(subset: Path) -> dict[str, Case]:
    """Give the systems with their budgets in images."""

    def case(name: str, images: int, train: Mapping[str, Any] = {}, **model: Any) -> Case:
        changes = {"model": model, "train": {"images": images, **train}}
        beside = name == "f-anogan"  # the trivial detectors are the same for every system
        return Case(name, name, changes=changes, checkpoints=("last",), baselines=beside)

    return {
        "anogan": Case(
            "anogan",
            "anogan",
            changes={
                "model": {"width": 16},
                "data": {"holdout": 0.05},
                "train": {"images": 150_000, "report_every": 150_000},
            },
            checkpoints=("last",),
            test={"root": str(subset)},
            baselines=False,
        ),
        "f-anogan": case("f-anogan", 60_000, width=16),
        "alad": case("alad", 48_000),
        # Both checkpoints: a refiner that trains for long denoises everything.
        "alocc": dataclasses.replace(
            case("alocc", 150_000, width=16), checkpoints=("last", "best")
        ),
        "ganomaly": case("ganomaly", 54_400),
        "f-unetgan": case("f-unetgan", 33_600, {"batch_size": 16}, width=8, n_critic=2),
        "ra-ccgan": case("ra-ccgan", 45_000, {"channels_last": True}, width=16),
    }


def write_subset(root: Path, out: Path) -> Path:
    """Write an idx folder with the training files of `root` and 1,000 of its test images."""
    out.mkdir(parents=True, exist_ok=True)
    chosen: np.ndarray | None = None
    for source in sorted(root.glob("*ubyte.gz")):
        data = source.read_bytes()
        if source.name.startswith("t10k"):
            values = read_idx(data, source.name, 3 if "idx3" in source.name else 1)
            if chosen is None:
                rows = np.random.default_rng(0).permutation(len(values))[:SUBSET]
                chosen = np.sort(rows)
            header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, SUBSET,
                                 *values.shape[1:])  # fmt: skip
            data = gzip.compress(header + values[chosen].tobytes(), mtime=0)
        (out / source.name).write_bytes(data)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("systems", nargs="*")
    parser.add_argument("--digits", type=int, nargs="+", default=[1, 4, 8])
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = cases(write_subset(options.root, options.out / "subset"))
    print("| digit: system | images, CPU-s of training | AUROC | AP |")
    for digit in options.digits:
        data = DataConfig(root=str(options.root), source="idx", normal_class=digit, image_size=32)
        for name in options.systems or known:
            out = options.out / f"{digit}-{name}"
            found = run_case(known[name], data, {}, out)
            images = known[name].changes["train"]["images"]
            for model in [*found["models"], *found["baselines"]]:
                budget = f"{images:,}, {found['cpu_seconds']:.0f}"
                label = f"{digit}: {model['name']}"
                print(
                    line(label, model["metrics"], ("image_auroc", "image_ap"), budget), flush=True
                )


if __name__ == "__main__":
    main()
