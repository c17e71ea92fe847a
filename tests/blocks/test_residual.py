import pytest
import torch
from torch.nn.functional import avg_pool2d, conv2d, interpolate, relu

from gan_ray.blocks.residual import ResBlockDown, ResBlockUp

NORMS = ["none", "batch", "layer", "instance"]


def conv(layer, maps, padding):
    return conv2d(maps, layer.weight, layer.bias, padding=padding)


@pytest.mark.parametrize("kind", NORMS)
def test_up_block_is_the_published_sequence(kind):
    block = ResBlockUp(6, 4, kind=kind).double()
    maps = torch.randn(3, 6, 8, 8, dtype=torch.float64)
    branch = conv(block.conv_in, interpolate(relu(block.norm_in(maps)), scale_factor=2), 1)
    branch = conv(block.conv_out, relu(block.norm_out(branch)), 1)
    shortcut = conv(block.shortcut, interpolate(maps, scale_factor=2), 0)
    torch.testing.assert_close(block(maps), branch + shortcut)


@pytest.mark.parametrize("kind", NORMS)
def test_down_block_is_the_published_sequence(kind):
    block = ResBlockDown(4, 6, kind=kind).double()
    maps = torch.randn(3, 4, 16, 16, dtype=torch.float64)
    branch = conv(block.conv_in, relu(block.norm_in(maps)), 1)
    branch = avg_pool2d(conv(block.conv_out, relu(block.norm_out(branch)), 1), 2)
    shortcut = conv(block.shortcut, avg_pool2d(maps, 2), 0)
    torch.testing.assert_close(block(maps), branch + shortcut)


def test_only_the_first_convolution_has_no_bias():
    for block in (ResBlockUp(6, 4), ResBlockDown(4, 6, kind="layer")):
        assert block.conv_in.bias is None
        assert block.conv_out.bias is not None
        assert block.shortcut.bias is not None
