"""A detector and its score as one graph, which other runtimes run without this project.

    image           float32 [B, C, S, S] in [-1, 1]: v / 127.5 - 1 of 8-bit pixels
    classes         int64 [B], for a conditional detector alone
    ->
    score           float32 [B], higher is more abnormal
    anomaly_map     float32 [B, 1, S, S], where the detector reconstructs
    reconstruction  float32 [B, C, S, S] in [-1, 1], likewise

B is any number from 1 on. The names are those of the endpoint.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from gan_ray.data.transforms import to_unit
from gan_ray.detector import Detector
from gan_ray.errors import ConfigError
from gan_ray.scoring.scores import Score


class ScoringGraph(nn.Module):
    """What `Scorer` does with one batch, as a module."""

    def __init__(self, detector: Detector, score: Score) -> None:
        """Take a detector in eval mode and a score that it can feed."""
        super().__init__()
        self.detector = detector
        self._score = score

    def forward(self, image: Tensor, classes: Tensor | None = None) -> dict[str, Tensor]:
        """Look at a batch; give its scores, its maps and what it would look like if normal."""
        evidence = self.detector.evidence(image, classes)
        scored = self._score(image, evidence)
        outputs = {
            "score": scored.score,
            "anomaly_map": scored.map,
            "reconstruction": evidence.reconstruction,
        }
        return {name: found.float() for name, found in outputs.items() if found is not None}


def refuse_search(detector: Detector) -> None:
    """Refuse a detector that no graph can hold.

    Raises:
        ConfigError: it searches.
    """
    if detector.searches:
        raise ConfigError(
            f"{detector.name} searches the code of each image, {detector.passes_per_image} network "
            "passes with gradients between them, and a graph holds one pass without: export it as "
            "safetensors alone (--format safetensors), or train a system with an encoder, such as "
            "f-anogan"
        )


def trace(detector: Detector, score: Score) -> ExportedProgram:
    """Give the graph of a detector and a score, with its weights; changes neither.

    It says nothing of the machine that traced it.

    Raises:
        ConfigError: the detector searches.
    """
    refuse_search(detector)
    own = copy.deepcopy(detector).to("cpu").eval().requires_grad_(False)
    spec = own.image
    pixels = np.zeros((2, spec.channels, spec.size, spec.size), np.uint8)
    batch = Dim("batch")
    example = {
        name: torch.from_numpy(values)
        for name, values in inputs(pixels, np.zeros(2, np.int64), own.conditional).items()
    }
    with torch.no_grad():
        program = torch.export.export(
            ScoringGraph(own, score),
            (),
            example,
            dynamic_shapes={name: {0: batch} for name in example},
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    program.example_inputs = None  # kept, they would be pickled
    return program


def inputs(
    images: np.ndarray, classes: np.ndarray | None, conditional: bool
) -> Mapping[str, np.ndarray]:
    """Give what a graph takes, by name, for images uint8 or uint16 [N, C, S, S]."""
    rows: dict[str, np.ndarray] = {"image": to_unit(images, "cpu").numpy()}
    if conditional and classes is not None:
        rows["classes"] = classes
    return rows
