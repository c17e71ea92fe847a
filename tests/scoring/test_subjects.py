import numpy as np
import pytest

from gan_ray.scoring.subjects import by_subject, numbered, repeat


def test_a_subject_is_the_mean_of_its_images_and_abnormal_when_one_of_them_is():
    labels = np.array([0, 1, 0, 0, 1])
    scores = np.array([1.0, 5.0, 2.0, 4.0, 7.0])
    groups = np.array(["anna", "anna", "bert", "bert", "carl"])
    found_labels, found_scores = by_subject(labels, scores, groups)
    assert found_labels.tolist() == [1, 0, 1]
    assert found_scores.tolist() == [3.0, 3.0, 7.0]


def test_images_without_a_group_are_subjects_of_their_own():
    labels, scores = by_subject(
        np.array([0, 1, 0]), np.array([1.0, 2.0, 3.0]), np.array(["", "", "x"])
    )
    assert sorted(zip(labels.tolist(), scores.tolist(), strict=True)) == [(0, 1), (0, 3), (1, 2)]


@pytest.mark.parametrize(
    ("groups", "several"),
    [(["a", "b"], False), (["a", "b", "a"], True), (["", ""], False), (["", "a", "a"], True)],
)
def test_groups_repeat_where_a_named_one_has_several_images(groups, several):
    assert repeat(np.array(groups)) is several


def test_without_groups_every_image_has_its_own_number():
    assert sorted(numbered(None, 5).tolist()) == list(range(5))
