"""How a heat map comes to who asked for it: in the answer, or written to the sink."""

from __future__ import annotations

import base64
import io
import secrets
from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np

from gan_ray.errors import StorageError
from gan_ray.storage import open_store
from serve.card import Card
from serve.failures import Failure
from serve.pictures import png8
from serve.settings import AppArgs

How = Literal["png8", "f16", "url"]
"""A PNG or float16 values inside the answer, or the address of a file in the first sink."""
Shown = Callable[[np.ndarray], str]


def way(how: How | None, card: Card, args: AppArgs) -> Shown | None:
    """Give what makes a string of a map [S, S], or None where none is wanted or can be shown.

    Raises:
        Failure: it would go to a sink, and the operator allows none (403).
    """
    if how == "f16":
        return f16
    if how == "url":
        if not args.allow_sink:
            error = "maps are written nowhere here: the operator allows no sink"
            hint = "ask for map=f16 or map=png8; he allows one with `gan-ray serve --allow-sink`"
            raise Failure(403, "NO_SINK", error, hint)
        return partial(stored, f"{args.allow_sink[0].rstrip('/')}/maps")
    if how == "png8" and card.map_range is not None:
        low, high = card.map_range
        return partial(png8, low=low, high=high)
    return None


def f16(values: np.ndarray) -> str:
    """Give a data URI of the values as float16, little endian, row by row."""
    content = np.asarray(values, "<f2").tobytes()
    return "data:application/octet-stream;base64," + base64.b64encode(content).decode()


def stored(sink: str, values: np.ndarray) -> str:
    """Write the values as float16 into a new NumPy file below `sink`; give its address.

    Its name is random: it tells nothing, and nobody's file is ever written over.

    Raises:
        Failure: the sink does not take it (503).
    """
    file, name = io.BytesIO(), f"{secrets.token_hex(16)}.npy"
    np.save(file, np.asarray(values, "<f2"), allow_pickle=False)
    try:
        open_store(sink, private=True).put(name, file.getvalue(), if_absent=True)
    except StorageError:
        hint = "try again later, or ask for map=f16; the operator's log says more"
        raise Failure(503, "SINK_FAILED", "the sink does not take the map", hint) from None
    return f"{sink}/{name}"
