"""Golden values of the two sides of the game, worked by hand."""

import math

import pytest
import torch

from gan_ray.losses import adversarial, reconstruction

REAL, FAKE = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 1.5, -3.0, 1.0])


def test_wasserstein_losses_are_differences_of_means():
    assert adversarial.critic_loss(REAL, FAKE).item() == pytest.approx(0.0 - 0.5)
    assert adversarial.generator_loss(FAKE).item() == pytest.approx(0.0)
    assert adversarial.generator_loss(REAL).item() == pytest.approx(-0.5)


def test_discriminator_pays_the_log_of_both_halves():
    # -log s(a) and -log(1 - s(a)) with s(a) = 1 / (1 + e^-a), written out.
    real = -(math.log(1 / (1 + math.exp(-2.0))) + math.log(1 / (1 + math.exp(1.0)))) / 2
    fake = -sum(math.log(1 - 1 / (1 + math.exp(-a))) for a in (0.5, 1.5, -3.0, 1.0)) / 4
    assert adversarial.real_or_fake(REAL, FAKE).item() == pytest.approx(real + fake, rel=1e-6)


def test_generator_does_not_saturate():
    wanted = -sum(math.log(1 / (1 + math.exp(-a))) for a in (0.5, 1.5, -3.0, 1.0)) / 4
    assert adversarial.judged_real(FAKE).item() == pytest.approx(wanted, rel=1e-6)
    lost = torch.tensor([-30.0], requires_grad=True)
    adversarial.judged_real(lost).backward()
    assert lost.grad.item() == pytest.approx(-1.0), "the minimax form would give almost nothing"


def test_means_of_bfloat16_are_taken_in_float32():
    values = torch.full((1000,), 1.0).bfloat16()
    values[0] = 4.0
    assert adversarial.generator_loss(values).item() == pytest.approx(-1.003, abs=1e-4)
    assert adversarial.generator_loss(values.double()).dtype == torch.float64


def test_distances_are_means_over_all_elements():
    image, output = torch.tensor([[0.0, 1.0], [2.0, -1.0]]), torch.tensor([[1.0, 1.0], [0.0, 2.0]])
    assert reconstruction.absolute(image, output).item() == pytest.approx((1 + 0 + 2 + 3) / 4)
    assert reconstruction.squared(image, output).item() == pytest.approx((1 + 0 + 4 + 9) / 4)
