import numpy as np
import pytest
import torch

from gan_ray.blocks.links import RESIDUAL_LINKS, MaskBlend, logit_sum, tanh_sum

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


@pytest.mark.parametrize("channels", [1, 3])
def test_blend_is_the_image_under_an_empty_mask_and_the_candidate_under_a_full_one(channels):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, channels, 4, 4, generator=generator) * 2 - 1
    raw = torch.randn(2, channels + 1, 4, 4, generator=generator)
    for logit, mask in ((-40.0, 0.0), (40.0, 1.0)):
        raw[:, channels] = logit
        blend = MaskBlend.of(images, raw)
        wanted, other = images, blend.candidate
        if mask:
            wanted, other = other, wanted
        assert torch.equal(blend.candidate, raw[:, :channels].tanh())
        assert torch.equal(blend.mask, torch.full((2, 1, 4, 4), mask))
        assert torch.equal(blend.healthy, wanted)
        assert torch.equal(blend.restored, other)


def test_blend_shares_image_and_candidate_out_between_healthy_and_restored():
    images, raw = torch.rand(2, 3, 4, 4).double() * 2 - 1, torch.randn(2, 4, 4, 4).double()
    blend = MaskBlend.of(images, raw)
    torch.testing.assert_close(blend.healthy + blend.restored, images + blend.candidate)
    torch.testing.assert_close(blend.mask, torch.sigmoid(2 * raw[:, 3:]))
    assert blend.mask.shape == (2, 1, 4, 4)
