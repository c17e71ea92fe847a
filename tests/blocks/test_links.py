import numpy as np
import pytest
import torch

from gan_ray.blocks.links import RESIDUAL_LINKS, logit_sum, tanh_sum

RAMP = torch.linspace(-1, 1, 2001, dtype=torch.float64)


def test_tanh_sum_moves_an_image_even_where_the_map_is_zero():
    # |tanh(1) - 1| = 0.238 at most; the mean over [-1, 1] is 1 - log cosh 1 - 1/2 = 0.066.
    moved = (tanh_sum(RAMP, torch.zeros_like(RAMP)) - RAMP).abs()
    assert moved.max().item() == pytest.approx(1 - np.tanh(1), abs=1e-6)
    assert moved.mean().item() == pytest.approx(0.5 - np.log(np.cosh(1)), abs=1e-3)


def test_logit_sum_leaves_an_image_alone_where_the_map_is_zero():
    moved = logit_sum(RAMP, torch.zeros_like(RAMP)) - RAMP
    assert moved.abs().max().item() <= 1e-3 + 1e-12


@pytest.mark.parametrize("name", RESIDUAL_LINKS)
def test_links_broadcast_a_map_over_channels_and_stay_in_range(name):
    images = torch.rand(2, 3, 4, 4) * 2 - 1
    images[0, 0, 0, 0], images[0, 0, 0, 1] = 1.0, -1.0
    linked = RESIDUAL_LINKS[name](images, torch.randn(2, 1, 4, 4))
    assert linked.shape == images.shape
    assert torch.isfinite(linked).all()
    assert linked.abs().max() <= 1


@pytest.mark.parametrize("name", RESIDUAL_LINKS)
def test_every_brightness_passes_a_gradient_to_the_map(name):
    raw = torch.zeros_like(RAMP, requires_grad=True)
    RESIDUAL_LINKS[name](RAMP, raw).sum().backward()
    assert (raw.grad > 1e-3).all()
