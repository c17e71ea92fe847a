import pytest
import torch
from torch.nn.functional import conv2d

from gan_ray.blocks.separable import DepthwiseSeparableConv2d, convolution


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_separable_convolution_is_a_dense_one_whose_kernel_is_an_outer_product(kernel):
    layer, maps = DepthwiseSeparableConv2d(3, 5, kernel).double(), torch.randn(2, 3, 9, 9).double()
    places, channels = layer.depthwise.weight[:, 0], layer.pointwise.weight[:, :, 0, 0]
    dense = torch.einsum("oi,ihw->oihw", channels, places)
    bias = layer.pointwise.bias + channels @ layer.depthwise.bias
    torch.testing.assert_close(layer(maps), conv2d(maps, dense, bias, padding=kernel // 2))


@pytest.mark.parametrize(
    ("kind", "weights"),
    [("separable", 3 * 25 + 3 + 3 * 5 + 5), ("dense", 3 * 5 * 25 + 5)],
)
def test_both_kinds_keep_the_size_and_have_their_number_of_weights(kind, weights):
    layer = convolution(kind, 3, 5, 5)
    assert layer(torch.randn(2, 3, 8, 8)).shape == (2, 5, 8, 8)
    assert sum(p.numel() for p in layer.parameters()) == weights
