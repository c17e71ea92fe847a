"""Features of images by a network that the user supplies: a trained system in its bundle.

Nothing is loaded that could run code. The features are those in which the system itself compares an
image with its reconstruction, such as f-AnoGAN's critic's.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from gan_ray import architectures
from gan_ray.artifacts.bundle import load_bundle
from gan_ray.artifacts.store import resolve
from gan_ray.detector import ImageSpec
from gan_ray.errors import ConfigError
from gan_ray.scoring.pace import SLOW

_CHUNK = 64


class FeatureNetwork:
    """The detector of a bundle as a map from images to features; it changes no weight."""

    def __init__(self, bundle: str, image: ImageSpec) -> None:
        """Load a bundle, given as its folder or address, for images of the kind `image`.

        Raises:
            ArtifactError: no such bundle, or it is damaged.
            ConfigError: its system has no features of an image alone, searches for them, or takes
                grey images only and these have colours.
            StorageError: its place cannot be read.
        """
        found = load_bundle(resolve(bundle))
        detector, name = found.detector, f"{found.manifest.reference} ({found.detector.name})"
        if not _offers_features(detector.name) or detector.conditional:
            able = ", ".join(filter(_offers_features, architectures.names()))
            raise ConfigError(
                f"--train.features {bundle}: {name} has no features of an image alone. Give a "
                f"bundle of one of {able}, not conditioned on a known class."
            )
        if detector.passes_per_image > SLOW:
            raise ConfigError(
                f"--train.features {bundle}: {name} searches, with {detector.passes_per_image} "
                f"network passes per image where at most {SLOW} are allowed. Give a bundle of a "
                "system with an encoder."
            )
        if image.channels > detector.image.channels:
            raise ConfigError(
                f"--train.features {bundle}: {name} takes grey images and would not see the "
                "colours of these. Give a bundle with 3 channels."
            )
        self._detector = detector

    def __call__(self, images: np.ndarray, device: torch.device | str) -> np.ndarray:
        """Give features, float32 [N, d], of images, float32 [N, C, S, S] in [-1, 1].

        They are resized to what the network takes (bilinear, antialiased), grey ones repeated for
        three channels. Of feature maps it is the mean over places.
        """
        detector = self._detector.to(device)
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        features = []
        with torch.no_grad(), exact:
            for start in range(0, len(images), _CHUNK):
                rows = torch.from_numpy(images[start : start + _CHUNK]).to(device)
                evidence = detector.evidence(_fitted(rows, detector.image))
                own, _ = next(iter(evidence.features.values()))
                features.append(own.flatten(2).mean(2) if own.ndim > 2 else own)
        return torch.cat(features).float().cpu().numpy()


def _offers_features(system: str) -> bool:
    return any(offer.startswith("features.") for offer in architectures.get(system).offers)


def _fitted(images: Tensor, spec: ImageSpec) -> Tensor:
    if images.shape[-1] != spec.size:
        images = interpolate(images, (spec.size, spec.size), mode="bilinear", antialias=True)
    return images.expand(-1, spec.channels, -1, -1)
