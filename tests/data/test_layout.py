"""What paths mean in our layout, in MVTec's and in BMAD's."""

from __future__ import annotations

import pytest

from gan_ray.data.layout import Place, place


@pytest.mark.parametrize(
    ("path", "meaning"),
    [
        ("train/normal/a.png", Place("train/normal")),
        ("train/good/deep/er/a.png", Place("train/normal")),
        ("train/unlabeled/a.png", Place("train/unlabeled")),
        ("val/normal/a.png", Place("val/normal", "normal")),
        ("val/abnormal/a.png", Place("val/abnormal", "abnormal", "abnormal/a")),
        ("test/normal/a.png", Place("test", "normal")),
        ("test/abnormal/b/a.x.png", Place("test", "abnormal", "abnormal/b/a.x")),
        ("test/masks/a.png", Place("masks", key="a")),
        ("test/good/000.png", Place("test", "normal")),
        ("test/crack/000.png", Place("test", "crack", "crack/000")),
        ("ground_truth/crack/000_mask.png", Place("masks", key="crack/000")),
        ("train/good/a.png", Place("train/normal")),
        ("valid/good/img/a.png", Place("val/normal", "normal")),
        ("valid/Ungood/img/a.png", Place("val/abnormal", "abnormal", "Ungood/a")),
        ("valid/Ungood/label/a.png", Place("aside", key="Ungood/a")),
        ("test/Ungood/img/a.png", Place("test", "abnormal", "Ungood/a")),
        ("test/Ungood/label/a.png", Place("masks", key="Ungood/a")),
        ("test/good/label/a.png", Place("aside", key="good/a")),
        ("readme.txt", Place("aside")),
        ("docs/a.png", Place("aside")),
        ("train/a.png", Place("misplaced")),
        ("train/abnormal/a.png", Place("misplaced")),
        ("test/a.png", Place("misplaced")),
    ],
)
def test_a_path_means(path: str, meaning: Place):
    assert place(path) == meaning
