"""Medical images whose brightness is their own: no window says what black and white mean."""

from __future__ import annotations

import math

import numpy as np

from gan_ray.data.readers import is_dicom, is_nifti


def is_stretched(data: bytes, pixels: np.ndarray) -> bool:
    """Say whether an image was read from its own darkest to its own brightest value.

    So are DICOM and NIfTI files that state no window and no range; `data` is the file's content
    and `pixels` what was read of it.
    """
    if pixels.dtype != np.uint16 or pixels.min() > 0 or pixels.max() < 65535:
        return False
    if is_dicom(data):
        from gan_ray.data.dicom_header import Header  # as in readers: others do not wait for it

        header = Header(data, "")
        window = header.numbers("WindowCenter") and header.numbers("WindowWidth")
        return pixels.ndim == 2 and not window and "VOILUTSequence" not in header
    if is_nifti(data):
        from gan_ray.data.nifti import fixed_header

        stated = fixed_header(data, "")
        return not 0 < float(stated["cal_max"]) - float(stated["cal_min"]) < math.inf
    return False
