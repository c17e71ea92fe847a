"""The page at `/` in a real browser: an image dropped on it, an object of a store, an error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.chromium import PROGRAM, Page, browser
from tests.data.dicoms import CANARY, twelve
from tests.serve.conftest import png

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")
ENTER = 13


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(chromium: Page, endpoint) -> Page:
    """The page of an endpoint without a token, ready for an image."""
    chromium.open(str(endpoint().base_url))
    chromium.until(lambda: not chromium.value("document.getElementById('drop').hidden"))
    chromium.said.clear()
    return chromium


def scored(page: Page, rows: int) -> None:
    """Wait until so many images have an answer."""
    there = f"document.querySelectorAll('#rows tr').length == {rows}"
    page.until(lambda: page.value(f"{there} && !document.querySelector('[aria-busy]')"))


def canvas(page: Page) -> np.ndarray:
    """Give the heat map's pixels [H, W, 4]."""
    pixels = page.value(
        "(() => { const c = document.getElementById('map'); return [c.width, c.height,"
        "...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; })()"
    )
    return np.array(pixels[2:], np.uint8).reshape(pixels[1], pixels[0], 4)


def test_a_dropped_image_shows_its_score_against_the_threshold_and_its_map(page, tmp_path: Path):
    (tmp_path / "film.png").write_bytes(png(3))
    page.drop("#drop", tmp_path / "film.png")
    scored(page, 1)
    assert page.text("#verdict") in ("Normal", "Abnormal")
    assert float(page.text("#score")) > 0
    assert float(page.text("#threshold")) > 0
    assert 0 < float(page.text("#p-value")) <= 1
    assert "normal images it was set on" in page.text("#sentence")
    assert "threshold" in page.value("document.getElementById('scale').ariaLabel")
    for name in ("image", "reconstruction"):
        assert page.value(f"document.getElementById('{name}').naturalWidth") == 16
    heat = canvas(page)
    assert heat.shape == (16, 16, 4)
    assert len(np.unique(heat.reshape(-1, 4), axis=0)) > 4, "a map of one colour shows nothing"
    assert "same for every image" in page.value("document.getElementById('legend').ariaLabel")
    assert page.text("#map-high").startswith("≥")
    assert page.said == []
    pixels = np.asarray(Image.open(page.picture(tmp_path / "page.png")).convert("L"))
    assert len(np.unique(pixels)) > 50


def test_a_dicom_film_is_scored_and_its_patient_shown_nowhere(page, tmp_path: Path):
    film = np.random.default_rng(0).integers(0, 4096, (24, 20))
    (tmp_path / "IM0001.dcm").write_bytes(twelve(film))
    page.drop("#drop", tmp_path / "IM0001.dcm")
    scored(page, 1)
    assert page.text("#verdict") in ("Normal", "Abnormal")
    assert "IM0001.dcm" in page.text("#details")
    assert CANARY not in page.value("document.documentElement.outerHTML")
    assert page.said == []


def test_what_is_no_image_is_refused_by_name_and_the_next_one_is_scored(page, tmp_path: Path):
    (tmp_path / "letter.png").write_bytes(b"Dear colleague, the film is in the post.")
    (tmp_path / "film.png").write_bytes(png(4))
    page.drop("#drop", tmp_path / "letter.png")
    scored(page, 1)
    assert page.text("#problem-error").startswith("letter.png: ")
    assert page.text("#problem-hint")
    assert page.value("document.getElementById('result').hidden")
    assert "Not scored" in page.text("#rows")
    page.drop("#drop", tmp_path / "film.png")
    scored(page, 2)
    assert page.value("document.getElementById('problem').hidden")
    assert page.text("#verdict") in ("Normal", "Abnormal")
    page.click("#rows tr:last-child button")
    page.until(lambda: not page.value("document.getElementById('problem').hidden"))


def test_an_object_of_the_store_is_scored_with_the_keyboard_alone(page, store: Path):
    page.value("document.getElementById('address').focus()")
    page.write(f"{store}/07.png")
    page.press("Enter", ENTER)
    scored(page, 1)
    assert page.text("#verdict") in ("Normal", "Abnormal")
    assert f"{store}/07.png" in page.text("#details")


def test_an_object_outside_the_allowed_ones_is_refused(page, store: Path):
    page.value("document.getElementById('address').focus()")
    page.write("/etc/hostname")
    page.press("Enter", ENTER)
    scored(page, 1)
    assert "Not scored" in page.text("#rows")
    assert "--allow" in page.text("#problem-error") + page.text("#problem-hint")


def test_where_no_store_is_allowed_none_is_asked_for(chromium, endpoint):
    chromium.open(str(endpoint(allow=()).base_url))
    chromium.until(lambda: not chromium.value("document.getElementById('drop').hidden"))
    assert chromium.value("document.getElementById('bucket').hidden")


def test_every_control_has_a_name_and_can_be_reached_by_keyboard(page):
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    controls = {"button", "textbox", "combobox", "slider", "link"}
    named = {
        node["role"]["value"]: node["name"].get("value", "")
        for node in tree
        if node.get("role", {}).get("value") in controls and not node["ignored"]
    }
    assert named["textbox"] == "or from storage"
    assert all(named.values()), named
    reached = set()
    for _ in range(12):
        page.press("Tab", 9)
        reached.add(page.value("document.activeElement.id"))
    assert {"file", "address"} <= reached


def test_it_asks_no_other_host_for_anything(page):
    asked = page.value("performance.getEntriesByType('resource').map(e => e.name)")
    home = page.value("location.origin")
    assert len(asked) >= 4
    assert [one for one in asked if not one.startswith((home, "data:"))] == []
    assert not re.search(
        r"https?://(?!www\.w3\.org)", page.value("document.documentElement.innerHTML")
    )
