import pytest
import torch
from torch.nn.functional import avg_pool2d, conv2d, interpolate

from gan_ray.blocks.conv import DownConv2d, UpConv2d


def up(layer, images):
    return conv2d(interpolate(images, scale_factor=2), layer.weight, layer.bias, padding=1)


def down(layer, images):
    return avg_pool2d(conv2d(images, layer.weight, layer.bias, padding=1), 2)


# Both sides of the threshold below which the two steps are taken as they are.
CASES = [
    (kind, steps, side)
    for kind, steps, sides in ((UpConv2d, up, (4, 8, 10)), (DownConv2d, down, (8, 16, 20)))
    for side in sides
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "steps", "side"), CASES)
def test_fused_convolution_equals_its_two_steps_with_all_gradients(kind, steps, side, bias):
    layer = kind(3, 5, bias=bias).double()
    images = torch.randn(2, 3, side, side, dtype=torch.float64, requires_grad=True)
    inputs = (images, *layer.parameters())

    def outcome(convolve):
        output = convolve(images)
        weigh = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)
        first = torch.autograd.grad((weigh * output.square()).sum(), inputs, create_graph=True)
        return output, *first, *torch.autograd.grad(first[0].square().sum(), inputs)

    for fused, plain in zip(
        outcome(layer), outcome(lambda images: steps(layer, images)), strict=True
    ):
        torch.testing.assert_close(fused, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [UpConv2d, DownConv2d])
def test_parameters_are_those_of_a_three_by_three_convolution(kind):
    shapes = {name: tuple(p.shape) for name, p in kind(3, 5).named_parameters()}
    assert shapes == {"weight": (5, 3, 3, 3), "bias": (5,)}
