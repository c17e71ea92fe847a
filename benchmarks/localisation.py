"""Pixel figures of f-UNetGAN's four critics and f-AnoGAN at one budget, on a set with masks.

`python -m benchmarks.localisation ROOT OUT [CASE ...]`, ROOT the folder or zip of brain_lgg_flair.
All see the same number of images at the same width; the tables tell what that cost each of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.trained import Case, line, run_case
from gan_ray.config import DataConfig

METRICS = ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro_30")
IMAGES = 8_000
_VARIANTS = ("residual_attention", "residual", "convolutional_attention", "convolutional")
_COMMON = {
    "model": {"width": 8, "n_critic": 2},
    "train": {"images": IMAGES, "batch_size": 16},
}
CASES = [
    Case("f-anogan", "f-anogan", changes=_COMMON, checkpoints=("last",)),
    *(
        Case(f"f-unetgan {variant}", "f-unetgan", variant, _COMMON, ("last",), baselines=False)
        for variant in _VARIANTS
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("out")
    parser.add_argument("cases", nargs="*", help="labels, all when left out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = DataConfig(root=options.root, manifest="manifest.csv", image_size=64)
    for case in CASES:
        if options.cases and case.label not in options.cases:
            continue
        found = run_case(case, data, {}, Path(options.out) / case.label.replace(" ", "-"))
        budget = f"{IMAGES:,}, {found['cpu_seconds']:.0f}"
        for model in [*found["models"], *found["baselines"]]:
            print(line(model["name"], model["metrics"], METRICS, budget), flush=True)


if __name__ == "__main__":
    main()
