import pytest

from gan_ray.blocks.plan import ResolutionPlan
from gan_ray.errors import ConfigError


@pytest.mark.parametrize(
    ("size", "root", "stages"),
    [(28, 7, 2), (32, 4, 3), (64, 4, 4), (128, 4, 5), (256, 4, 6), (8, 4, 1), (16, 4, 2)],
)
def test_plan_halves_down_to_a_map_of_four_to_seven_pixels(size, root, stages):
    plan = ResolutionPlan(size)
    assert (plan.root, plan.stages) == (root, stages)


# Section 0 of the design: ladders of f-AnoGAN (at most 8 widths) and of f-UNetGAN at 128 (16).
@pytest.mark.parametrize(
    ("size", "widest", "multiples"),
    [
        (28, 8, (1, 2, 4)),
        (32, 8, (1, 2, 4, 8)),
        (64, 8, (1, 2, 4, 8, 8)),
        (128, 8, (1, 2, 4, 8, 8, 8)),
        (256, 8, (1, 2, 4, 8, 8, 8, 8)),
        (32, 4, (1, 2, 4, 4)),
        (128, 16, (1, 2, 4, 8, 16, 16)),
    ],
)
def test_channels_double_until_the_widest(size, widest, multiples):
    assert ResolutionPlan(size).channels(64, widest) == tuple(64 * m for m in multiples)


@pytest.mark.parametrize("size", range(1, 300))
def test_every_size_is_either_refused_or_reached_from_its_root(size):
    try:
        plan = ResolutionPlan(size)
    except ConfigError:
        return
    assert plan.root * 2**plan.stages == size
    assert 4 <= plan.root <= 7


@pytest.mark.parametrize("size", [1, 7])
def test_tiny_sizes_are_refused_with_the_smallest_allowed(size):
    with pytest.raises(ConfigError, match=r"8 or more.*--data\.image-size"):
        ResolutionPlan(size)


def test_indivisible_sizes_are_refused_with_their_neighbours():
    with pytest.raises(ConfigError, match=r"multiple of 16 there.*to 96 or 112"):
        ResolutionPlan(100)
