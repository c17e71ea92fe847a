import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import leaky_relu

from gan_ray.blocks.rectifier import Rectifier, rectify

SLOPES = [0.0, 0.01, 0.2]


@pytest.mark.parametrize("slope", SLOPES)
def test_values_and_gradients_are_those_of_torch(slope):
    numbers = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    numbers[0, 0, 0, 0] = 0.0
    ours, theirs = numbers.clone().requires_grad_(), numbers.clone().requires_grad_()
    values, wanted = rectify(ours, slope), leaky_relu(theirs, slope)
    weights = torch.randn_like(numbers)
    (values * weights).sum().backward()
    (wanted * weights).sum().backward()
    assert torch.equal(values, wanted)
    assert torch.equal(ours.grad, theirs.grad)
    with torch.no_grad():
        assert torch.equal(rectify(numbers, slope), wanted)


@pytest.mark.parametrize("slope", SLOPES)
def test_it_can_be_differentiated_twice(slope):
    numbers = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    mixing = torch.randn(6, 6, dtype=torch.float64, requires_grad=True)

    def bend(rows, weights):
        return (rectify(rows @ weights, slope) ** 3).sum(1)

    assert gradcheck(bend, (numbers, mixing))
    assert gradgradcheck(bend, (numbers, mixing))


def slope_of(rectifier: nn.Module) -> nn.Sequential:
    """Give a critic whose parameters have the gradients of a penalty on its slope alone."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(1, 3, 3), rectifier, nn.Conv2d(3, 1, 3))
    points = torch.randn(2, 1, 8, 8).requires_grad_()
    (slope,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    slope.square().sum().backward()
    return critic


def test_a_penalty_on_the_slope_goes_no_second_time_through_the_critic():
    ours, theirs = slope_of(Rectifier(0.2)), slope_of(nn.LeakyReLU(0.2))
    assert torch.equal(ours[0].weight.grad, theirs[0].weight.grad)
    assert torch.equal(ours[2].weight.grad, theirs[2].weight.grad)
    # Nowhere does a slope depend on a shift: torch works out that it is 0, we do not ask.
    assert ours[0].bias.grad is None
    assert not theirs[0].bias.grad.any()
