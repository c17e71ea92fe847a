import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_ray.scoring.comparison import compare, holm
from gan_ray.scoring.delong import delong
from gan_ray.scoring.intervals import paired
from gan_ray.scoring.metrics import average_precision


def test_holm_of_a_worked_example():
    # Four tests; the smallest p counts four times, the next three times, and none below the last.
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0, 1))
def test_holm_rejects_what_stepping_down_rejects(p_values, level):
    found = holm(np.array(p_values))
    remaining = list(range(len(p_values)))
    while remaining:  # Holm 1979: the smallest of those left, against level / number left
        smallest = min(remaining, key=lambda i: p_values[i])
        if min(p_values[smallest] * len(remaining), 1) > level:
            break
        remaining.remove(smallest)
    assert [i for i, p in enumerate(found) if p > level] == remaining


def test_no_comparison_needs_no_correction():
    assert holm(np.array([])).tolist() == []


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    good, fair, poor = (rng.normal(size=200) + shift * labels for shift in (2.0, 0.9, 0.0))
    return labels, [("good", good), ("fair", fair), ("poor", poor)]


def test_each_model_is_compared_with_all_that_follow_in_both_metrics(rows):
    labels, contestants = rows
    alone = np.arange(200).astype(str)
    found = compare(contestants, 1, labels, alone, 100)
    assert [(e["a"], e["b"], e["metric"]) for e in found] == [
        ("good", b, metric) for b in ("fair", "poor") for metric in ("image_auroc", "image_ap")
    ]
    assert len(compare(contestants, 3, labels, alone, 20)) == 2 * 3
    good, fair = contestants[0][1], contestants[1][1]
    expected = paired(average_precision, labels, good, fair, alone, 100)
    assert (found[1]["difference"], found[1]["p_value"]) == (
        expected.difference,
        expected.p_value,
    )
    assert found[0]["p_delong"] == delong(labels, good, fair).p_value
    assert found[1]["p_delong"] is None
    assert [e["p_holm"] for e in found] == holm(np.array([e["p_value"] for e in found])).tolist()
    assert found[0]["p_holm"] > found[0]["p_value"]


def test_delong_is_left_out_where_a_patient_has_several_images(rows):
    labels, contestants = rows
    groups = np.arange(200).astype(str)
    groups[3] = groups[1]
    assert all(e["p_delong"] is None for e in compare(contestants, 1, labels, groups, 20))
    unnamed = np.full(200, "")
    assert compare(contestants, 1, labels, unnamed, 20)[0]["p_delong"] is not None


def test_delong_is_left_out_where_a_class_has_one_image(rows):
    labels, contestants = rows
    labels = np.where(np.arange(200) == 5, 1, 0)
    assert compare(contestants, 1, labels, np.full(200, ""), 20)[0]["p_delong"] is None
