import pytest
import torch

from gan_ray.losses.focus import focus


@pytest.mark.parametrize(
    ("value", "wanted"), [(0.0, 0.0), (1.0, 1.0), (0.5, 0.25 + 100 - 1 / 0.51), (0.75, 2.448)]
)
def test_focus_of_a_flat_mask(value, wanted):
    mask = torch.full((2, 1, 4, 4), value, dtype=torch.float64)
    # 0.75: 0.5625 + 1 / 0.26 - 1 / 0.51
    assert focus(mask).item() == pytest.approx(wanted, abs=1e-3)


def test_focus_weighs_size_and_certainty():
    mask = torch.tensor([0.0, 1.0, 1.0, 0.4], dtype=torch.float64)
    small = ((1 + 1 + 0.4) / 4) ** 2
    unsure = (3 / 0.51 + 1 / 0.11) / 4 - 1 / 0.51
    assert focus(mask, size=1, binary=0).item() == pytest.approx(small)
    assert focus(mask, size=0, binary=1).item() == pytest.approx(unsure)
    assert focus(mask, size=2, binary=3).item() == pytest.approx(2 * small + 3 * unsure)


@pytest.mark.parametrize("value", [0.1, 0.4, 0.6, 0.9])
def test_certainty_drives_a_mask_away_from_one_half(value):
    mask = torch.full((4,), value, requires_grad=True)
    focus(mask, size=0).backward()
    assert ((mask.grad < 0) == (value > 0.5)).all(), "descent raises what is above one half"


def test_size_is_that_of_the_whole_batch():
    halves = torch.zeros(2, 4), torch.ones(2, 4)
    whole = focus(torch.cat(halves))
    apart = [focus(half, mean_over_ranks=lambda _: torch.tensor(0.5)) for half in halves]
    assert torch.stack(apart).mean().item() == pytest.approx(whole.item())
    assert whole.item() == pytest.approx(0.25)


def test_focus_is_float32_of_a_bfloat16_mask():
    mask = torch.full((100_000,), 0.1).bfloat16()
    assert focus(mask).dtype == torch.float32
    assert focus(mask, binary=0).item() == pytest.approx(mask[0].double().item() ** 2, rel=1e-4)
