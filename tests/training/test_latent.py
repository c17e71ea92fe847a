"""Codes of a latent space: fixed samples of the prior, and the walks of White 2016 and a plane."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
import torch

from gan_ray import experiment
from gan_ray.detector import Latent
from gan_ray.training.latent import draw, plane, prior_codes, spherical, straight, walk_codes

PRIORS = ["normal", "uniform"]


@pytest.mark.parametrize("prior", PRIORS)
def test_a_code_depends_on_the_seed_and_its_number_alone(prior):
    latent = Latent(8, prior)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    few, many = (prior_codes(latent, count, seed=3) for count in (2, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(few, many[:2])
    assert len(many.unique(dim=0)) == 5
    assert not torch.equal(many, prior_codes(latent, 5, seed=4))


# The k-th moments of N(0, 1) are 0, 1 and 3, those of U[-1, 1] are 0, 1/3 and 1/5, k = 1, 2, 4.
@pytest.mark.parametrize(
    ("prior", "moments"), [("normal", (0, 1, 3)), ("uniform", (0, 1 / 3, 0.2))]
)
def test_codes_follow_the_prior(prior, moments):
    codes = prior_codes(Latent(64, prior), 300, seed=0).double()
    for power, moment in zip((1, 2, 4), moments, strict=True):
        assert codes.pow(power).mean().item() == pytest.approx(moment, rel=0.05, abs=0.02)
    assert prior == "normal" or codes.abs().max() <= 1


def test_a_great_circle_keeps_the_length_and_turns_evenly():
    start, end = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 3.0, 0.0])
    path = spherical(start, end, torch.linspace(0, 1, 4))
    half = 3 * np.sqrt(3) / 2
    expected = [[3, 0, 0], [half, 1.5, 0], [1.5, half, 0], [0, 3, 0]]
    np.testing.assert_allclose(path, expected, atol=1e-6)


# q(t) = sin((1-t) a)/sin a * p + sin(t a)/sin a * q, worked with numpy.
def test_a_great_circle_between_codes_of_unequal_length_is_the_published_formula():
    p, q = np.array([1.0, 2.0, -1.0, 0.5]), np.array([-0.3, 0.7, 2.0, 1.0])
    angle = np.arccos(p @ q / np.sqrt((p @ p) * (q @ q)))
    for t in (0.0, 0.25, 0.9, 1.0):
        expected = (np.sin((1 - t) * angle) * p + np.sin(t * angle) * q) / np.sin(angle)
        found = spherical(torch.tensor(p), torch.tensor(q), torch.tensor([t]))[0]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("factor", [2.0, -2.0])
def test_codes_on_a_line_through_zero_are_joined_straight(factor):
    start, shares = torch.tensor([0.5, -1.5]), torch.linspace(0, 1, 5)
    path = spherical(start, factor * start, shares)
    assert torch.equal(path, straight(start, factor * start, shares))
    np.testing.assert_allclose(path[2], (1 + factor) / 2 * start)


def test_a_plane_shows_equal_shares_of_the_normal_prior():
    codes = plane(Latent(2, "normal"), 7)
    levels = [NormalDist().inv_cdf(0.05 + 0.15 * step) for step in range(7)]
    np.testing.assert_allclose(codes[4, :, 0], levels, atol=1e-6)
    np.testing.assert_allclose(codes[:, 4, 1], levels, atol=1e-6)
    assert (codes[4, :, 1] == codes[4, 0, 1]).all(), "the second number grows downwards only"


def test_a_plane_of_the_uniform_prior_goes_to_its_borders():
    codes = plane(Latent(2, "uniform"), 5)
    np.testing.assert_allclose(codes[0, :, 0], [-1, -0.5, 0, 0.5, 1])
    assert codes.reshape(-1, 2).abs().max() == 1


@pytest.mark.parametrize("prior", PRIORS)
def test_a_path_goes_through_the_fixed_codes_of_the_samples(prior):
    latent = Latent(16, prior)
    walk, stops = walk_codes(latent, 9, seed=1), prior_codes(latent, 5, seed=1)
    assert walk.shape == (4, 9, 16)
    torch.testing.assert_close(walk[:, 0], stops[:-1])
    torch.testing.assert_close(walk[:, -1], stops[1:])
    middle = walk[:, 4].norm(dim=1) / ((walk[:, 0] + walk[:, -1]) / 2).norm(dim=1)
    # Half-way a great circle stays out where a straight line comes near zero.
    assert (middle > 1.1).all() if prior == "normal" else torch.allclose(middle, torch.ones(4))


def test_a_walk_through_two_numbers_is_the_plane():
    latent = Latent(2, "uniform")
    assert torch.equal(walk_codes(latent, 5, seed=0), plane(latent, 5))


def test_drawing_many_codes_is_drawing_each():
    detector = experiment.build_detector(experiment.make("f-anogan", preset="tiny")).eval()
    codes = prior_codes(detector.latent, 70, seed=0)
    drawn = draw(detector, codes)
    assert drawn.shape == (70, 1, 16, 16)
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(draw(detector, codes[65:66])[0], drawn[65], atol=1e-5)
