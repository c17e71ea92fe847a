"""Two gloo processes on halves of a global batch equal one process on the whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from gan_ray import experiment
from gan_ray.config import Optimizer, TrainConfig, config
from gan_ray.detector import Batch, Detector, Evidence, ImageSpec, Stage, Step
from gan_ray.losses.adversarial import critic_loss, generator_loss
from gan_ray.losses.penalties import gradient_penalty
from gan_ray.training import distributed
from gan_ray.training.loop import fit
from tests.conformance import SmoothSource, source_of, tiny
from tests.training.ranks import on_two_ranks

STEPS = 50


@config
class Weights:
    discrimination: float = 1.0
    gradient_penalty: float = 10.0
    adversarial: float = 1.0
    spread: float = 1.0


@config
class NormConfig:
    weights: Weights = Weights()
    norm: str = "instance"
    clip: float = 0.0


class NormGame(Detector):
    """A small WGAN-GP whose generator and critic use the norm under test.

    `spread` is a squared mean over the batch: not a mean over samples.
    """

    Config = NormConfig

    def __init__(self, settings: NormConfig, image: ImageSpec) -> None:
        super().__init__(settings, image)

        def norm(channels: int) -> nn.Module:
            if settings.norm == "instance":
                return nn.InstanceNorm2d(channels, affine=True)
            return nn.GroupNorm(2, channels)

        def network(inside: int, outside: int) -> nn.Module:
            # No bias before the norm: it cancels, its gradient is rounding noise, and Adam scales
            # noise to full steps, differently on every summation order.
            return nn.Sequential(
                nn.Conv2d(inside, 4, 3, padding=1, bias=False), norm(4), nn.LeakyReLU(0.2),
                nn.Conv2d(4, outside, 3, padding=1),
            )  # fmt: skip

        self.networks["generator"] = network(1, 1)
        self.networks["critic"] = network(1, 1)

    def stages(self) -> tuple[Stage, ...]:
        adam = Optimizer(lr=1e-3)
        critic = Step(
            "critic", ("critic",), self._critic, adam,
            second_order=True, clip_weights=self.config.clip,
        )  # fmt: skip
        return (Stage("gan", (critic, Step("generator", ("generator",), self._generator, adam))),)

    def _critic(self, batch: Batch):
        real, critic = batch["normal"], self.networks["critic"]
        fake = self.networks["generator"](batch.gaussian(*real.shape[1:])).detach()
        mix = batch.uniform()
        return {
            "discrimination": critic_loss(critic(real), critic(fake)),
            "gradient_penalty": gradient_penalty(critic, real, fake, mix),
        }

    def _generator(self, batch: Batch):
        fake = self.networks["generator"](batch.gaussian(*batch["normal"].shape[1:]))
        spread = batch.mean_over_ranks(fake.mean()).square()
        return {"adversarial": generator_loss(self.networks["critic"](fake)), "spread": spread}

    def evidence(self, images, classes=None) -> Evidence:
        return Evidence()


SETTINGS = {
    "instance": NormConfig(norm="instance"),
    "group": NormConfig(norm="group"),
    "clipped": NormConfig(clip=0.2),
}


def game(which: str):
    torch.manual_seed(0)
    train = TrainConfig(images=8 * STEPS, batch_size=8, precision="fp64")
    source = SmoothSource(("normal",), 8, 1, torch.float64)
    return NormGame(SETTINGS[which], ImageSpec(size=8, channels=1)), source, train


def system(which: str):
    settings = tiny(which, precision="fp64")
    size = settings.train.batch_size
    train = dataclasses.replace(settings.train, images=size * STEPS)
    return experiment.build_detector(settings), source_of(settings, torch.float64), train


MAKE = {**dict.fromkeys(SETTINGS, game), **dict.fromkeys(("brainomaly", "healthygan"), system)}


def run(which: str) -> dict[str, torch.Tensor]:
    detector, source, train = MAKE[which](which)
    for report in fit(detector, source, train, seed=1):
        distributed.assert_in_sync(report.state.detector)
        metrics = report.metrics
    figures = {f"metric/{k}": torch.tensor(v, dtype=torch.float64) for k, v in metrics.items()}
    return {k: v.contiguous() for k, v in detector.state_dict().items()} | figures


def _train(rank: int, which: str, folder: str) -> None:
    result = run(which)
    if rank == 0:
        safetensors.torch.save_file(result, f"{folder}/two.safetensors")


@pytest.mark.parametrize("which", MAKE)
def test_two_ranks_equal_one_process_on_the_same_global_batch(which: str, tmp_path: Path):
    on_two_ranks(_train, tmp_path, which, str(tmp_path))
    two = safetensors.torch.load_file(tmp_path / "two.safetensors")
    one = run(which)
    detector, *_ = MAKE[which](which)
    start = detector.double().state_dict()
    assert max((one[k] - v).abs().max() for k, v in start.items() if v.is_floating_point()) > 1e-3
    for key, value in one.items():
        assert (two[key] - value).abs().max() <= 1e-9, key


def _disagree(rank: int, folder: str) -> None:
    network = nn.Linear(2, 2)
    torch.nn.init.constant_(network.weight, 1.0 + rank * 1e-7)
    try:
        distributed.assert_in_sync(network)
    except AssertionError as error:
        Path(folder, f"caught{rank}").write_text(str(error))
    distributed.broadcast_(network)
    distributed.assert_in_sync(network)


def test_ranks_that_disagree_are_found(tmp_path: Path):
    on_two_ranks(_disagree, tmp_path, str(tmp_path))
    assert [(tmp_path / f"caught{r}").read_text() for r in range(2)] == [
        "ranks disagree on 'weight'"
    ] * 2


class Derived(nn.BatchNorm1d):
    """A network with both kinds of buffers."""

    def __init__(self) -> None:
        super().__init__(2)
        self.register_buffer("angles", torch.full((2,), 0.1), persistent=False)


def _average(rank: int, folder: str) -> None:
    network = Derived()
    network.running_mean += rank
    network.angles += rank  # no such thing happens; it shows who is left alone
    distributed.average_buffers_(network)
    Path(folder, f"{rank}").write_text(f"{network.running_mean.tolist()} {network.angles.tolist()}")


def test_running_statistics_are_averaged_and_derived_values_left_alone(tmp_path: Path):
    on_two_ranks(_average, tmp_path, str(tmp_path))
    angles = [torch.full((2,), 0.1).add(rank).tolist() for rank in range(2)]
    assert [(tmp_path / f"{rank}").read_text() for rank in range(2)] == [
        f"[0.5, 0.5] {values}" for values in angles
    ]
