from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gan_ray.architectures.ganomaly import GANomaly, GANomalyConfig
from gan_ray.config import TrainConfig, from_dict
from gan_ray.detector import Batch, ImageSpec
from gan_ray.errors import ConfigError
from gan_ray.training.loop import fit
from gan_ray.training.state import TrainState, decode, encode
from tests.conformance import SmoothSource


def tiny(size: int = 16, channels: int = 1, **model: Any) -> GANomaly:
    torch.manual_seed(0)
    config = from_dict(GANomalyConfig, {"width": 4, "latent_size": 6, **model})
    return GANomaly(config, ImageSpec(size, channels))


def images(rows: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(rows, 1, 16, 16, generator=generator) * 2 - 1


def losses(detector: GANomaly, step: str) -> dict[str, float]:
    (stage,) = detector.stages()
    (loss,) = (known.loss for known in stage.steps if known.name == step)
    return {name: term.item() for name, term in loss(Batch({"normal": images()})).items()}


def train(detector: GANomaly, ticks: int) -> TrainState:
    source = SmoothSource(("normal",), 16, 1)
    *_, last = fit(detector, source, TrainConfig(images=8 * ticks, batch_size=8), seed=0)
    return last.state


def parameters_of(size: int, channels: int, cap: int) -> int:
    """Count by the published table: no biases, batch norm on all but the outermost stages."""
    latent, stages = 100, int(np.log2(size)) - 2
    widths = [min(64 * 2**stage, cap) for stage in range(stages)]
    pairs = list(pairwise(widths))
    down = 16 * channels * 64 + sum(16 * a * b + 2 * b for a, b in pairs)
    up = 2 * widths[-1] + sum(16 * a * b + 2 * a for a, b in pairs) + 16 * channels * 64
    code, logit = 16 * widths[-1] * latent, 16 * widths[-1]
    return 2 * (down + code) + (code + up) + (down + logit)


# Published totals in millions, without a cap and capped at 512 (design, section 3.1).
@pytest.mark.parametrize(
    ("size", "cap", "millions"),
    [(16, 0, 1.2), (32, 0, 3.9), (64, 0, 13.5), (128, 0, 49.5), (256, 0, 188.7), (256, 512, 47.1)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_published_sizes(size, cap, millions, channels):
    with torch.device("meta"):
        detector = GANomaly(GANomalyConfig(max_width=cap), ImageSpec(size, channels))
    total = sum(parameter.numel() for parameter in detector.parameters())
    assert total == parameters_of(size, channels, cap or 10**9)
    if channels == 3:
        assert round(total / 1e6, 1) == millions


@pytest.mark.parametrize("size", [8, 30, 100])
def test_a_size_it_cannot_halve_is_refused(size):
    with pytest.raises(ConfigError, match=r"--data\.image-size"):
        tiny(size)


@pytest.mark.parametrize("size", [16, 28, 32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_evidence_has_the_shapes_of_image_and_code(size, channels):
    detector = tiny(size, channels, width=2).eval()
    with torch.no_grad():
        evidence = detector.evidence(torch.rand(2, channels, size, size) * 2 - 1)
    assert evidence.reconstruction.shape == (2, channels, size, size)
    assert [code.shape for code in evidence.latents["code"]] == [(2, 6)] * 2


def test_generator_terms_are_the_published_equations():
    detector = tiny().train()
    x, networks = images(), detector.networks
    with torch.no_grad():
        z = networks["encoder"](x)
        x_hat = networks["decoder"](z)
        z_hat = networks["second_encoder"](x_hat)
        f, f_hat = (networks["discriminator"](each)[1] for each in (x, x_hat))
    assert losses(detector, "generator") == pytest.approx(
        {
            "adversarial": np.mean((f - f_hat).numpy() ** 2),
            "contextual": np.mean(np.abs((x - x_hat).numpy())),
            "latent": np.mean((z - z_hat).numpy() ** 2),
        },
        rel=1e-5,
    )


def test_discrimination_is_half_the_sum_of_both_cross_entropies():
    detector = tiny().train()
    x, networks = images(), detector.networks
    with torch.no_grad():
        x_hat = networks["decoder"](networks["encoder"](x))
        real, fake = (networks["discriminator"](each)[0].double().numpy() for each in (x, x_hat))
    real, fake = 1 / (1 + np.exp(-real)), 1 / (1 + np.exp(-fake))
    expected = -(np.log(real).mean() + np.log(1 - fake).mean()) / 2
    assert losses(detector, "discriminator") == pytest.approx({"discrimination": expected}, 1e-5)


def test_bce_is_the_cross_entropy_of_the_reconstruction_judged_as_real():
    detector = tiny(adversarial="bce").train()
    with torch.no_grad():
        _, x_hat, _ = detector._translate(images())
        logit = detector.networks["discriminator"](x_hat)[0].double().numpy()
    expected = -np.log(1 / (1 + np.exp(-logit))).mean()
    assert losses(detector, "generator")["adversarial"] == pytest.approx(expected, rel=1e-5)


def test_the_distance_of_the_codes_trains_all_three_generator_networks():
    detector = tiny().train()
    detector._generator_loss(Batch({"normal": images()}))["latent"].backward()
    for name in ("encoder", "decoder", "second_encoder"):
        for parameter in detector.networks[name].parameters():
            assert parameter.grad is not None
            assert parameter.grad.any()


def test_discriminator_steps_first_and_builds_no_generator_graph():
    detector = tiny().train()
    (stage,) = detector.stages()
    assert [step.name for step in stage.steps] == ["discriminator", "generator"]
    detector._discriminator_loss(Batch({"normal": images()}))["discrimination"].backward()
    reached = {n.split(".")[1] for n, p in detector.named_parameters() if p.grad is not None}
    assert reached == {"discriminator"}


@pytest.mark.parametrize("norm", ["instance", "group", "layer"])
def test_with_another_norm_train_and_eval_mode_agree(norm):
    detector = tiny(norm=norm)
    with torch.no_grad():
        train, evaluated = (detector.train(mode).evidence(images()) for mode in (True, False))
    assert torch.equal(train.reconstruction, evaluated.reconstruction)


def test_a_saturated_discriminator_starts_afresh_and_training_goes_on():
    def curve(max_resets: int) -> tuple[GANomaly, list[float]]:
        detector = tiny(
            discriminator_optimizer={"lr": 0.05},
            generator_optimizer={"lr": 1e-9},
            reset_below=1e-2,
            max_resets=max_resets,
        )
        settings = TrainConfig(images=8 * 60, batch_size=8, report_every=8)
        reports = fit(detector, SmoothSource(("normal",), 16, 1), settings, seed=0)
        return detector, [report.metrics["discriminator/discrimination"] for report in reports]

    def alarms(losses: list[float]) -> int:
        """Count how often a saturated discriminator is suddenly as ignorant as a new one."""
        return sum(last < 1e-2 and now > 0.5 for last, now in pairwise(losses))

    _, without = curve(0)
    detector, losses = curve(2)
    assert alarms(without) == 0
    assert alarms(losses) == detector.resets == 2
    assert losses[-1] < 0.1, "it learns again after the last fresh start"


def test_a_fresh_start_draws_weights_and_forgets_running_statistics():
    detector = train(tiny(), 3).detector
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    assert detector._reset_saturated({"discrimination": 9e-6})
    for key, value in detector.state_dict().items():
        ours = key.startswith("networks.discriminator") or key == "resets"
        assert torch.equal(before[key], value) != ours, key
    for layer in detector.networks["discriminator"].modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert not layer.running_mean.any()
            assert (layer.running_var == 1).all()
            assert layer.num_batches_tracked == 0
            assert not layer.bias.any()
            assert abs(layer.weight.mean() - 1) < 0.1
        if isinstance(layer, nn.Conv2d):
            assert 0.005 < layer.weight.std() < 0.05


@pytest.mark.parametrize("loss", [1.1e-5, 0.7, float("nan")])
def test_a_discriminator_that_still_learns_is_left_alone(loss):
    detector = tiny()
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    assert not detector._reset_saturated({"discrimination": loss})
    assert all(torch.equal(before[key], value) for key, value in detector.state_dict().items())


def test_fresh_starts_are_capped_and_the_count_survives_a_checkpoint():
    state = train(tiny(reset_below=1e9, max_resets=3), 2)
    assert state.detector.resets == 2
    assert not state.optimizers["discriminator"].state
    assert state.optimizers["generator"].state
    again = tiny(reset_below=1e9, max_resets=3)
    TrainState(again).restore(decode(encode(state)))
    assert again.resets == 2
    assert again._reset_saturated({"discrimination": 0.0})
    assert not again._reset_saturated({"discrimination": 0.0})
    assert again.resets == 3
