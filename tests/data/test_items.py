"""Many files become one array, or a refusal that names them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from gan_ray.data.items import array_item, decode, digest, file_item
from gan_ray.detector import ImageSpec
from gan_ray.errors import DataError
from tests.data.trees import noise, png

IMAGE = ImageSpec(size=12, channels=1)


def items(contents: dict[str, bytes], group: str = "") -> list:
    return [file_item(name, group or name, contents.__getitem__) for name in contents]


EIGHT = {f"{n:02d}": png(noise(n)) for n in range(40)}
SIXTEEN = {"99": png(noise(99, 12, np.uint16))}


def test_images_keep_the_order_and_pixels_of_their_items():
    split = decode(items(EIGHT), IMAGE, "resize")
    assert split.images.dtype == np.uint8
    np.testing.assert_array_equal(split.images[:, 0], np.stack([noise(n) for n in range(40)]))
    assert len(split) == 40


def test_ids_are_the_digests_of_the_files_and_groups_are_digests():
    split = decode(items(EIGHT, "Doe^Jane"), IMAGE, "resize")
    assert split.ids[3] == hashlib.sha256(EIGHT["03"]).hexdigest()[:12]
    assert set(split.groups) == {digest(b"Doe^Jane")}


@pytest.mark.parametrize("first", [EIGHT, SIXTEEN])
def test_one_image_of_sixteen_bits_widens_all(first: dict[str, bytes]):
    mixed = {**first, **EIGHT, **SIXTEEN}
    split = decode(items(mixed), IMAGE, "resize")
    assert split.images.dtype == np.uint16
    for row, name in enumerate(mixed):
        expected = noise(99, 12, np.uint16) if name == "99" else noise(int(name)) * np.uint16(257)
        np.testing.assert_array_equal(split.images[row, 0], expected)


@pytest.mark.parametrize("contents", [EIGHT, {**EIGHT, **SIXTEEN}])
def test_images_mapped_from_a_file_equal_images_in_memory(contents: dict[str, bytes]):
    held = decode(items(contents), IMAGE, "resize")
    mapped = decode(items(contents), IMAGE, "resize", in_memory=1000)
    assert isinstance(_foundation(mapped.images), np.memmap)
    assert not isinstance(_foundation(held.images), np.memmap)
    np.testing.assert_array_equal(mapped.images, held.images)
    assert mapped.images.dtype == held.images.dtype


def _foundation(array: np.ndarray) -> object:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def test_unusable_files_are_named_together():
    contents = {**EIGHT, "x.png": b"", "y.png": b"text", **{f"z{n}": b"" for n in range(7)}}
    with pytest.raises(DataError, match="9 of 49 files") as caught:
        decode(items(contents), IMAGE, "resize")
    assert "'x.png' is empty" in str(caught.value)
    assert "4 more" in str(caught.value)
    with pytest.raises(DataError, match=r"^'x.png' is empty"):
        decode(items({**EIGHT, "x.png": b""}), IMAGE, "resize")


def test_no_items_make_an_empty_split():
    assert decode([], IMAGE, "resize").images.shape == (0, 1, 12, 12)


def test_an_array_is_its_own_group_and_named_by_its_pixels():
    one, same, other = (
        array_item(name, noise(seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    split = decode([one, same, other], IMAGE, "resize")
    assert split.ids[0] == split.ids[1] != split.ids[2]
    assert len(set(split.groups)) == 3
