import pytest
import torch

from gan_ray.losses.penalties import gradient_penalty


def images(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0, 3.0])
def test_penalty_of_a_linear_critic_is_its_slope_minus_one_squared(norm):
    weight = images(0, 3, 4, 4)
    weight *= norm / weight.norm()
    penalty = gradient_penalty(
        lambda x: (x * weight).sum((1, 2, 3)), images(1, 5, 3, 4, 4), images(2, 5, 3, 4, 4),
        torch.rand(5, dtype=torch.float64),
    )  # fmt: skip
    assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=2e-6)


def test_penalty_of_a_quadratic_critic_is_that_at_the_points_between():
    # D(m) = |m|^2 / 2 has the gradient m: the penalty is mean_b (|m_b| - 1)^2, worked in the open.
    real, fake, mix = images(1, 4, 2, 3, 3), images(2, 4, 2, 3, 3), torch.tensor([0, 0.25, 0.5, 1])
    wanted = 0.0
    for one, other, share in zip(real, fake, mix.tolist(), strict=True):
        wanted += ((share * one + (1 - share) * other).square().sum().sqrt().item() - 1) ** 2 / 4
    penalty = gradient_penalty(lambda x: x.square().sum((1, 2, 3)) / 2, real, fake, mix.double())
    assert penalty.item() == pytest.approx(wanted, rel=1e-9)


def test_penalty_of_a_critic_map_is_that_of_its_sum():
    weight = images(0, 1, 4, 4)
    real, fake, mix = images(1, 5, 1, 4, 4), images(2, 5, 1, 4, 4), torch.zeros(5).double()
    penalty = gradient_penalty(lambda x: x * weight, real, fake, mix)
    assert penalty.item() == pytest.approx((weight.norm().item() - 1) ** 2, rel=1e-9)


def test_penalty_trains_the_critic_and_leaves_the_images_alone():
    weight = images(0, 1, 4, 4).requires_grad_(True)
    real, fake = images(1, 5, 1, 4, 4), images(2, 5, 1, 4, 4).requires_grad_(True)
    gradient_penalty(lambda x: x * weight, real, fake, torch.rand(5).double()).backward()
    assert fake.grad is None
    norm = weight.norm().item()  # d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w|
    torch.testing.assert_close(weight.grad, 2 * (norm - 1) / norm * weight.detach())


def test_flat_critic_has_a_finite_penalty_gradient():
    weight = torch.zeros(1, 4, 4, dtype=torch.float64, requires_grad=True)
    gradient_penalty(
        lambda x: x * weight, images(1, 2, 1, 4, 4), images(2, 2, 1, 4, 4), torch.rand(2).double()
    ).backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


def test_penalty_is_computed_in_float32_under_autocast():
    seen = []

    def critic(x):
        seen.append(x.dtype)
        return torch.nn.functional.linear(x.flatten(1), torch.ones(1, 16))

    with torch.autocast("cpu", torch.bfloat16):
        half = torch.randn(2, 1, 4, 4).bfloat16()
        penalty = gradient_penalty(critic, half, half, torch.rand(2))
    assert (seen, penalty.dtype) == ([torch.float32], torch.float32)
    assert penalty.item() == pytest.approx((16**0.5 - 1) ** 2)
