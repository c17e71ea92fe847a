"""A tiny detector of our own, so that scoring is tested without any architecture."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import nn

from gan_ray.config import Optimizer, config
from gan_ray.detector import Detector, Evidence, ImageSpec, Stage, Step


@config
class Weights:
    image: float = 1.0


@config
class Settings:
    weights: Weights = Weights()


class Toy(Detector):
    """Reconstructs every image as the mean image; convolutions with batch norm make features."""

    name = "toy"
    title = "mean image"
    Config = Settings
    score = "residual"
    offers = frozenset({"reconstruction", "features.critic", "latents.code"})
    infers = ("mean", "critic")
    presets = MappingProxyType({"tiny": {}})

    def __init__(self, config: Settings, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.networks["mean"] = nn.ParameterList(
            [nn.Parameter(torch.zeros(image.channels, image.size, image.size))]
        )
        self.networks["critic"] = nn.Sequential(
            nn.Conv2d(image.channels, 8, 4, 2, 1),
            nn.BatchNorm2d(8),
            nn.LeakyReLU(0.2),
            nn.Conv2d(8, 8, 3, 1, 1),
        )

    def stages(self):
        return ()

    def evidence(self, images, classes=None):
        reconstruction = self.networks["mean"][0].expand_as(images)
        features = self.networks["critic"](images), self.networks["critic"](reconstruction)
        return Evidence(
            reconstruction=reconstruction,
            features={"critic": features},
            latents={"code": (features[0].mean((2, 3)), features[1].mean((2, 3)))},
        )


class Blind(Toy):
    """The same without a reconstruction."""

    name = "blind"
    score = "latent"
    offers = frozenset({"latents.code"})

    def evidence(self, images, classes=None):
        return Evidence(latents=super().evidence(images).latents)


class TwoHeads(Toy):
    """The same with one feature of the whole image and one of each pixel, as U-Net critics have."""

    name = "two-heads"
    score = "scaled_features"
    offers = frozenset({"reconstruction", "features.global", "features.pixel"})
    infers = ("mean", "critic", "pixel")

    def __init__(self, config: Settings, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.networks["pixel"] = nn.Conv2d(image.channels, 3, 3, padding=1)

    def stages(self):
        step = Step("mean", ("mean",), self._distance, Optimizer(lr=0.1))
        return (Stage("mean", (step,)),)

    def _distance(self, batch):
        return {"image": (batch["normal"] - self.networks["mean"][0]).square().mean()}

    def evidence(self, images, classes=None):
        seen = super().evidence(images)
        pair = images, seen.reconstruction
        features = {
            "pixel": tuple(map(self.networks["pixel"], pair)),
            "global": seen.latents["code"],
        }
        return Evidence(reconstruction=seen.reconstruction, features=features)


def toy(kind=Toy, *, size=16, channels=1, seed=0):
    """Build it with random weights and with batch-norm statistics that are not neutral."""
    torch.manual_seed(seed)
    detector = kind(Settings(), ImageSpec(size=size, channels=channels))
    with torch.no_grad():
        detector.networks["mean"][0].uniform_(-0.5, 0.5)
        detector.networks["critic"][1].running_mean.uniform_(-0.5, 0.5)
        detector.networks["critic"][1].running_var.uniform_(0.5, 2.0)
    return detector
