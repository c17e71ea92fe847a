"""Sketches know a picture again at any size, and the search for twins misses none."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from gan_ray.data.sketches import SIDE, detail_correlation, most_similar, sketch
from tests.data.trees import noise, resized, scene


def unit(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / 255


def random_sketches(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, SIDE * SIDE)).astype(np.float32)
    rows -= rows.mean(1, keepdims=True)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize("size", [48, 64, 200])
def test_a_sketch_does_not_depend_on_size_or_brightness(size: int):
    first, second = sketch(unit(scene(1))), sketch(unit(resized(scene(1), size)) * 0.4 + 0.1)
    assert first @ second.astype(np.float32) > 0.998
    assert abs(first @ sketch(unit(scene(2))).astype(np.float32)) < 0.5


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (28, 28)])
def test_images_of_any_shape_have_a_sketch_and_even_ones_resemble_nothing(shape: tuple[int, int]):
    assert sketch(np.random.default_rng(0).random(shape, np.float32)).shape == (SIDE * SIDE,)
    assert not sketch(np.full(shape, 0.3, np.float32)).any()


def test_the_most_similar_is_the_one_of_all_pairs():
    among, sketches = random_sketches(4500, 0), random_sketches(1100, 1)
    wide = among.astype(np.float32)
    mixed = wide[:1100][::-1] * 0.9 + sketches.astype(np.float32) * 0.3
    sketches[::2] = mixed[::2].astype(np.float16)
    rows = sketches.astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    full = rows @ wide.T
    best, correlation = most_similar(sketches, among, 0.5)
    expected = np.where(full.max(1) >= 0.5, full.argmax(1), -1)
    assert (expected >= 0).sum() == 550
    np.testing.assert_array_equal(best, expected)
    np.testing.assert_allclose(correlation, np.maximum(full.max(1), 0.5), atol=1e-5)


def test_nothing_is_similar_to_an_even_image_or_among_no_images():
    even = np.zeros((2, SIDE * SIDE), np.float16)
    assert (most_similar(even, even, 0.9)[0] == -1).all()
    assert (most_similar(random_sketches(3, 0), even[:0], 0.9)[0] == -1).all()


def test_the_search_among_thousands_takes_little_memory():
    among, sketches = random_sketches(12_000, 0), random_sketches(2000, 1)
    tracemalloc.start()
    most_similar(sketches, among, 0.99)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # all pairs would be 96 MB, and all sketches in float32 49 MB


def test_details_tell_the_same_picture_from_a_similar_one():
    same = np.stack([sketch(unit(scene(1))), sketch(unit(resized(scene(1), 64)))])
    smooth = unit(resized(resized(scene(1), 8), 96))
    alike = np.stack([sketch(smooth + 0.1 * unit(resized(noise(n, 48), 96))) for n in (2, 3)])
    assert detail_correlation(same[:1], same[1:])[0] > 0.999
    assert detail_correlation(alike[:1], alike[1:])[0] < 0.99
    assert most_similar(alike[:1], alike[1:], 0.95)[0] == [0]
