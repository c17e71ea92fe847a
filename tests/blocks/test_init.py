import pytest
import torch
from torch import nn

from gan_ray.blocks.init import init_dcgan_, init_glorot_, init_residual_


def filled(layer: nn.Module, init) -> nn.Module:
    torch.manual_seed(0)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, 7.0)
    return layer.apply(init)


def assert_uniform(weight: torch.Tensor, variance: float) -> None:
    """A uniform distribution of variance v fills [-sqrt(3 v), sqrt(3 v)]."""
    edge = (3 * variance) ** 0.5
    assert weight.var().item() == pytest.approx(variance, rel=0.05)
    assert 0.99 * edge < weight.abs().max().item() <= edge


# Fans of a k x k convolution: channels * k * k.
FANS = [
    (nn.Conv2d(32, 64, 3), (32 + 64) * 9),
    (nn.Conv2d(64, 96, 1), 64 + 96),
    (nn.Linear(80, 120), 80 + 120),
]


@pytest.mark.parametrize(("layer", "fans"), FANS)
def test_glorot_has_variance_two_over_the_fans(layer, fans):
    layer = filled(layer, init_glorot_)
    assert_uniform(layer.weight, 2 / fans)
    assert not layer.bias.any()


@pytest.mark.parametrize(("layer", "fans"), FANS)
def test_residual_init_doubles_the_variance_of_k_by_k_convolutions_only(layer, fans):
    layer = filled(layer, init_residual_)
    wide = isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
    assert_uniform(layer.weight, (4 if wide else 2) / fans)
    assert not layer.bias.any()


@pytest.mark.parametrize(
    ("layer", "mean"),
    [
        (nn.Conv2d(32, 32, 4), 0),
        (nn.ConvTranspose2d(32, 32, 4), 0),
        (nn.Linear(100, 100), 0),
        (nn.BatchNorm2d(20_000), 1),
    ],
)
def test_dcgan_init_draws_a_normal_of_deviation_two_hundredths(layer, mean):
    layer = filled(layer, init_dcgan_)
    assert layer.weight.mean().item() == pytest.approx(mean, abs=1e-3)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert not layer.bias.any()


@pytest.mark.parametrize("init", [init_dcgan_, init_glorot_, init_residual_])
def test_layers_without_affine_parameters_or_bias_are_accepted(init):
    nn.Sequential(
        nn.Conv2d(2, 2, 3, bias=False), nn.BatchNorm2d(2, affine=False), nn.GroupNorm(1, 2)
    ).apply(init)


def test_group_norm_keeps_its_unit_scale():
    assert filled(nn.Sequential(nn.GroupNorm(1, 4)), init_residual_)[0].weight.eq(7).all()


def test_same_seed_gives_the_same_weights():
    first, second = (filled(nn.Conv2d(3, 4, 3), init_dcgan_).weight for _ in range(2))
    assert torch.equal(first, second)
