import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_ray.errors import ConfigError
from gan_ray.scoring.metrics import auroc
from gan_ray.scoring.selection import aucp, debiased_auc, figures, select, validity


def mix(normals=500, unlabeled=650, share=0.4, shift=1.5, seed=0):
    """Scores of held-out normals, of the mix, and the hidden labels of the mix."""
    rng = np.random.default_rng(seed)
    hidden = rng.random(unlabeled) < share
    return rng.normal(size=normals), rng.normal(size=unlabeled) + shift * hidden, hidden


def test_aucp_of_the_published_corner_cases():
    assert aucp(np.array([0.0]), np.array([1.0])) == 1
    assert aucp(np.zeros(5), np.zeros(7)) == 0.5
    assert aucp(np.array([1.0, 3.0]), np.array([2.0, 3.0])) == (1 + 0 + 1 + 0.5) / 4


@given(st.floats(0, 0.95), st.floats(0, 1))
def test_debiasing_inverts_what_normals_in_the_mix_do(fraction, value):
    assert debiased_auc((1 - fraction) * value + fraction / 2, fraction) == pytest.approx(value)


def test_debiased_aucp_finds_the_hidden_auroc():
    normal, unlabeled, hidden = mix(normals=5000, unlabeled=5000)
    truth = auroc(np.repeat([0, 1], [5000, hidden.sum()]), np.append(normal, unlabeled[hidden]))
    assert debiased_auc(aucp(normal, unlabeled), 0.6) == pytest.approx(truth, abs=0.02)


def test_mix_of_normals_alone_cannot_be_debiased():
    with pytest.raises(ConfigError, match="is 1"):
        debiased_auc(0.5, 1.0)


def test_standard_error_is_the_one_of_the_specification():
    # Section 6: |H| = 501, |M| = 653 near AUCp 0.5: about 0.017.
    normal, unlabeled, _ = mix(501, 653, share=0.4, shift=0.3)
    assert validity(normal, unlabeled).standard_error == pytest.approx(0.017, abs=0.001)


def test_standard_error_is_the_spread_over_samples():
    samples = [validity(*mix(60, 80, seed=s)[:2]) for s in range(400)]
    spread = np.std([sample.aucp for sample in samples])
    assert np.mean([s.standard_error for s in samples]) == pytest.approx(spread, rel=0.1)


def test_aucp_with_enough_abnormal_images_is_valid_and_estimates_their_share():
    found = validity(*mix(2000, 2000, share=0.4, shift=4.0)[:2])
    assert found.valid
    assert found.reason == ""
    assert found.abnormal_share == pytest.approx(0.4, abs=0.06)


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (mix(20, 500)[:2], "has 20 held-out normals"),
        (mix(500, 500, share=0.0)[:2], "not measurably above 0.5"),
        (mix(500, 500, shift=-1.5)[:2], "not measurably above 0.5"),
        (mix(4000, 4000, share=0.03, shift=6.0, seed=1)[:2], "abnormal share of"),
        ((np.zeros(50), np.zeros(50)), "not measurably above 0.5"),
    ],
)
def test_invalid_aucp_says_why(scores, reason):
    found = validity(*scores)
    assert not found.valid
    assert reason in found.reason


def test_figures_carry_the_names_that_select_reads():
    normal, unlabeled, _ = mix()
    labelled = (np.array([0, 1]), np.array([0.0, 1.0]))
    found = figures(normal, unlabeled, labelled)
    assert found["val/aucp"] == aucp(normal, unlabeled)
    assert found["val/image_auroc"] == 1
    assert found["val/normal_score"] == pytest.approx(normal.mean())
    for by in ("aucp", "validation", "normal_score", "last"):
        assert select([{"images": 5, **found}], by).images == 5
    assert set(figures(normal)) == {"val/normal_score"}


REPORTS = [
    {"images": 10, "stage": "gan"},
    {"images": 20, "val/aucp": 0.7, "val/normal_score": 0.4, "val/image_auroc": float("nan")},
    {"images": 30, "val/aucp": 0.8, "val/normal_score": 0.2, "val/image_auroc": 0.9},
    {"images": 40, "val/aucp": 0.8, "val/normal_score": 0.3, "val/image_auroc": 0.6},
]


@pytest.mark.parametrize(
    ("by", "images", "labels_used"),
    [("aucp", 30, False), ("", 30, False), ("normal_score", 30, False),
     ("validation", 30, True), ("last", 40, False)],
)  # fmt: skip
def test_selector_takes_its_best_report_and_the_earliest_of_equals(by, images, labels_used):
    chosen = select(REPORTS, by)
    assert chosen.images == images
    assert chosen.labels_used == labels_used


def test_without_an_unlabeled_mix_the_last_report_is_taken():
    chosen = select(
        [{"images": 1, "val/normal_score": 0.1}, {"images": 2, "val/normal_score": 0.3}]
    )
    assert (chosen.by, chosen.images) == ("last", 2)


def test_selector_without_its_figure_is_refused():
    with pytest.raises(ConfigError, match="needs 'val/image_auroc'"):
        select([{"images": 1, "val/aucp": 0.5}], "validation")
    with pytest.raises(ConfigError, match="Did you mean 'aucp'"):
        select(REPORTS, "auc")


def test_a_choice_by_an_aucp_that_means_nothing_says_so():
    rng = np.random.default_rng(0)
    same = figures(rng.normal(size=80), rng.normal(size=120))
    apart = figures(rng.normal(size=80), rng.normal(size=120) + (np.arange(120) < 50) * 3)
    assert (same["val/aucp_valid"], apart["val/aucp_valid"]) == (0.0, 1.0)
    chosen = select([{"images": 1, **same}])
    assert not chosen.valid
    assert "validity check" in chosen.reason
    assert select([{"images": 1, **same}, {"images": 2, **apart}]).valid


def copies(count=60, shift=0.8, seed=0):
    """Scores of images that differ much, and of copies of them that score a little higher."""
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=count)
    return normal, normal + rng.normal(shift, 0.4, count)


def test_the_proxy_is_the_auroc_of_normals_against_their_copies():
    normal, pseudo = copies()
    found = figures(normal, pseudo=pseudo)
    labels = np.repeat([0, 1], 60)
    assert found["val/pseudo_auroc"] == auroc(labels, np.append(normal, pseudo))
    assert select([{"images": 5, **found}], "pseudo").images == 5
    assert not select([{"images": 5, **found}], "pseudo").labels_used


def test_its_standard_error_knows_that_image_and_copy_are_one_draw():
    samples = [figures(n, pseudo=p) for n, p in (copies(seed=s) for s in range(400))]
    spread = np.std([sample["val/pseudo_auroc"] for sample in samples])
    errors = [sample["val/pseudo_auroc_error"] for sample in samples]
    assert np.mean(errors) == pytest.approx(spread, rel=0.1)
    independent = [validity(n, p).standard_error for n, p in (copies(seed=s) for s in range(400))]
    assert np.mean(independent) > 1.3 * spread, "as if they were strangers"


def test_the_labelled_figure_carries_its_standard_error():
    def labelled(seed):
        normal, unlabeled, hidden = mix(60, 80, seed=seed)
        labels = np.append(np.zeros(60, int), hidden.astype(int))
        return figures(normal, labelled=(labels, np.append(normal, unlabeled)))

    samples = [labelled(seed) for seed in range(400)]
    spread = np.std([sample["val/image_auroc"] for sample in samples])
    errors = [sample["val/image_auroc_error"] for sample in samples]
    assert np.mean(errors) == pytest.approx(spread, rel=0.1)
