"""Evidence of some images, kept: any number of scores for one look through the networks."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from gan_ray.config import ScoreConfig
from gan_ray.data.sources import Split
from gan_ray.detector import Detector, Evidence
from gan_ray.scoring.scales import scales_of
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import Score, Scored, make_score, settings_read


class KeptEvidence:
    """What a detector saw of N images, on the host: the images, and all that it offers of them."""

    def __init__(
        self, detector: Detector, split: Split, *, device: torch.device | str = "cpu"
    ) -> None:
        """Look at the images of `split`, as `Scorer` does."""
        keeper = _Keeper()
        scorer = Scorer(detector, keeper, device=device)
        scorer.score_images(split.images, classes=split.classes)
        self._seen = keeper.seen

    def scores(self, score: Score) -> np.ndarray:
        """Give the scores float32 [N] that a `Scorer` would give."""
        return _host([scored.score for scored in self._scored(score)])

    def parts(self, score: Score) -> dict[str, np.ndarray]:
        """Give the parts of the score, float32 [N] each, by name."""
        scored = self._scored(score)
        return {name: _host([one.parts[name] for one in scored]) for name in scored[0].parts}

    def _scored(self, score: Score) -> list[Scored]:
        with torch.no_grad():
            return [score(images, evidence) for images, evidence in self._seen]


def kept_score(config: ScoreConfig, detector: Detector, normals: KeptEvidence) -> Score:
    """Make the score that `config` names, scaled by held-out normals as `fit_scales` does.

    Raises:
        ConfigError: see `make_score`.
    """
    if "scales" in settings_read(config, detector):
        unscaled = make_score(dataclasses.replace(config, scales={}), detector)
        config = dataclasses.replace(config, scales=scales_of(normals.parts(unscaled)))
    return make_score(config, detector)


class _Keeper:
    """A score that keeps what it is shown and says nothing of it."""

    needs: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Evidence]] = []

    def __call__(self, images: Tensor, evidence: Evidence) -> Scored:
        self.seen.append((images.cpu(), _to_host(evidence)))
        return Scored(images.new_zeros(len(images)))


def _to_host(evidence: Evidence) -> Evidence:
    return Evidence(
        reconstruction=None if evidence.reconstruction is None else evidence.reconstruction.cpu(),
        features={name: (a.cpu(), b.cpu()) for name, (a, b) in evidence.features.items()},
        latents={name: (a.cpu(), b.cpu()) for name, (a, b) in evidence.latents.items()},
        logits={name: logit.cpu() for name, logit in evidence.logits.items()},
        mask=None if evidence.mask is None else evidence.mask.cpu(),
    )


def _host(batches: list[Tensor]) -> np.ndarray:
    array: np.ndarray = torch.cat(batches).float().numpy()
    return array
