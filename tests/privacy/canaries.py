"""Data sets whose every name and tag is a canary, and a search for canaries in what came out."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pydicom.dataset import Dataset

from tests.data.dicoms import dataset, packed
from tests.data.trees import noise, scene

CANARIES = ("Zqcanary", "773417734177341")
"""In each name of a file, folder or patient and in each tag of text; in each UID and number."""
UID = f"1.2.826.0.1.{CANARIES[1]}"

_EXPLICIT = b"1.2.840.10008.1.2.1"
_FOREIGN = b"1.2.773417734177341"
"""A transfer syntax of nobody, of the same length."""

PARTS = {"train/normal": 24, "train/unlabeled": 6, "test/normal": 4, "test/abnormal": 4}


def film(number: int, **tags: object) -> bytes:
    """Give a film of 12 bits with canaries in all that says whose it is."""
    pixels = noise(number, 20, np.uint16) >> np.uint16(4)
    return packed(tagged(dataset(pixels, BitsStored=12, HighBit=11), number, **tags))


def tagged(made: Dataset, number: int, **tags: object) -> Dataset:
    """Put canaries into the tags of a dataset."""
    word, digits = CANARIES
    private = made.private_block(0x0011, f"{word} MAKER", create=True)
    private.add_new(0x01, "LO", f"{word} private")
    told = {
        "PatientName": f"{word}^Jane{number}",
        "PatientID": f"{digits}{number}",
        "PatientComments": f"{word} says",
        "AccessionNumber": digits,
        "StudyDescription": f"{word} study",
        "InstitutionName": f"{word} hospital",
        "SOPInstanceUID": f"{UID}.{number}",
        "StudyInstanceUID": f"{UID}.1",
        "SeriesInstanceUID": f"{UID}.2",
        "FrameOfReferenceUID": f"{UID}.3",
        "WindowCenter": 2000,
        "WindowWidth": 4000,
        **tags,
    }
    for keyword, value in told.items():
        setattr(made, keyword, value)
    return made


def name_of(part: str, number: int) -> str:
    """Give the path of a film: a folder and a file that name the patient."""
    return f"{part}/{CANARIES[0]}_folder/{CANARIES[0]}Jane{number:03d}_{UID}.{number}.dcm"


def films() -> dict[str, bytes]:
    """Give sound films of a whole data set by their paths."""
    parts = [part for part, count in PARTS.items() for _ in range(count)]
    return {name_of(part, number): film(number) for number, part in enumerate(parts)}


def broken() -> dict[str, bytes]:
    """Give films that cannot be used, each in a way of its own."""
    whole = film(0)
    frames = dataset(noise(1, 20, np.uint16))
    syntax = dataset(noise(2, 20, np.uint16))
    contents = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "head": whole[:200],
        "text": f"{CANARIES[0]} wrote this".encode(),
        "frames": packed(tagged(frames, 1, NumberOfFrames=3)),
        "syntax": packed(tagged(syntax, 2)).replace(_EXPLICIT, _FOREIGN),
        "window": film(3, WindowWidth=-1),
        "colour": film(4, PhotometricInterpretation="ZQCANARY"),
        "number": whole.replace(b"US\2\0\14\0", b"US\2\0\77\0"),
        "array": array_of_records(),
        "archive": zip_of(f"{CANARIES[0]}.txt", b"x"),
    }
    return {
        f"train/normal/{CANARIES[0]}_folder/{CANARIES[0]}_{kind}.dcm": content
        for kind, content in contents.items()
    }


def array_of_records() -> bytes:
    """Give an npy file whose fields are called as patients are."""
    file = io.BytesIO()
    np.save(file, np.zeros((4, 4), [(CANARIES[0], "u1")]), allow_pickle=False)
    return file.getvalue()


def zip_of(name: str, content: bytes) -> bytes:
    """Give an archive of one file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def leaking() -> dict[str, bytes]:
    """Give a data set with all that a check finds: copies, patients and pictures on both sides."""
    made = films()
    first, other = list(made)[:2]
    made[name_of("test/normal", 0)] = made[first]  # the same patient and the same file
    made[name_of("train/unlabeled", 1)] = made[other]
    large, small = (scene(7, size).astype(np.uint16) << 4 for size in (96, 48))
    for part, pixels in (("train/normal", large), ("test/abnormal", small)):
        made[name_of(part, 900 + len(pixels))] = packed(tagged(dataset(pixels), 900))
    made[name_of("train/normal", 990)] = packed(
        tagged(dataset(np.full((20, 20), 7, np.uint16)), 990)
    )
    stretched = tagged(dataset(noise(991, 20, np.uint16)), 991)
    del stretched.WindowCenter, stretched.WindowWidth
    made[name_of("train/normal", 991)] = packed(stretched)
    made[f"{CANARIES[0]}_beside.txt"] = b"a file that is not used"
    return made


def found_in(text: str | bytes) -> list[str]:
    """Give the canaries in a text, in any case."""
    text = text if isinstance(text, str) else text.decode("latin-1")
    return [canary for canary in CANARIES if canary.lower() in text.lower()]


def leaks(folders: Iterable[Path]) -> Mapping[str, list[str]]:
    """Give the canaries in each file below some folders: in its name, its bytes, its tables."""
    seen: dict[str, list[str]] = {}
    for folder in folders:
        for path in filter(Path.is_file, folder.rglob("*")):
            text = str(path.relative_to(folder)) + path.read_bytes().decode("latin-1")
            if path.suffix == ".parquet":
                text += repr(pq.read_table(path).to_pylist())
            if path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as arrays:
                    text += repr([arrays[name].tolist() for name in arrays if
                                  arrays[name].dtype.kind in "US"])  # fmt: skip
            if there := found_in(text):
                seen[str(path)] = there
    return seen
