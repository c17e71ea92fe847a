"""A NIfTI file becomes the slice in its middle, or a refusal."""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_ray.data.readers import read_image
from gan_ray.errors import DataError

VOLUME = np.random.default_rng(0).integers(0, 256, (6, 5, 4), np.uint8)
RAS = np.eye(4)


def nifti(volume: np.ndarray, affine: np.ndarray = RAS, kind: type = nibabel.Nifti1Image, **fields):
    """A volume as a file; `fields` replace those of its header."""
    image = kind(volume, affine)
    for name, value in fields.items():
        image.header[name] = value
    return bytearray(image.to_bytes())


def shown(plane: np.ndarray) -> np.ndarray:
    """A plane [x, y] from right to left and back to front, as a film on a light box."""
    return plane.T[::-1, ::-1]


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("packed", [False, True])
def test_the_middle_axial_slice_is_given_front_up_and_right_at_the_left(kind, packed):
    data = bytes(nifti(VOLUME, kind=kind))
    read = read_image(gzip.compress(data) if packed else data, "a")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, shown(VOLUME[:, :, 2]))


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_the_order_in_which_a_volume_is_stored_changes_nothing(axes, flips):
    stored = np.transpose(VOLUME[:, :, :3], axes)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for place, axis in enumerate(axes):
        affine[axis, place] = flips[axis]
        stored = np.flip(stored, place) if flips[axis] < 0 else stored
    read = read_image(bytes(nifti(stored, affine)), "a")
    np.testing.assert_array_equal(read, shown(VOLUME[:, :, 1]))


def test_the_first_of_several_volumes_counts():
    several = np.stack([VOLUME, 255 - VOLUME], axis=3)
    np.testing.assert_array_equal(read_image(bytes(nifti(several)), "a"), shown(VOLUME[:, :, 2]))


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1)])
def test_a_single_slice_is_that_slice(shape):
    plane = VOLUME[:, :, 0]
    np.testing.assert_array_equal(read_image(bytes(nifti(plane.reshape(shape))), "a"), shown(plane))
    standing = nifti(plane[:, None, :])
    np.testing.assert_array_equal(read_image(bytes(standing), "a"), shown(plane))


def test_values_go_from_the_darkest_to_the_brightest_of_the_slice():
    volume = np.full((1, 3, 3), 30_000, np.int16)
    volume[0, :, 1] = [-100, 0, 100]
    for stored in (volume, volume.astype(np.float32), volume.astype(">i2")):
        read = read_image(bytes(nifti(np.repeat(stored, 2, 0))), "a")
        assert read.tolist() == [[65535] * 2, [32768] * 2, [0] * 2]


def test_a_stated_range_is_kept_and_values_are_scaled_before():
    volume = np.array([[[0], [50], [100], [200]]], np.int16).repeat(2, 0)
    read = read_image(bytes(nifti(volume, cal_min=0, cal_max=100)), "a")
    assert read[:, 0].tolist() == [65535, 65535, 32768, 0]
    scaled = nifti(volume, cal_min=10, cal_max=110)
    scaled[112:120] = np.array([0.5, 10], "<f4").tobytes()  # scl_slope, scl_inter
    assert read_image(bytes(scaled), "a")[:, 0].tolist() == [65535, 32768, 16384, 0]


def test_a_constant_slice_is_black():
    assert not read_image(bytes(nifti(np.full((3, 3, 3), 7, np.int16))), "a").any()


def header_only(shape: tuple[int, ...], dtype: type = np.int16) -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return header.binaryblock + bytes(4)


NAN = np.where(np.arange(120).reshape(6, 5, 4) == 10, np.nan, 1).astype(np.float32)
COMPLEX = VOLUME.astype(np.complex64)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bytes(nifti(VOLUME))[:-1], "fewer voxels"),
        (gzip.compress(bytes(nifti(VOLUME)))[:-20], "cut off or damaged"),
        (gzip.compress(bytes(nifti(VOLUME))[:-1]), "fewer voxels"),
        (bytes(nifti(NAN)), "NaN or infinite"),
        (bytes(nifti(COMPLEX)), "type complex64"),
        (bytes(nifti(VOLUME)).replace(b"n+1", b"ni1"), "pair"),
        (header_only((6, 5, 4))[:70] + b"\x4d" + header_only((6, 5, 4))[71:], "damaged"),
        (bytes(nifti(VOLUME)) + bytes(2**21), "more voxels"),
        (header_only((32767, 32767, 32767)), r"32767, 32767, 32767\], .* allowed"),
        (gzip.compress(b"no volume" * 100), "packed file that holds no NIfTI"),
        (b"\x1f\x8bpacked", "packed file that holds no NIfTI"),
    ],
)
def test_what_cannot_be_read_is_refused_with_reason(data, reason):
    with pytest.raises(DataError, match=reason) as caught:
        read_image(data, "scan.nii")
    assert "'scan.nii'" in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((100, 100, 10), "more voxels"), ((600, 600, 700), "fewer voxels")],
)
def test_a_bomb_takes_the_memory_of_the_volume_that_it_claims_at_most(shape, reason):
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(header_only(shape, np.uint8))]
    parts += [packer.compress(bytes(2**20)) for _ in range(64)]
    data = b"".join([*parts, packer.flush()])[:-8]  # whoever comes to the end says "cut off"
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(DataError, match=reason):
        read_image(data, "bomb.nii.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.perf_counter() - start < 10
    assert peak < 2**23


def test_a_plain_bomb_of_the_allowed_size_takes_no_more_than_its_volume():
    shape = (256, 256, 512)
    data = gzip.compress(header_only(shape, np.uint8) + bytes(int(np.prod(shape))))
    tracemalloc.start()
    assert read_image(data, "a").shape == (256, 256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < np.prod(shape) + 2**23


def test_a_long_extension_takes_no_memory():
    data = nifti(VOLUME)
    data[108:112] = np.array([2**27], "<f4").tobytes()  # vox_offset
    tracemalloc.start()
    with pytest.raises(DataError, match="fewer voxels"):
        read_image(bytes(data), "a")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_nothing_is_written_and_no_text_of_the_header_is_told(
    tmp_path: Path, monkeypatch, caplog, capfd
):
    told = {"descrip": b"CANARY", "aux_file": b"CANARY", "db_name": b"CANARY"}
    monkeypatch.chdir(tmp_path)
    for data in (nifti(VOLUME, **told), nifti(VOLUME, **told)[:-1], nifti(NAN, **told)):
        try:
            read_image(bytes(data), "a")
        except DataError as error:
            print(error)
    assert "CANARY" not in caplog.text + "".join(capfd.readouterr())
    assert not list(tmp_path.iterdir())


WHOLE = bytes(nifti(VOLUME.astype(np.int16)))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 352), st.integers(0, 255), st.booleans())
def test_a_damaged_file_gives_pixels_or_a_refusal_and_nothing_else(at, byte, cut):
    data = WHOLE[:at] if cut else WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :]
    try:
        read = read_image(data, "a")
    except DataError:
        return
    assert read.dtype in (np.uint8, np.uint16)
    assert read.ndim == 2
