"""16-bit colours are read bit for bit, in PNG and TIFF."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from gan_ray.data.readers import read_image
from gan_ray.errors import DataError
from tests.data.trees import noise, png

DEEP = np.stack([noise(n, 8, np.uint16) for n in range(4)], axis=2)
COLOUR = DEEP[..., :3]


def deep_png(pixels: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """Encode 16-bit colours, rows filtered by turns as they are or by what lies above."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    filters = np.arange(height) % 2 * 2
    stored = np.where(filters[:, None] == 2, rows - above, rows)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    lines = np.column_stack([filters.astype(np.uint8), stored]).tobytes()
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric="rgb", **options)
    return file.getvalue()


FILES = {
    "PNG": lambda: deep_png(COLOUR),
    "TIFF": lambda: tiff(COLOUR),
    "TIFF, big endian": lambda: tiff(COLOUR, byteorder=">"),
    "TIFF, packed": lambda: tiff(COLOUR, compression="zlib", predictor=True),
    "TIFF, packed, big endian": lambda: tiff(COLOUR, byteorder=">", compression="zlib"),
    "TIFF in strips": lambda: tiff(COLOUR, rowsperstrip=3),
    "TIFF with a fourth channel": lambda: tiff(DEEP, extrasamples=["unspecified"]),
    "TIFF multiplied by its alpha": lambda: tiff(DEEP, extrasamples=["assocalpha"]),
}


@pytest.mark.parametrize("kind", FILES)
def test_sixteen_bit_colours_keep_every_bit(kind: str):
    read = read_image(FILES[kind](), "a")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, COLOUR)


@pytest.mark.parametrize(
    "file", [lambda: deep_png(DEEP), lambda: tiff(DEEP, extrasamples=["unassalpha"])]
)
def test_transparent_colours_lie_over_black(file):
    expected = np.rint(COLOUR.astype(float) * DEEP[..., 3:] / 65535)
    np.testing.assert_allclose(read_image(file(), "a"), expected, atol=1)


def test_the_transparent_colour_alone_is_black():
    key = COLOUR[2, 5]
    read = read_image(deep_png(COLOUR, (b"tRNS", struct.pack(">HHH", *key))), "a")
    assert not read[2, 5].any()
    expected = COLOUR.copy()
    expected[2, 5] = 0
    np.testing.assert_array_equal(read, expected)


def test_the_orientation_is_applied_to_both_bytes():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read_image(deep_png(COLOUR, (b"eXIf", exif.tobytes()[6:])), "a")
    np.testing.assert_array_equal(turned, np.rot90(COLOUR, -1))


def test_planes_that_would_be_misread_are_refused():
    data = tiff(np.moveaxis(COLOUR, 2, 0), planarconfig="separate")
    with pytest.raises(DataError, match=r"plane of its own.*interleaved"):
        read_image(data, "a.tif")
    eight = (COLOUR >> 8).astype(np.uint8)
    for pixels, options in ((eight, {}), (COLOUR, {"compression": "zlib"})):
        planes = tiff(np.moveaxis(pixels, 2, 0), planarconfig="separate", **options)
        np.testing.assert_array_equal(read_image(planes, "a.tif"), eight)


def test_a_cut_file_is_refused_and_a_bomb_takes_no_memory():
    whole = deep_png(COLOUR)
    with pytest.raises(DataError):
        read_image(whole[: len(whole) // 2], "a.png")
    bomb = bytearray(whole)
    bomb[16:24] = struct.pack(">II", 40_000, 40_000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bytes(bomb[12:29])))
    tracemalloc.start()
    with pytest.raises(DataError, match="million"):
        read_image(bytes(bomb), "a.png")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_eight_bit_colours_stay_eight_bits():
    assert read_image(png((COLOUR >> 8).astype(np.uint8)), "a").dtype == np.uint8
