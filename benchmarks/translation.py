"""The translation systems side by side at one budget, on chest films and on circuit boards.

`python -m benchmarks.translation DATA OUT [LABEL ...]`, DATA the folder with cxr_pediatric/ and
defect_pcb/. Same critic, same number of images, seed 0; checkpoints by AUCp and the last one;
trivial baselines and untrained networks beside them. Resumable; one table per set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.trained import Case, line, run_case
from gan_ray.config import DataConfig

SETS = ("cxr_pediatric", "defect_pcb")
METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap")
IMAGES = 10_240
SYSTEMS = {
    "brainomaly": "",
    "healthygan": "",
    "sagan": "",
    "sagan custom_learned": "custom_learned",
    "sagan custom_rope": "custom_rope",
}
"""Variant by label; a label begins with the system's name."""
_COMMON = {
    "model": {
        "width": 8,
        "critic": {"width": 16, "layers": 4},
        "critic_optimizer": {"lr": 2e-4},
        "generator_optimizer": {"lr": 2e-4},
    },
    "train": {"images": IMAGES, "batch_size": 16},
}
"""Narrow critics of more layers die at the published rate (docs/figures.md)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("systems", nargs="*", help="labels, all when left out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in SETS:
        data = DataConfig(
            root=str(options.data / name / f"{name}.zip"), manifest="manifest.csv", image_size=64
        )
        print(f"\n| {name} | images, CPU-s | {' | '.join(METRICS)} |", flush=True)
        for label in options.systems or SYSTEMS:
            case = Case(label, label.split()[0], SYSTEMS[label], _COMMON)
            found = run_case(case, data, {}, options.out / name / label.replace(" ", "-"))
            budget = f"{IMAGES:,}, {found['cpu_seconds']:.0f}"
            for model in [*found["models"], *found["baselines"]]:
                print(line(model["name"], model["metrics"], METRICS, budget), flush=True)


if __name__ == "__main__":
    main()
