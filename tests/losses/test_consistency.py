import math

import numpy as np
import pytest
import torch

from gan_ray.detector import Batch
from gan_ray.losses.consistency import cutmix_mask, mixup_consistency, symmetric_beta


def batch(rows: int, *, seed: int = 0, rank: int = 0, world: int = 1) -> Batch:
    images = torch.zeros(rows, 1, 4, 4, dtype=torch.float64)
    return Batch({"normal": images}, seed=seed, rank=rank, world=world)


def judged(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 1, 4, 4, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(3,), (3, 1, 4, 4)])
def test_consistency_is_the_mean_square_to_the_mixed_judgements(shape):
    mixed, real, fake, share = judged(0), judged(1), judged(2), torch.rand(shape).double()
    wanted = 0.0
    for b in range(3):
        for i in range(4):
            for j in range(4):
                s = (share[b] if share.dim() == 1 else share[b, 0, i, j]).item()
                target = s * real[b, 0, i, j].item() + (1 - s) * fake[b, 0, i, j].item()
                wanted += (mixed[b, 0, i, j].item() - target) ** 2 / 48
    assert mixup_consistency(mixed, real, fake, share).item() == pytest.approx(wanted, rel=1e-12)


def test_a_linear_critic_is_consistent():
    real, fake, share = judged(1), judged(2), torch.rand(3).double()
    mixed = share.view(3, 1, 1, 1) * real + (1 - share.view(3, 1, 1, 1)) * fake
    assert mixup_consistency(5 * mixed, 5 * real, 5 * fake, share).item() < 1e-28


def test_targets_have_gradient():
    maps = [judged(i).requires_grad_(True) for i in range(3)]
    mixup_consistency(*maps, torch.full((3,), 0.25).double()).backward()
    mixed, real, fake = (m.grad for m in maps)
    torch.testing.assert_close(real, -0.25 * mixed)
    torch.testing.assert_close(fake, -0.75 * mixed)


def test_consistency_is_computed_in_float32_under_autocast():
    maps = [judged(i).bfloat16() for i in range(3)]
    with torch.autocast("cpu", torch.bfloat16):
        assert mixup_consistency(*maps, torch.rand(3)).dtype == torch.float32


@pytest.mark.parametrize("alpha", [0.2, 0.4, 1.0, 3.0])
def test_shares_follow_the_symmetric_beta_distribution(alpha):
    draws = symmetric_beta(batch(40_000), alpha).numpy()
    assert ((draws >= 0) & (draws <= 1)).all()
    # P(share <= q), by Simpson's rule over t = share^alpha, which removes the pole at 0.
    normal = math.gamma(2 * alpha) / math.gamma(alpha) ** 2 / alpha
    for q in (0.05, 0.25, 0.5):
        t = np.linspace(0, q**alpha, 2001)
        heights = normal * (1 - t ** (1 / alpha)) ** (alpha - 1)
        simpson = heights[0] + 4 * heights[1::2].sum() + 2 * heights[2:-1:2].sum() + heights[-1]
        wanted = simpson * t[1] / 3
        assert (draws <= q).mean() == pytest.approx(wanted, abs=0.01)
        assert (draws >= 1 - q).mean() == pytest.approx(wanted, abs=0.01)


def test_masks_are_one_around_one_box():
    masks = cutmix_mask(batch(200), 16)
    assert masks.shape == (200, 1, 16, 16)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    for mask in masks[:, 0]:
        rows, columns = (~mask.bool()).nonzero().unbind(1)
        if len(rows):
            box = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
            assert box == (mask == 0).sum()


def test_boxes_have_the_published_sides_and_centres():
    u, row, column = batch(50).uniform(3).unbind(1)
    for i, mask in enumerate(cutmix_mask(batch(50), 16)[:, 0]):
        half = 8 * math.sqrt(1 - u[i].item())
        for y in range(16):
            for x in range(16):
                inside = (
                    abs(y + 0.5 - 16 * row[i].item()) < half
                    and abs(x + 0.5 - 16 * column[i].item()) < half
                )
                assert bool(mask[y, x]) is not inside


@pytest.mark.parametrize("draw", [lambda b: cutmix_mask(b, 8), lambda b: symmetric_beta(b, 0.4)])
def test_ranks_see_together_what_one_would_see_alone(draw):
    whole = draw(batch(6))
    parts = [draw(batch(3, rank=rank, world=2)) for rank in range(2)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(draw(batch(6, seed=1)), whole)
