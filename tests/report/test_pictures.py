from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from gan_ray.report.pictures import overlay, png, scale


def decoded(address):
    kind, content = address.split(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_pixels_survive_the_trip_into_the_page():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    colour = np.stack([grey, grey + 1, grey + 2], axis=-1)
    assert np.array_equal(decoded(png(grey)), grey)
    assert np.array_equal(decoded(png(colour)), colour)


def test_overlay_leaves_the_image_alone_where_the_map_is_low():
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    low = np.full((6, 6), 0.2, np.float16)
    assert np.array_equal(overlay(image, low, 0.25, 0.5), image)


def test_overlay_colours_equal_values_equally_whatever_else_the_map_holds():
    image = np.full((4, 4), 90, np.uint8)
    calm, loud = np.full((4, 4), 0.3), np.full((4, 4), 0.3)
    loud[0] = 9.0
    a, b = (overlay(image, m, 0.0, 0.5) for m in (calm, loud))
    assert np.array_equal(a[1:], b[1:])
    assert np.array_equal(b[0], overlay(image, np.full((4, 4), 0.5), 0.0, 0.5)[0])


def test_legend_runs_through_the_colours_of_the_overlay():
    legend = decoded(scale(0.1, 0.7))
    grey = np.full((1, 1), 110, np.uint8)
    for column, value in ((0, 0.1), (-1, 0.7)):
        assert (
            legend[0, column].tolist()
            == overlay(grey, np.array([[value]]), 0.1, 0.7)[0, 0].tolist()
        )
