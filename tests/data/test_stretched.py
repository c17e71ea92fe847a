"""A medical image without a window is known by its file, and by nothing else."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from gan_ray.data.readers import read_image
from gan_ray.data.stretched import is_stretched
from tests.data.dicoms import dicom, twelve
from tests.data.test_nifti import nifti
from tests.data.trees import noise, png

VALUES = np.random.default_rng(0).integers(0, 4000, (9, 8))
VOLUME = VALUES[..., None].astype(np.int16)
RANGE = {"cal_min": 0.0, "cal_max": 1000.0}
FILES = {
    "DICOM without window": (twelve(VALUES), True),
    "its inverse": (twelve(VALUES, PhotometricInterpretation="MONOCHROME1"), True),
    "DICOM with window": (twelve(VALUES, WindowCenter=2000, WindowWidth=500), False),
    "DICOM of 8 bits": (dicom(noise(1)), False),
    "NIfTI without range": (nifti(VOLUME), True),
    "NIfTI-2 without range": (nifti(VOLUME, kind=nibabel.Nifti2Image), True),
    "NIfTI with range": (nifti(VOLUME, **RANGE), False),
    "NIfTI-2 with range": (nifti(VOLUME, kind=nibabel.Nifti2Image, **RANGE), False),
    "NIfTI of 8 bits": (nifti(noise(1)[..., None]), False),
    "PNG of the full range": (png(np.array([[0, 65535]], np.uint16)), False),
}


@pytest.mark.parametrize("kind", FILES)
def test_only_medical_images_without_a_window_are_stretched(kind: str):
    content, expected = FILES[kind]
    data = bytes(content)
    assert is_stretched(data, read_image(data, kind)) == expected
