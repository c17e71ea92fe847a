"""Every file becomes the pixels it means, or a refusal that says why."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.formats import read_all
from gan_ray.data.brightness import MAX_PIXELS
from gan_ray.data.readers import read_image
from gan_ray.errors import DataError
from tests.data.trees import noise, png

GREY = noise(0, 16)
COLOUR = np.stack([noise(1, 16), noise(2, 16), noise(3, 16)], axis=2)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_lossless_files_give_back_their_pixels(kind: str, pixels: np.ndarray):
    read = read_image(png(pixels, kind), "a")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, pixels)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_kept(kind: str):
    pixels = noise(4, 16, np.uint16)
    read = read_image(png(pixels, kind), "a")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, pixels)


def test_a_big_endian_tiff_reads_as_its_little_endian_twin():
    pixels = noise(4, 16, np.uint16)
    values = pixels.astype(">u2").tobytes()
    tags = [(256, 16), (257, 16), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 16)]
    tags.append((279, len(values)))
    directory = b"".join(
        struct.pack(">HHII", tag, 4, 1, value) if tag in (273, 279)
        else struct.pack(">HHIHH", tag, 3, 1, value, 0)
        for tag, value in tags
    )  # fmt: skip
    head = b"MM\0*" + struct.pack(">I", 8 + len(values))
    data = head + values + struct.pack(">H", len(tags)) + directory + bytes(4)
    np.testing.assert_array_equal(read_image(data, "a.tif"), pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_that_stores_white_as_zero_is_inverted_at_every_depth(dtype: type):
    pixels = noise(5, 8, dtype)
    data = bytearray(png(pixels, "TIFF"))
    (start,) = struct.unpack("<I", data[4:8])
    (count,) = struct.unpack("<H", data[start : start + 2])
    for at in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack("<H", data[at : at + 2]) == (262,):
            data[at + 8 : at + 10] = bytes(2)
    np.testing.assert_array_equal(read_image(bytes(data), "a"), np.iinfo(dtype).max - pixels)


def test_a_palette_gives_its_colours_not_its_numbers():
    indices = Image.fromarray(np.array([[0, 1], [1, 0]], dtype=np.uint8), "L")
    image = indices.convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    file = io.BytesIO()
    image.save(file, "PNG")
    assert read_image(file.getvalue(), "a").tolist() == [
        [[10, 20, 30], [200, 100, 50]],
        [[200, 100, 50], [10, 20, 30]],
    ]


def test_one_bit_becomes_black_and_white():
    file = io.BytesIO()
    Image.fromarray(np.array([[True, False]])).save(file, "PNG")
    assert read_image(file.getvalue(), "a").tolist() == [[255, 0]]


def test_transparency_lies_over_black():
    grey = np.array([[[200, 255], [200, 51], [200, 0]]], dtype=np.uint8)
    assert read_image(png(grey), "a").tolist() == [[200, 40, 0]]
    colour = np.array([[[200, 100, 50, 255], [200, 100, 50, 51], [9, 9, 9, 0]]], dtype=np.uint8)
    assert read_image(png(colour), "a").tolist() == [[[200, 100, 50], [40, 20, 10], [0, 0, 0]]]


def test_a_transparent_colour_of_a_grey_png_is_black():
    data = png(np.array([[7, 9]], dtype=np.uint8), transparency=9)
    assert read_image(data, "a").tolist() == [[7, 0]]


def test_cmyk_becomes_rgb():
    file = io.BytesIO()
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(file, "JPEG", quality=100)
    read = read_image(file.getvalue(), "a")
    assert read.shape == (8, 8, 3)
    assert read[0, 0, 0] < 10
    assert read[0, 0, 1] > 240


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_exif_orientation_is_applied_exactly_once(kind: str, dtype: type):
    pixels = np.arange(12, dtype=dtype).reshape(3, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # the top row is shown at the right
    turned = read_image(png(pixels, kind, exif=exif), "a")
    np.testing.assert_array_equal(turned, np.rot90(pixels, -1))


def test_floats_from_zero_to_one_become_sixteen_bits():
    data = png(np.array([[0, 0.5, 1]], dtype=np.float32), "TIFF")
    assert read_image(data, "a").tolist() == [[0, 32768, 65535]]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0, np.nan]], dtype=np.float32), "NaN or infinite"),
        (np.array([[0, np.inf]], dtype=np.float32), "NaN or infinite"),
        (np.array([[0, 300]], dtype=np.float32), "floats from 0 to 300"),
        (np.array([[-1, 5]], dtype=np.int32), "integers from -1 to 5"),
        (np.array([[0, 65536]], dtype=np.int32), "integers from 0 to 65536"),
    ],
)
def test_values_without_a_defined_brightness_are_refused(values: np.ndarray, reason: str):
    with pytest.raises(DataError, match=reason):
        read_image(png(values, "TIFF"), "a.tif")


def test_integers_that_fit_sixteen_bits_are_kept():
    data = png(np.array([[0, 65535]], dtype=np.int32), "TIFF")
    assert read_image(data, "a").tolist() == [[0, 65535]]


def test_several_pages_are_refused():
    file = io.BytesIO()
    page = Image.fromarray(GREY)
    page.save(file, "TIFF", save_all=True, append_images=[page])
    with pytest.raises(DataError, match="several pages"):
        read_image(file.getvalue(), "a.tif")


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"", "a.png", "0 bytes"),
        (bytes(500), "zeros.jpg", "not a PNG"),
        (b"<html>no</html>", "a.jpg", "not a PNG"),
        (bytes(128) + b"DICM" + bytes(50), "scan", "DICOM"),
        (b"no preamble", "scan.dcm", "DICOM"),
        (bytes(344) + b"n+1\0", "volume", "NIfTI"),
        (b"\x93NUMPY\x01\0", "a.npy", "NumPy"),
        (b"GIF89a" + bytes(50), "a.png", "GIF"),
        (b"PK\x03\x04" + bytes(50), "a.zip", "archive"),
    ],
)
def test_what_is_no_readable_image_is_refused_by_name_with_reason(
    data: bytes, name: str, reason: str
):
    with pytest.raises(DataError, match=reason) as caught:
        read_image(data, name)
    assert repr(name) in str(caught.value)


def header_only(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    empty = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + empty


@pytest.mark.parametrize("size", [(40_000, 1_001), (8_000, 5_001)])
def test_more_pixels_than_allowed_are_refused_before_memory_is_taken(size: tuple[int, int]):
    assert size[0] * size[1] > MAX_PIXELS
    tracemalloc.start()
    with pytest.raises(DataError, match="40 million"):
        read_image(header_only(*size), "bomb.png")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


WHOLE = png(GREY)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.booleans())
def test_a_damaged_file_gives_pixels_or_a_refusal_and_nothing_else(at: int, byte: int, cut: bool):
    data = WHOLE[:at] if cut else WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :]
    try:
        read = read_image(data, "a.png")
    except DataError:
        return
    assert read.dtype in (np.uint8, np.uint16)
    assert read.ndim in (2, 3)


def test_every_file_of_formats_gives_what_is_expected_in_time_and_memory(
    data_dir: Path, tmp_path: Path, monkeypatch, caplog, capfd
):
    path = data_dir / "formats" / "formats.zip"
    if not path.is_file():
        pytest.skip("no formats.zip")
    monkeypatch.chdir(tmp_path)
    rows = read_all(path)
    assert not [row for row in rows if not row.right]
    assert len(rows) == 87
    assert not list(tmp_path.iterdir())
    told = caplog.text + "".join(capfd.readouterr())
    assert not [word for word in ("Doe", "SECRET-123", "999-99-9999") if word in told]


def test_files_that_hold_the_same_image_give_the_same_pixels(data_dir: Path):
    path = data_dir / "formats" / "formats.zip"
    if not path.is_file():
        pytest.skip("no formats.zip")
    archive = zipfile.ZipFile(path)

    def read(name: str) -> np.ndarray:
        return read_image(archive.read(f"formats/{name}"), name)

    plain = read("dicom/cxr_mono2_12bit.dcm")
    np.testing.assert_array_equal(read("dicom/cxr_mono1_12bit.dcm"), plain)
    np.testing.assert_array_equal(read("dicom/cxr_with_phi.dcm"), plain)
    small = read("dicom/pydicom_MR_small.dcm")
    np.testing.assert_array_equal(read("dicom/pydicom_MR_small_RLE.dcm"), small)
    light = read("dicom/real_cxr_jpeg_baseline.dcm")
    np.testing.assert_array_equal(read("dicom/real_cxr_faked_monohr1.dcm"), 255 - light)
    np.testing.assert_array_equal(read("nasty/gray.npy"), read("nasty/UPPER.PNG"))
