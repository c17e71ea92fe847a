"""DICOM files made in memory, with a patient whose name must never be seen again."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

CANARY = "CANARY"
"""In each name of the patient."""


def dataset(pixels: np.ndarray, **tags: Any) -> Dataset:
    """Give an image [H, W] or [H, W, 3] and its patient; `tags` replace elements, None removes."""
    made = Dataset()
    made.PatientName, made.PatientID, made.InstitutionName, made.ImageComments = (
        f"{CANARY}^NAME", f"{CANARY}-ID", f"{CANARY} HOSPITAL", f"{CANARY} remark",
    )  # fmt: skip
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    made.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    made.BitsAllocated, made.BitsStored, made.HighBit = bits, bits, bits - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OW" if bits == 16 else "OB"
    for keyword, value in tags.items():
        if value is None:
            del made[keyword]
        else:
            setattr(made, keyword, value)
    return made


def dicom(pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **tags: Any) -> bytes:
    """Give such an image as a file with preamble and meta information."""
    made = dataset(pixels, **tags)
    if syntax == RLELossless:
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.compress(RLELossless, generate_instance_uid=False)
    return packed(made, syntax)


def twelve(pixels: np.ndarray, **tags: Any) -> bytes:
    """Give 12-bit pixels in 16 allocated bits as such a file."""
    return dicom(pixels.astype(np.uint16), BitsStored=12, HighBit=11, **tags)


def packed(made: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Write a dataset as a file with preamble and meta information."""
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    dcmwrite(file, made, enforce_file_format=True)
    return file.getvalue()


def bare(made: Dataset, *, implicit: bool, little: bool = True) -> bytes:
    """Write a dataset alone, as old archives do."""
    file = io.BytesIO()
    dcmwrite(file, made, implicit_vr=implicit, little_endian=little)
    return file.getvalue()


def spliced(data: bytes, added: bytes) -> bytes:
    """Put elements, as bytes in explicit little endian, before those of the pixels."""
    cut = data.index(b"\x28\0\x02\0")
    return data[:cut] + added + data[cut:]


def table(first: int, bits: int, entries: list[int]) -> Sequence:
    """Give a sequence of one lookup table."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    return Sequence([item])
