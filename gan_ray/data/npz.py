"""Source `npz`: the arrays of a MedMNIST file, one class against the rest.

train_images, train_labels, val_images, val_labels, test_images, test_labels. J. Yang et al.,
"MedMNIST v2", Scientific Data 10, 2023.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import numpy as np

from gan_ray.config import DataConfig
from gan_ray.data.arrays import read_header, type_name
from gan_ray.data.brightness import refusal
from gan_ray.data.one_vs_rest import OneVsRest
from gan_ray.data.tree import Tree, open_tree
from gan_ray.errors import DataError
from gan_ray.names import Public, listed, why

MAX_BYTES = 2**30
"""Largest array that is unpacked; judged by what the archive's directory says."""

_GET_AGAIN = "Get the file again."


def npz(data: DataConfig) -> OneVsRest:
    """Give the source at `data.root`: an npz file, or a place that holds just one.

    Validation arrays, where there are any, give the images for selection and calibration. Arrays
    are opened when they are needed; nothing pickled is ever loaded.

    Raises:
        ConfigError: not exactly one of normal_class and abnormal_class is set.
        DataError: there is no such file or more than one; later, when an array cannot be used.
    """
    arrays = _arrays(data.root)
    return OneVsRest(
        data,
        images=lambda part: _images(arrays, part),
        classes=lambda part: _classes(arrays, part),
        validation="val_images.npy" in arrays.names,
    )


def _arrays(root: str) -> Tree:
    tree = open_tree(root)
    if any(name.endswith("_images.npy") for name in tree.names):
        return tree  # the root is the npz itself, which is a zip
    found = [name for name in tree.names if name.lower().endswith(".npz")]
    if len(found) != 1:
        some = listed(found)
        raise DataError(
            f"there are {len(found)} npz files in '{root}'{f' ({some})' if some else ''}, but "
            "source 'npz' reads one. Name it with --data.root."
        )
    try:
        archive = zipfile.ZipFile(io.BytesIO(tree.read(found[0])))
    except zipfile.BadZipFile as error:
        raise refusal(found[0], f"is no npz file ({why(error)})", _GET_AGAIN) from None
    return Tree(tuple(archive.namelist()), _member_of(archive))


def _member_of(archive: zipfile.ZipFile) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        size = archive.getinfo(name).file_size
        if size > MAX_BYTES:
            raise refusal(
                name, f"unpacks to {size:,} bytes, more than {MAX_BYTES:,}", "Cut it into parts."
            )
        try:
            return archive.read(name)
        except Exception as error:  # a zip can be broken in many ways: zlib, CRC, passwords
            raise refusal(name, f"cannot be unpacked ({why(error)})", _GET_AGAIN) from None

    return read


def _array(arrays: Tree, name: str) -> np.ndarray:
    if name not in arrays.names:
        there = listed([other.removesuffix(".npy") for other in arrays.names])
        raise DataError(
            f"there is no array {name.removesuffix('.npy')!r} among {there}. Source 'npz' reads "
            "MedMNIST's names: train_images, train_labels and so on."
        )
    return read_npy(arrays.read(name), name)


def read_npy(content: bytes, name: str) -> np.ndarray:
    """Give the array of an npy file, read-only and without a copy of it.

    Raises:
        DataError: it is damaged, or holds anything but plain numbers.
    """
    file = io.BytesIO(content)
    try:
        shape, by_columns, dtype = read_header(file, name)
    except DataError:
        raise
    except Exception as error:  # numpy's parser raises what it likes on damaged headers
        raise refusal(name, f"is no npy array ({why(error)})", _GET_AGAIN) from None
    if dtype.hasobject or dtype.kind not in "buif":
        raise refusal(name, f"holds {type_name(dtype)} instead of numbers", "Save plain numbers.")
    count = int(np.prod(shape, dtype=object))
    if count * dtype.itemsize != len(content) - file.tell():
        raise refusal(name, f"does not hold the {count:,} values it announces", _GET_AGAIN)
    values = np.frombuffer(content, dtype, offset=file.tell())
    return values.reshape(shape, order="F" if by_columns else "C")


def _images(arrays: Tree, part: str) -> np.ndarray:
    name = Public(f"{part}_images.npy")
    images = _array(arrays, name)
    grey = images.ndim == 3
    if not grey and not (images.ndim == 4 and images.shape[3] == 3):
        raise refusal(
            name,
            f"has the shape {images.shape}, but [N, H, W] or [N, H, W, 3] can be used",
            "Volumes (the 3D sets of MedMNIST) are not supported: save slices.",
        )
    if images.dtype not in (np.uint8, np.uint16) or 0 in images.shape:
        raise refusal(
            name,
            f"holds {images.dtype} of shape {images.shape}, but uint8 or uint16 can be used",
            "Scale the values and save them so.",
        )
    return images


def _classes(arrays: Tree, part: str) -> np.ndarray:
    name = Public(f"{part}_labels.npy")
    labels = _array(arrays, name)
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise refusal(
            name,
            f"has {labels.shape[1]} labels per image (multi-label), but one class is needed",
            "Write a CSV that says which images are normal and take --data.source csv.",
        )
    if labels.dtype.kind not in "bui" or labels.size != labels.shape[0]:
        raise refusal(
            name,
            f"holds {labels.dtype} of shape {labels.shape}, but integers [N] or [N, 1] are needed",
            "Save class numbers.",
        )
    return labels.reshape(-1).astype(np.int64)
