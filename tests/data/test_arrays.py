"""An npy or npz file becomes the one image that it holds, or a refusal; nothing is unpickled."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_ray.data.readers import read_image
from gan_ray.errors import DataError
from tests.data.trees import noise

GREY = noise(0, 16)
COLOUR = np.stack([noise(1, 16), noise(2, 16), noise(3, 16)], axis=2)


def npy(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(packed: bool = True, **arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize("pixels", [GREY, COLOUR, noise(4, 16, np.uint16)])
@pytest.mark.parametrize("encode", [npy, lambda a: npz(image=a), lambda a: npz(False, image=a)])
def test_pixels_come_back_as_they_were_saved(pixels, encode):
    read = read_image(encode(pixels), "a")
    assert read.dtype == pixels.dtype
    np.testing.assert_array_equal(read, pixels)


def test_order_and_endianness_are_those_of_the_file_alone():
    wide = noise(4, 16, np.uint16)
    for stored in (np.asfortranarray(wide), wide.astype(">u2"), wide.astype(np.int64)):
        read = read_image(npy(stored), "a")
        assert read.dtype == np.uint16
        np.testing.assert_array_equal(read, wide)


def test_booleans_are_black_and_white_and_floats_have_sixteen_bits():
    assert read_image(npy(np.array([[True, False]])), "a").tolist() == [[255, 0]]
    assert read_image(npy(np.array([[0, 0.5, 1]])), "a").tolist() == [[0, 32768, 65535]]
    assert read_image(npy(np.array([[0, 0.5]], np.float16)), "a").tolist() == [[0, 32768]]


class Payload:
    def __reduce__(self):
        return (print, ("CANARY",))


PICKLED = npy(np.array([Payload()], dtype=object), allow_pickle=True)


def entry(data: bytes, name: str = "image.npy") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (PICKLED, "objects, which are never loaded"),
        (entry(PICKLED), "objects, which are never loaded"),
        (npz(a=GREY, b=GREY), "2 arrays"),
        (npy(GREY)[:-1], "fewer bytes"),
        (npy(GREY) + b"\0", "more bytes"),
        (entry(npy(GREY)[:-1]), "fewer bytes"),
        (npz(image=GREY)[:-4], "damaged"),
        (npz(image=GREY).replace(npz(image=GREY)[80:84], b"\0\0\0\0"), "damaged"),
        (npy(GREY[0]), r"shape \[16\]"),
        (npy(GREY[None]), r"shape \[1, 16, 16\]"),
        (npy(np.zeros((4, 4, 4), np.uint8)), r"shape \[4, 4, 4\]"),
        (npy(np.zeros((0, 4), np.uint8)), "4 x 0 pixels"),
        (npy(np.zeros((2, 2), np.complex64)), "type complex64"),
        (npy(np.zeros((2, 2), "U3")), "type <U3"),
        (npy(np.zeros((2, 2), [("a", "u1")])), "type"),
        (npy(np.array([[-1, 0]])), "integers from -1 to 0"),
        (npy(np.array([[0.0, 2.0]])), "floats from 0 to 2"),
        (npy(np.array([[0.0, np.nan]])), "NaN or infinite"),
        (b"\x93NUMPY\x09\0", "unknown version"),
        (b"\x93NUMPY\x01\0", "damaged"),
        (entry(b"text", "notes.txt"), "archive"),
    ],
)
def test_what_is_no_image_is_refused_with_reason(data, reason, capfd):
    with pytest.raises(DataError, match=reason) as caught:
        read_image(data, "a.npz")
    assert "'a.npz'" in str(caught.value)
    assert "CANARY" not in "".join(capfd.readouterr())


def header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    told = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, told)
    return file.getvalue()


@pytest.mark.parametrize("shape", [(40_000, 1_001), (100, 100)])
def test_a_bomb_is_refused_before_it_is_unpacked(shape):
    data = entry(header(shape) + bytes(2**27))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"40 million|more bytes"):
        read_image(data, "a")
    assert tracemalloc.get_traced_memory()[1] < 2**21 + len(data)
    tracemalloc.stop()


def test_a_list_of_countless_entries_is_refused_in_time():
    names = b"".join(
        struct.pack("<4s6H3I5H2I", b"PK\1\2", *[0] * 9, 1, *[0] * 6) + b"a" for _ in range(400_000)
    )
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(names), 0, 0)
    start = time.perf_counter()
    with pytest.raises(DataError, match="many arrays"):
        read_image(entry(npy(GREY))[:200] + names + end, "a")
    assert time.perf_counter() - start < 1


WHOLE = npz(image=GREY)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.booleans())
def test_a_damaged_file_gives_pixels_or_a_refusal_and_nothing_else(at, byte, cut):
    data = WHOLE[:at] if cut else WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :]
    try:
        read = read_image(data, "a")
    except DataError:
        return
    assert read.dtype in (np.uint8, np.uint16)
    assert read.ndim in (2, 3)
