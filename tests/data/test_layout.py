"""What paths mean in our layout and in those of MVTec, BMAD, Brainomaly and MedIAnomaly."""

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
        ("test/abnormal/a.nii.gz", Place("test", "abnormal", "abnormal/a")),
        ("test/abnormal/1.2.840", Place("test", "abnormal", "abnormal/1.2.840")),
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
        ("train/a.png", Place("train")),
        ("train/good/img/a.png", Place("train/normal")),
        ("train/neg/a.png", Place("train/normal")),
        ("train/neg_mixed/a.png", Place("train/unlabeled")),
        ("train/pos/a.png", Place("train/unlabeled")),
        ("test/neg/a.png", Place("test", "normal")),
        ("test/pos/a.png", Place("test", "abnormal", "pos/a")),
        ("test/tumor/B_1_flair_7.png", Place("test", "tumor", "tumor/B_1_flair_7")),
        ("test/annotation/B_1_seg_7.png", Place("masks", key="B_1_flair_7")),
        ("train/abnormal/a.png", Place("misplaced")),
        ("test/a.png", Place("misplaced")),
    ],
)
def test_a_path_means(path: str, meaning: Place):
    assert place(path) == meaning
