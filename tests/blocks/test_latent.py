import math

import pytest
import torch

from gan_ray.blocks.latent import LatentHead

CODE = torch.tensor([[-4.0, -2.0, -0.25, 0.0, 0.25, 2.0, 4.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("bound", "wanted"),
    [
        ("linear", lambda z: z),
        ("tanh", math.tanh),
        ("tanh_3", lambda z: 3 * math.tanh(z)),
        ("tanh_half", lambda z: math.tanh(z) / 2),
        ("clip_1", lambda z: max(-1, min(1, z))),
        ("clip_3", lambda z: max(-3, min(3, z))),
        ("clip_half", lambda z: max(-0.5, min(0.5, z))),
        ("stochastic_clip", lambda z: max(-3, min(3, z))),
    ],
)
def test_bound_is_its_function_of_each_coordinate(bound, wanted):
    values = [[wanted(z) for z in CODE[0].tolist()]]
    torch.testing.assert_close(LatentHead(bound)(CODE), torch.tensor(values, dtype=torch.float64))


def test_stochastic_clip_replaces_coordinates_beyond_three_by_the_noise():
    noise = torch.full_like(CODE, 0.5)
    wanted = torch.tensor([[0.5, -2.0, -0.25, 0.0, 0.25, 2.0, 0.5]], dtype=torch.float64)
    assert torch.equal(LatentHead("stochastic_clip")(CODE, noise), wanted)


def test_stochastic_clip_draws_nothing_by_itself():
    head, before = LatentHead("stochastic_clip").train(), torch.get_rng_state()
    head(CODE, torch.zeros_like(CODE))
    head.eval()(CODE)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("bound", ["linear", "tanh", "clip_3"])
def test_other_bounds_ignore_the_noise(bound):
    head = LatentHead(bound)
    assert torch.equal(head(CODE, torch.ones_like(CODE)), head(CODE))
