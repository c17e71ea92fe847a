import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from gan_ray.blocks.patch import HalvingConv2d, PatchDiscriminator
from gan_ray.blocks.rectifier import Rectifier


# Published sizes (design, section 1.1; the two narrower ones in millions).
@pytest.mark.parametrize(("channels", "parameters"), [(3, 44_721_088), (1, 44_719_040)])
def test_published_sizes(channels, parameters):
    with torch.device("meta"):
        critic = PatchDiscriminator(channels)
    assert sum(p.numel() for p in critic.parameters()) == parameters


@pytest.mark.parametrize(("max_width", "millions"), [(1024, 27.9), (512, 11.1)])
def test_a_cap_makes_it_smaller(max_width, millions):
    with torch.device("meta"):
        critic = PatchDiscriminator(1, max_width=max_width)
    assert round(sum(p.numel() for p in critic.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize(("size", "side"), [(64, 1), (128, 2), (192, 3), (256, 4)])
def test_six_layers_give_the_published_map(size, side):
    critic = PatchDiscriminator(1, width=2)
    assert critic(torch.randn(2, 1, size, size)).shape == (2, 1, side, side)


def test_it_has_no_normalisation_and_judges_each_image_alone():
    torch.manual_seed(0)
    critic = PatchDiscriminator(1, width=2, layers=3)
    images = torch.randn(4, 1, 16, 16)
    kinds = {type(layer) for layer in critic.layers}
    assert kinds == {HalvingConv2d, nn.Conv2d, Rectifier}
    torch.testing.assert_close(critic(images)[2:3], critic(images[2:3]))


@pytest.mark.parametrize("size", [2, 4, 7, 8, 10])
def test_the_matrix_product_is_the_convolution(size):
    torch.manual_seed(0)
    layer = HalvingConv2d(3, 5).double()
    maps = torch.randn(2, 3, size, size, dtype=torch.float64)
    plain = conv2d(maps, layer.weight, layer.bias, stride=2, padding=1)
    torch.testing.assert_close(layer(maps), plain)


def test_the_matrix_product_can_be_differentiated_twice():
    torch.manual_seed(0)
    layer = HalvingConv2d(1, 2).double()
    maps = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: layer(x).square(), maps)
