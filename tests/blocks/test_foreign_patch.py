import numpy as np
import pytest
import torch

from gan_ray.blocks.foreign_patch import ForeignPatchConfig, foreign_patch_interpolation

EDGE = 1 - 2**-24


def pasted(draws: list[float], size: int = 64, **settings) -> np.ndarray:
    """Shares of the donor, [S, S]: of ones in zeros."""
    images = torch.zeros(1, 3, size, size)
    made = foreign_patch_interpolation(
        images, images + 1, torch.tensor([draws]), ForeignPatchConfig(**settings)
    )
    assert torch.equal(made[:, 0], made[:, 2])
    return made[0, 0].numpy()


# Design, section 4.4, run with SAGAN's code: centres 12..50, sides 6..24 at 64 pixels.
@pytest.mark.parametrize(
    ("draws", "rows", "columns"),
    [
        ([0, 0, 0, 0.5], (9, 14), (9, 14)),
        ([EDGE, 0, 0, 0.5], (47, 52), (9, 14)),
        ([0, EDGE, EDGE, 0.5], (0, 23), (38, 61)),
        ([EDGE, EDGE, EDGE, 0.5], (38, 61), (38, 61)),
    ],
)
def test_the_square_is_where_the_published_code_puts_it(draws, rows, columns):
    shares = pasted(draws)
    inside = np.argwhere(shares != 0)
    assert tuple(inside.min(0)) == (rows[0], columns[0])
    assert tuple(inside.max(0)) == (rows[1], columns[1])
    assert len(inside) == (rows[1] - rows[0] + 1) * (columns[1] - columns[0] + 1)
    assert set(shares[shares != 0]) == {0.5}


def test_no_published_patch_is_clipped_and_all_sizes_come():
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(2000, 4, generator=generator)
    images = torch.zeros(2000, 1, 64, 64)
    made = foreign_patch_interpolation(images, images + 1, draws, ForeignPatchConfig())
    sides = [(made[:, 0] != 0).any(axis).sum(1) for axis in (1, 2)]
    assert torch.equal(*sides), "squares"
    assert sorted(set(sides[0].tolist())) == list(range(6, 26, 2))


def test_outside_the_square_the_image_stays_and_inside_the_donor_is_read_at_the_same_place():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 5, 1, 32, 32, generator=generator).unbind(0)
    draws = torch.rand(5, 4, generator=generator)
    made = foreign_patch_interpolation(x, y, draws, ForeignPatchConfig(alpha_min=0.3))
    changed = made != x
    share = (0.3 + 0.7 * draws[:, 3]).view(-1, 1, 1, 1)
    torch.testing.assert_close(made[changed], ((1 - share) * x + share * y)[changed])
    assert 0 < changed.float().mean() < 0.2


def test_the_share_starts_at_alpha_min():
    assert pasted([0.5, 0.5, 0.5, 0.0], alpha_min=0.3).max() == pytest.approx(0.3)
    assert pasted([0.5, 0.5, 0.5, 0.0], alpha_min=1.0).max() == 1


@pytest.mark.parametrize("size", [8, 16, 32, 128])
def test_every_size_gets_a_patch(size):
    for edge in (0.0, EDGE):
        assert (pasted([edge, edge, edge, 1.0], size) == 1).sum() >= 4
