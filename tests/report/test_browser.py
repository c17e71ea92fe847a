"""The page in a real browser: headless Chromium, where it is installed."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from tests.chromium import PROGRAM, browser

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as page:
        page.open(report.as_uri(), width=400, height=900)
        yield page


def lightness(page, colour):
    return sum(map(int, re.findall(r"\d+", page.value(colour))[:3])) / 765


def test_on_a_narrow_screen_everything_shows_and_nothing_is_fetched_or_cut_off(page):
    assert page.value("document.images.length") > 40
    broken = "[...document.images].filter(one => !one.complete || !one.naturalWidth).length"
    assert page.value(broken) == 0
    heights = page.value(
        "[...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect().height)"
    )
    assert len(heights) == 19
    assert min(heights) >= 60, "a figure lies flat"
    assert page.value("document.documentElement.scrollWidth") == 400
    fetched = page.value("performance.getEntriesByType('resource').map(one => one.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert page.said == []


@pytest.mark.parametrize(("scheme", "dark"), [("dark", True), ("light", False)])
def test_page_and_figures_follow_the_colour_scheme(page, scheme, dark):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.call("Emulation.setEmulatedMedia", features=[feature])
    paper = lightness(page, "getComputedStyle(document.documentElement).backgroundColor")
    ink = lightness(page, "getComputedStyle(document.querySelector('svg text')).fill")
    assert (paper < 0.2 and ink > 0.5) if dark else (paper > 0.9 and ink < 0.5)


def test_screenshot_is_not_blank(page, tmp_path):
    pixels = np.asarray(Image.open(page.picture(tmp_path / "r.png")).convert("L"))
    assert pixels.shape == (900, 400)
    assert len(np.unique(pixels)) > 50
