"""SAGAN's positional encodings against controls without them: the comparison nobody published.

`python -m benchmarks.encodings ROOT OUT [--seeds 0 1 2] [--images N] [VARIANT ...]` trains each
variant from each seed at one budget, chooses checkpoints by AUCp, and prints for each variant the
mean AUROC over seeds, and its paired difference from its control with a 95 % interval over patients
and seeds. It begins with what the public form of the codes does to an image: nothing. Resumable.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from benchmarks.trained import Case, run_case
from gan_ray.blocks.spatial_attention import PositionConditioning
from gan_ray.blocks.windows import window_partition, window_reverse
from gan_ray.config import DataConfig
from gan_ray.experiment import build_detector, make
from gan_ray.scoring.intervals import paired
from gan_ray.scoring.metrics import auroc

CONTROLS = {
    "reference": "control_patches",
    "binary": "control_patches",
    "custom_sinusoidal": "control_patches",
    "custom_learned": "control_patches",
    "control_whole": "control_patches",
    "control_attention": "control_whole",
    "custom_rope": "control_attention",
    "custom_alibi": "control_attention",
    "custom_attention_bias": "control_attention",
    "custom_swin": "control_whole",
}
"""What each variant is compared with: it lacks the encoding (or the attention) and nothing else."""
_PATCHES = [3, 2, 1, 0]


def inertness(variant: str) -> dict[str, float]:
    """Say how far an untrained generator in float64 depends on its codes.

    gradient: of a loss by the weights of the code planes, over that by the weights of the features
    beside them (norms). permutation: largest change of the output when patches change places and
    are put back, over its deviation. 0 says that the generator cannot know where a patch lies.
    """
    changes = {"model": {"patch_grid": 2}, "data": {"image_size": 64}}
    settings = make("sagan", variant=variant, preset="tiny", changes=changes)
    generator = build_detector(settings).double().eval().networks["generator"]
    image = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    output = generator(image)
    output.square().mean().backward()
    weights = [
        cast(torch.nn.Conv2d, module.mix[0]).weight
        for module in generator.modules()
        if isinstance(module, PositionConditioning)
    ]
    slopes = [(weight.grad, len(weight)) for weight in weights if weight.grad is not None]
    of_codes = torch.stack([slope[:, own:].norm() for slope, own in slopes]).norm()
    of_features = torch.stack([slope[:, :own].norm() for slope, own in slopes]).norm()
    with torch.no_grad():
        moved = window_reverse(window_partition(image, 2)[_PATCHES], 2)
        back = window_reverse(window_partition(generator(moved), 2)[_PATCHES], 2)
        change = (back - output).abs().max() / output.std()
    return {"gradient": float(of_codes / of_features), "permutation": float(change)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("out", type=Path)
    parser.add_argument("variants", nargs="*", help="all when left out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=7_680)
    parser.add_argument("--width", type=int, default=8)
    options = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    for variant in ("reference", ""):
        print(f"codes of {variant or 'sagan'}: {json.dumps(inertness(variant))}", flush=True)
    data = DataConfig(root=options.root, manifest="manifest.csv", image_size=64)
    changes = {
        "model": {
            "width": options.width,
            "critic": {"width": 16, "layers": 4},
            "critic_optimizer": {"lr": 2e-4},
            "generator_optimizer": {"lr": 2e-4},
        },
        "train": {"images": options.images, "batch_size": 16},
    }
    scores: dict[str, list[np.ndarray]] = {}
    known: dict[str, Any] = {}
    for variant in options.variants or [*CONTROLS, "control_patches"]:
        for seed in options.seeds:
            own = {**changes, "seed": seed}
            label = f"{variant}-{seed}"
            case = Case(
                label, "sagan", "" if variant == "binary" else variant, own, ("best",), False
            )
            found = run_case(case, data, {}, options.out / label)
            known = found["models"][0]["scores"]
            scores.setdefault(variant, []).append(np.array(known["values"]))
            seconds = found["cpu_seconds"]
            print(f"{label}: AUROC {auroc(np.array(known['labels']), scores[variant][-1]):.3f}, "
                  f"{seconds:.0f} CPU-s", flush=True)  # fmt: skip
    labels, groups = np.array(known["labels"]), np.array(known["groups"])
    print("| variant | AUROC, mean and range over seeds | against | difference | verdict |")
    for variant, trained in scores.items():
        values = [auroc(labels, one) for one in trained]
        row = f"| {variant} | {np.mean(values):.3f} ({min(values):.3f}-{max(values):.3f}) "
        control = CONTROLS.get(variant, "")
        if control not in scores:
            print(f"{row}| | | |")
            continue
        test = paired(auroc, labels, np.stack(trained), np.stack(scores[control]), groups)
        verdict = test.verdict.replace("a is", variant + " is").replace("b is", control + " is")
        print(f"{row}| {control} | {test.difference:+.3f} ({test.low:+.3f} to {test.high:+.3f}) "
              f"| {verdict} |")  # fmt: skip


if __name__ == "__main__":
    main()
