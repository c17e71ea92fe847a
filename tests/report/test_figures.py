from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gan_ray.report.figures import MAP_RANGE, curve_names, save_curves, save_grid
from gan_ray.report.style import heat

from .made import metrics


def test_curves_name_every_term_validation_first_and_speed_last():
    assert curve_names(metrics()) == [
        "val/aucp", "val/normal_score", "critic/discrimination", "critic/gradient_penalty",
        "generator/adversarial", "encoder/image_distance", "encoder/feature_distance",
        "images_per_second",
    ]  # fmt: skip


def test_curves_grow_by_a_line_of_panels_with_more_than_three_terms(tmp_path):
    few = [{"images": i, "images_per_second": 9.0, "a/b": 1.0 / i} for i in (1, 2)]
    save_curves(few, tmp_path / "few.png")
    save_curves(metrics(), tmp_path / "deep" / "many.png")
    small, large = Image.open(tmp_path / "few.png"), Image.open(tmp_path / "deep" / "many.png")
    assert large.height == 3 * small.height
    assert 2 * large.width == pytest.approx(3 * small.width, abs=3)


def test_curves_of_a_run_without_reports_say_so(tmp_path):
    save_curves([], tmp_path / "curves.png")
    assert np.ptp(np.asarray(Image.open(tmp_path / "curves.png").convert("L"))) > 100


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_value_that_is_not_finite_leaves_a_gap_in_its_curve(tmp_path, value):
    rows = [{"images": images, "stage": "gan", "critic/discrimination": 1.0} for images in range(9)]
    save_curves(rows, tmp_path / "whole.png")
    rows[5] |= {"critic/discrimination": value}
    save_curves(rows, tmp_path / "gap.png")
    whole, gap = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("whole", "gap"))
    columns = np.flatnonzero((whole != gap).any((0, 2)))
    assert 20 < np.ptp(columns) < whole.shape[1] / 3


def test_pictures_are_the_same_bytes_each_time(tmp_path):
    for name in ("a", "b"):
        save_curves(metrics()[:2], tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def tiles(path, rows, columns, side):
    """Cut the tiles [rows, columns, side, side, 4] out of a grid of rows of equal size."""
    sheet = np.asarray(Image.open(path))
    step = sheet.shape[0] // rows
    strip = step - side - 4
    return np.array([[sheet[r * step + strip :, c * (side + 4) :][:side, :side]
                      for c in range(columns)] for r in range(rows)])  # fmt: skip


def test_grid_shows_grey_images_pixel_for_pixel_magnified_by_a_whole_factor(tmp_path):
    images = np.linspace(-1, 1, 2 * 40 * 40).reshape(2, 1, 40, 40)
    save_grid([images], tmp_path / "grid.png", ["input"])
    shown = tiles(tmp_path / "grid.png", 1, 2, 80)[0, :, ::2, ::2]
    expected = np.rint((images[:, 0] + 1) * 127.5)
    assert np.array_equal(shown[..., 0], expected)
    assert np.array_equal(shown[..., 2], expected)
    assert (shown[..., 3] == 255).all()


def test_grid_keeps_the_order_of_colours(tmp_path):
    images = np.stack([np.full((128, 128), v) for v in (-1.0, 0.0, 1.0)])[None]
    save_grid([images], tmp_path / "grid.png", ["input"])
    assert tiles(tmp_path / "grid.png", 1, 1, 128)[0, 0, 0, 0].tolist() == [0, 128, 255, 255]


def test_map_row_has_the_same_colour_for_the_same_value_in_every_grid(tmp_path):
    faint, strong = np.full((1, 96, 96), 0.1), np.full((1, 96, 96), 0.1)
    strong[0, :48] = 3.0
    for name, row in (("faint", faint), ("strong", strong)):
        save_grid([row], tmp_path / f"{name}.png", ["map"])
    a, b = (tiles(tmp_path / f"{n}.png", 1, 1, 96)[0, 0] for n in ("faint", "strong"))
    assert np.array_equal(a[48:], b[48:])
    assert a[0, 0, :3].tolist() == heat(np.array([0.1]), *MAP_RANGE)[0].tolist()
    assert b[0, 0, :3].tolist() == heat(np.array(MAP_RANGE[1:]), *MAP_RANGE)[0].tolist()


def test_rows_with_an_empty_label_follow_without_a_strip(tmp_path):
    rows = [np.full((2, 1, 32, 32), level) for level in (-1.0, 1.0)]
    save_grid(rows, tmp_path / "grid.png", ["walk", ""], tile=64)
    sheet = np.asarray(Image.open(tmp_path / "grid.png"))
    assert sheet.shape == (20 + 2 * (64 + 4), 2 * 64 + 4, 4)
    assert (sheet[20:84, :64] == [0, 0, 0, 255]).all()
    assert (sheet[88:152, :64] == 255).all()


def test_grid_refuses_a_row_without_a_label(tmp_path):
    with pytest.raises(ValueError, match="zip"):
        save_grid([np.zeros((1, 1, 8, 8))], tmp_path / "grid.png", [])
