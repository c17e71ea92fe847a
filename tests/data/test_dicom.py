"""A DICOM file becomes what a viewer shows, or a refusal that says nothing of the patient."""

from __future__ import annotations

import io
import logging
import struct
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.tag import Tag
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from gan_ray.data.dicom_frames import stated_size
from gan_ray.data.readers import read_image
from gan_ray.errors import DataError
from tests.data.dicoms import CANARY, bare, dataset, dicom, packed, spliced, table, twelve
from tests.data.trees import noise

GREY = noise(0, 16)
DEEP = noise(1, 16, np.uint16)
COLOUR = np.stack([noise(2, 16), noise(3, 16), noise(4, 16)], axis=2)
RAMP = np.array([[0, 1000, 2000, 3000, 4095]])


def test_eight_bits_without_a_window_stay_as_they_are():
    read = read_image(dicom(GREY), "a")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, GREY)


def test_twelve_bits_without_a_window_go_from_the_darkest_to_the_brightest():
    read = read_image(twelve(np.array([[100, 200, 300]])), "a")
    assert read.dtype == np.uint16
    assert read.tolist() == [[0, 32768, 65535]]


def test_the_window_of_the_file_is_its_brightness():
    # PS3.3 C.11.2.1.2.1 with c = 2048, w = 2001: from 1047.5 to 3047.5.
    read = read_image(twelve(RAMP, WindowCenter=2048, WindowWidth=2001), "a")
    expected = [0, 0, 65535 * (2000 - 1047.5) / 2000, 65535 * (3000 - 1047.5) / 2000, 65535]
    np.testing.assert_allclose(read[0], expected, atol=0.5)


def test_the_first_of_several_windows_counts():
    one = twelve(RAMP, WindowCenter=900, WindowWidth=500)
    two = twelve(RAMP, WindowCenter=[900, 3000], WindowWidth=[500, 100])
    np.testing.assert_array_equal(read_image(two, "a"), read_image(one, "a"))


@pytest.mark.parametrize(
    ("function", "width", "expected"),
    [
        ("LINEAR_EXACT", 2000, [0, 0, 32768, 65535, 65535]),
        ("SIGMOID", 2000, [65535 / (1 + np.exp(-4 * (x - 2000) / 2000)) for x in RAMP[0]]),
        ("LINEAR", 1, [0, 0, 65535, 65535, 65535]),
    ],
)
def test_windows_have_the_functions_of_the_standard(function, width, expected):
    tags = {"WindowCenter": 2000, "WindowWidth": width, "VOILUTFunction": function}
    np.testing.assert_allclose(read_image(twelve(RAMP, **tags), "a")[0], expected, atol=0.5)


def test_values_are_rescaled_before_they_are_windowed():
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    rescaled = twelve(RAMP // 2, RescaleSlope=2, RescaleIntercept=-1024, **window)
    plain = twelve(np.clip(RAMP // 2 * 2 - 1024, 0, 4095), **window)
    np.testing.assert_array_equal(read_image(rescaled, "a"), read_image(plain, "a"))


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 2048, "WindowWidth": 4096}])
def test_monochrome1_is_inverted_and_then_equals_its_twin(window):
    stored = 4095 - RAMP
    inverted = twelve(stored, PhotometricInterpretation="MONOCHROME1", **window)
    np.testing.assert_array_equal(
        read_image(inverted, "a"), read_image(twelve(RAMP, **window), "a")
    )


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_counts_for_nothing(photometric):
    pixels = np.array([[-2000, 100, 300]], np.int16)
    tags = {"PhotometricInterpretation": photometric, "PixelPaddingValue": -2000}
    read = read_image(dicom(pixels, **tags), "a")
    assert read[0, 0] == 0
    assert sorted(read[0, 1:].tolist()) == [0, 65535]


def test_signed_values_are_signed():
    pixels = np.array([[-1000, 0, 1000]], np.int16)
    assert read_image(dicom(pixels), "a").tolist() == [[0, 32768, 65535]]
    twelve_signed = dicom(pixels & 0xFFF, BitsStored=12, HighBit=11, PixelRepresentation=1)
    assert read_image(twelve_signed, "a").tolist() == [[0, 32768, 65535]]


def test_bits_beside_the_stored_ones_are_no_brightness():
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    overlay, plain = twelve(RAMP | 0xF000, **window), twelve(RAMP, **window)
    np.testing.assert_array_equal(read_image(overlay, "a"), read_image(plain, "a"))
    high = dicom((RAMP << 4).astype(np.uint16), BitsStored=12, HighBit=15, **window)
    np.testing.assert_array_equal(read_image(high, "a"), read_image(plain, "a"))


def test_a_constant_image_is_black():
    assert not read_image(dicom(np.full((4, 4), 700, np.uint16)), "a").any()


def test_one_bit_becomes_black_and_white():
    data = dicom(np.zeros((1, 8), np.uint8), BitsAllocated=1, BitsStored=1, HighBit=0,
                 PixelData=b"\x05\x00")  # fmt: skip
    assert read_image(data, "a").tolist() == [[255, 0, 255, 0, 0, 0, 0, 0]]


def test_a_voi_table_is_followed_where_there_is_no_window():
    pixels = np.array([[0, 1, 2, 3, 200]], np.uint16)
    told = table(1, 10, [1023, 500, 0])
    read = read_image(dicom(pixels, VOILUTSequence=told), "a")
    np.testing.assert_allclose(read[0], [65535, 65535, 65535 * 500 / 1023, 0, 0], atol=0.5)
    windowed = dicom(pixels, VOILUTSequence=told, WindowCenter=1.5, WindowWidth=3)
    assert read_image(windowed, "a")[0, 0] == 0


def test_a_modality_table_comes_before_the_window():
    pixels = np.array([[0, 1, 2]], np.uint16)
    told = table(0, 16, [4095, 2048, 0])
    read = read_image(
        dicom(pixels, ModalityLUTSequence=told, WindowCenter=2048, WindowWidth=4096), "a"
    )
    np.testing.assert_allclose(read[0], [65535, 65535 * 2048 / 4095, 0], atol=0.5)


@pytest.mark.parametrize("planar", [0, 1])
def test_colours_are_colours_in_either_order(planar):
    stored = COLOUR if planar == 0 else np.ascontiguousarray(np.moveaxis(COLOUR, 2, 0))
    data = dicom(COLOUR, PlanarConfiguration=planar, PixelData=stored.tobytes())
    np.testing.assert_array_equal(read_image(data, "a"), COLOUR)


def test_ybr_becomes_rgb():
    ybr = np.array([[[255, 128, 128], [76, 85, 255]]], np.uint8)
    read = read_image(dicom(ybr, PhotometricInterpretation="YBR_FULL"), "a")
    np.testing.assert_allclose(read[0], [[255, 255, 255], [254, 0, 0]], atol=1)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_gives_its_colours(bits):
    tags = {}
    for name, entries in (("Red", [1, 2, 3]), ("Green", [40, 50, 60]), ("Blue", [9, 0, 255])):
        kind = "<u2" if bits == 16 else np.uint8
        scaled = np.array(entries, kind) * (257 if bits == 16 else 1)
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [3, 0, bits]
        tags[f"{name}PaletteColorLookupTableData"] = scaled.tobytes().ljust(6, b"\0")[:6]
    tags["PhotometricInterpretation"] = "PALETTE COLOR"
    if bits == 8:  # an even number of bytes
        tags = {k: v[:4] if k.endswith("Data") else v for k, v in tags.items()}
    read = read_image(dicom(np.array([[0, 2], [1, 77]], np.uint8), **tags), "a")
    expected = [[[1, 40, 9], [3, 60, 255]], [[2, 50, 0], [3, 60, 255]]]
    np.testing.assert_array_equal(read, np.array(expected) * (257 if bits == 16 else 1))


WINDOW = {"WindowCenter": 32768, "WindowWidth": 65536}


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("pixels", [GREY, DEEP, COLOUR], ids=["8", "16", "colour"])
def test_syntaxes_that_lose_nothing_give_back_the_pixels(syntax, pixels):
    read = read_image(dicom(pixels, syntax, **(WINDOW if pixels is DEEP else {})), "a")
    np.testing.assert_array_equal(read, pixels)


def test_big_endian_is_read():
    swapped = dataset(DEEP, **WINDOW, PixelData=DEEP.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_image(packed(swapped, ExplicitVRBigEndian), "a"), DEEP)


@pytest.mark.parametrize("implicit", [True, False])
def test_a_file_without_preamble_is_known_by_its_first_element(implicit):
    data = bare(dataset(GREY), implicit=implicit)
    assert data[128:132] != b"DICM"
    np.testing.assert_array_equal(read_image(data, "IM000001"), GREY)


def encoded(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(GREY).save(file, kind, **options)
    return file.getvalue()


def compressed(frame: bytes, syntax: str, **tags: object) -> bytes:
    made = dataset(GREY, PixelData=encapsulate([frame]), **tags)
    made["PixelData"].is_undefined_length = True
    return packed(made, syntax)


def test_jpeg_and_jpeg_2000_are_decoded():
    jpeg = encoded("JPEG", quality=90)
    read = read_image(compressed(jpeg, JPEGBaseline8Bit), "a")
    np.testing.assert_array_equal(read, read_image(jpeg, "a"))
    whole = encoded("JPEG2000", irreversible=False, no_jp2=True)
    np.testing.assert_array_equal(read_image(compressed(whole, JPEG2000Lossless), "a"), GREY)


@pytest.mark.parametrize(
    ("kind", "syntax"), [("JPEG", JPEGBaseline8Bit), ("JPEG2000", JPEG2000Lossless)]
)
def test_a_frame_of_another_size_than_told_is_not_decoded(kind, syntax):
    file = io.BytesIO()
    Image.new("L", (9000, 9000)).save(file, kind, **({"no_jp2": True} if "2" in kind else {}))
    data = compressed(file.getvalue(), syntax)
    tracemalloc.start()
    with pytest.raises(DataError, match="another size than the 16 x 16"):
        read_image(data, "bomb")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(data) + 2**22


@pytest.mark.parametrize("start", [0xC0, 0xC3, 0xF7])
def test_a_frame_states_its_size_in_every_kind_of_jpeg(start):
    tables = b"\xff\xd8\xff\xc4\0\5abc\xff\xff\xe0\0\4ab"
    assert stated_size(tables + bytes([0xFF, start]) + b"\0\x0b\x08\0\2\1\0\1") == (256, 2)


def test_run_lengths_take_no_more_memory_than_the_image():
    segment = b"\x81\x00" * 2**20  # 128 zeros from two bytes each
    header = np.array([1, 64] + [0] * 14, "<u4").tobytes()
    data = compressed(header + segment, RLELossless)
    tracemalloc.start()
    assert not read_image(data, "bomb").any()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * len(data)


def test_a_missing_decoder_is_named_with_the_package_that_helps():
    if get_decoder(JPEGLosslessSV1).is_available:
        pytest.skip("a decoder for JPEG lossless is installed")
    with pytest.raises(DataError, match=r"JPEG Lossless.* no decoder.*pip install 'gan-ray\[dicom"):
        read_image(compressed(b"\xff\xd8", JPEGLosslessSV1), "a")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (dicom(GREY, PixelData=None), "without an image"),
        (dicom(GREY, PixelData=GREY.tobytes()[:-10]), "fewer pixels than the 16 x 16"),
        (dicom(GREY, PixelData=GREY.tobytes() * 2), "more pixels than the 16 x 16"),
        (dicom(GREY, NumberOfFrames=3, PixelData=GREY.tobytes() * 3), "3 frames"),
        (dicom(GREY, Rows=0), "16 x 0 pixels"),
        (dicom(GREY, Rows=65535, Columns=65535), "65535 x 65535 pixels"),
        (dicom(GREY, Rows=None), "Rows is missing"),
        (dicom(GREY, BitsAllocated=32, BitsStored=32, HighBit=31), "32 bits"),
        (dicom(GREY, BitsStored=9), "exclude each other"),
        (dicom(GREY, HighBit=3), "exclude each other"),
        (dicom(GREY, SamplesPerPixel=4), "colour space"),
        (dicom(GREY, WindowCenter=1, WindowWidth=0), "WindowWidth is too small"),
        (dicom(GREY, VOILUTSequence=table(0, 40, [1, 2])), "lookup table"),
        (dicom(GREY, PhotometricInterpretation="PALETTE COLOR"), "lookup table"),
        (dicom(GREY, DeflatedExplicitVRLittleEndian), "deflated"),
        (compressed(b"\0\0", MPEG2MPML), "MPEG2.* not read"),
        (compressed(encoded("JPEG")[:-40], JPEGBaseline8Bit), "cannot be decoded"),
        (dicom(GREY)[:400], "without an image|damaged"),
        (bytes(128) + b"DICM" + bytes(50), "image|damaged"),
    ],
)
def test_what_is_no_readable_image_is_refused_with_reason(data: bytes, reason: str):
    with pytest.raises(DataError, match=reason) as caught:
        read_image(data, "scan.dcm")
    assert "'scan.dcm'" in str(caught.value)
    assert caught.value.__context__ is None or CANARY not in repr(caught.value.__context__)


def test_absurd_sizes_are_refused_before_memory_is_taken():
    data = dicom(GREY, Rows=65535, Columns=65535)
    tracemalloc.start()
    with pytest.raises(DataError, match="40 million"):
        read_image(data, "a")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_an_endless_header_is_refused_in_time():
    data = spliced(dicom(GREY), b"\x09\0\x01\0LO\0\0" * 1_000_000)
    start = time.perf_counter()
    with pytest.raises(DataError, match="20,000 elements"):
        read_image(data, "a")
    assert time.perf_counter() - start < 10


def told_of(data: bytes) -> str:
    """All that reading a file tells, which is nothing of those that become pixels."""
    try:
        read = read_image(data, "scan")
    except DataError as error:
        return f"{error} {error.__context__!r} {error.__cause__!r}"
    assert read.dtype in (np.uint8, np.uint16)
    assert read.ndim in (2, 3)
    return ""


@pytest.mark.parametrize(
    ("keyword", "vr"),
    [
        ("SpecificCharacterSet", "CS"),
        ("WindowCenter", "DS"),
        ("WindowWidth", "DS"),
        ("RescaleSlope", "DS"),
        ("NumberOfFrames", "IS"),
        ("Rows", "US"),
        ("BitsStored", "US"),
        ("PhotometricInterpretation", "CS"),
        ("VOILUTFunction", "CS"),
        ("PixelPaddingValue", "US"),
        ("VOILUTSequence", "SQ"),
        ("PatientName", "PN"),
    ],
)
def test_no_value_of_the_header_reaches_errors_warnings_or_logs(
    keyword, vr, caplog, recwarn, capfd
):
    caplog.set_level(logging.DEBUG)
    made = dataset(GREY)
    made.pop(keyword, None)
    length = b"\0\0\6\0\0\0" if vr == "SQ" else b"\6\0"
    tag = struct.pack("<HH", Tag(keyword).group, Tag(keyword).element)
    data = spliced(packed(made), tag + vr.encode() + length + CANARY.encode())
    assert CANARY.encode() in data
    told = [told_of(data), told_of(data[:-30])]
    assert CANARY not in "".join(told)
    assert CANARY not in caplog.text
    assert not [warning for warning in recwarn if CANARY in str(warning.message)]
    assert CANARY not in "".join(capfd.readouterr())


WHOLE = twelve(RAMP, WindowCenter=2048, WindowWidth=2001)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.booleans())
def test_a_damaged_file_gives_pixels_or_a_refusal_without_its_patient(at, byte, cut):
    data = WHOLE[:at] if cut else WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :]
    assert CANARY not in told_of(data)
