"""Source `svhn`: the cropped digits of Street View House Numbers, one class against the rest.

Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", 2011.
train_32x32.mat and test_32x32.mat; the class is the digit, 0 being 10 in the files.
"""

from __future__ import annotations

import io

import numpy as np

from gan_ray.config import DataConfig
from gan_ray.data.brightness import refusal
from gan_ray.data.one_vs_rest import OneVsRest
from gan_ray.data.tree import Tree, open_tree
from gan_ray.errors import DataError
from gan_ray.names import Public, listed

MAX_BYTES = 2**30
"""Largest array that is unpacked."""


def svhn(data: DataConfig) -> OneVsRest:
    """Give the source at `data.root`; files are opened when they are needed.

    Raises:
        ConfigError: not exactly one of normal_class and abnormal_class is set.
        DataError: there is nothing at the root; later, when a file is missing or damaged.
    """
    tree = open_tree(data.root)
    return OneVsRest(
        data,
        images=lambda part: _variable(tree, part, "X").transpose(3, 0, 1, 2),
        classes=lambda part: _variable(tree, part, "y").reshape(-1).astype(np.int64) % 10,
    )


def _variable(tree: Tree, part: str, variable: str) -> np.ndarray:
    name = Public(f"{part}_32x32.mat")
    if name not in tree.names:
        raise DataError(
            f"there is no file '{name}' among {listed(tree.names)}. Source 'svhn' reads "
            "the cropped digits train_32x32.mat and test_32x32.mat: check --data.root."
        )
    return read_mat(tree.read(name), name, variable)


def read_mat(content: bytes, name: str, variable: str) -> np.ndarray:
    """Give `X`, uint8 [32, 32, 3, N], or `y`, [N, 1], of a MATLAB 5 file.

    Raises:
        DataError: it is damaged, or holds another array there; told by its header where it can be.
    """
    from scipy.io import loadmat, whosmat

    remedy = "Get the file again."
    try:
        shapes = {found: shape for found, shape, _ in whosmat(io.BytesIO(content))}
        shape = shapes.get(variable, ())
        fits = len(shape) == 4 and shape[:3] == (32, 32, 3) if variable == "X" else len(shape) == 2
        if not fits or int(np.prod(shape, dtype=object)) > MAX_BYTES:
            raise refusal(name, f"has no array {variable!r} of cropped digits ({shape})", remedy)
        value = np.asarray(loadmat(io.BytesIO(content), variable_names=[variable])[variable])
    except DataError:
        raise
    except Exception as error:  # scipy's parser raises what it likes on damaged files
        reason = f"cannot be read as MATLAB 5 file ({type(error).__name__}: {error})"
        raise refusal(name, reason, remedy) from None
    if value.dtype.kind not in "buif" or (variable == "X" and value.dtype != np.uint8):
        raise refusal(name, f"holds {value.dtype} in {variable!r}", remedy)
    return value
