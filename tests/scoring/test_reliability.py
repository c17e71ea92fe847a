import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance
from sklearn.metrics import brier_score_loss

from gan_ray.scoring.calibration import calibrate
from gan_ray.scoring.reliability import brier, calibration_error


@st.composite
def forecasts(draw):
    """Labels of both classes with forecasts 1 - p, p on the grid of nine calibration images."""
    size = draw(st.integers(2, 30))
    p_values = draw(st.lists(st.integers(1, 10), min_size=size, max_size=size))
    labels = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    labels[0], labels[1] = 0, 1
    return np.array(labels), 1 - np.array(p_values) / 10


@given(forecasts())
def test_brier_agrees_with_scikit_learn(case):
    labels, values = case
    assert brier(labels, values) == pytest.approx(brier_score_loss(labels, values))


@given(forecasts())
def test_calibration_error_is_the_area_between_realised_and_stated_rates(case):
    labels, values = case
    p_values = 1 - values[labels == 0]
    rates = (np.arange(100_000) + 0.5) / 100_000
    realised = np.searchsorted(np.sort(p_values), rates, "right") / len(p_values)
    expected = np.abs(realised - rates).mean()
    assert calibration_error(labels, values) == pytest.approx(expected, abs=1e-4)
    uniform = wasserstein_distance(p_values, rates)
    assert calibration_error(labels, values) == pytest.approx(uniform, abs=1e-4)


def test_calibration_error_looks_at_normal_images_alone_and_reaches_a_half():
    labels = np.array([0, 0, 1, 1])
    assert calibration_error(labels, np.array([0.2, 0.6, 1.0, 0.9])) == pytest.approx(
        calibration_error(labels, np.array([0.2, 0.6, 0.0, 0.3]))
    )
    assert calibration_error(labels, np.array([1.0, 1.0, 1.0, 1.0])) == pytest.approx(0.5)


def test_kept_promises_cost_what_is_documented_and_broken_ones_more():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 4000)
    calibration = calibrate(rng.normal(size=4000), 0.05)
    kept, found = rng.normal(size=(2, 4000))
    apart, alike = np.append(kept, found + 100), np.append(kept, found)
    values = 1 - calibration.p_values(apart)
    assert calibration_error(labels, values) < 0.03
    assert brier(labels, values) == pytest.approx(1 / 6, abs=0.01)
    assert brier(labels, 1 - calibration.p_values(alike)) == pytest.approx(1 / 3, abs=0.01)
    shifted = 1 - calibration.p_values(apart + 1)
    # W1 of the p-values Phi(-Phi^-1(1 - u) - 1): |E p - 1/2|, as all move to one side.
    assert calibration_error(labels, shifted) == pytest.approx(0.5 - 0.2398, abs=0.03)
