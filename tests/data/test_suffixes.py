"""Which names are those of images."""

from __future__ import annotations

import pytest

from gan_ray.data.suffixes import names_image, stem


@pytest.mark.parametrize(
    "key",
    ["a.png", "b/UPPER.PNG", "a.b.jpeg", "x.dcm", "x.nii", "x.nii.gz", "x.npy", "x.npz",
     "study/IM000001", "study.2/1.2.840.113619.2.55"],
)  # fmt: skip
def test_images_are_known_by_their_ending_or_have_none(key: str):
    assert names_image(key)


@pytest.mark.parametrize("key", ["a.txt", "a.csv", "a.gz", "scans/DICOMDIR", "readme.md", "a.png~"])
def test_other_files_are_not(key: str):
    assert not names_image(key)


def test_names_without_an_ending_are_images_only_where_they_are_asked_for():
    assert not names_image("study/IM000001", (".png",))


@pytest.mark.parametrize(
    ("path", "bare"),
    [("a/b.nii.gz", "a/b"), ("a/b.x.PNG", "a/b.x"), ("a/1.2.840", "a/1.2.840"), ("a.d/b", "a.d/b")],
)
def test_a_stem_is_the_path_without_the_ending_of_its_image(path: str, bare: str):
    assert stem(path) == bare
