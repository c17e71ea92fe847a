"""The page in a real browser: headless Chromium, where it is installed."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

PROBE = """<!doctype html><body style="margin:0"><pre id="found"></pre>
<iframe src="report.html" style="width:400px;height:900px;border:0"></iframe>
<script>
document.querySelector("iframe").onload = event => {
  const page = event.target.contentDocument, root = page.documentElement;
  const images = [...page.images], figures = [...page.querySelectorAll("svg")];
  const colour = element => getComputedStyle(element);
  document.getElementById("found").textContent = JSON.stringify({
    images: images.length,
    broken: images.filter(image => !image.complete || !image.naturalWidth).length,
    figures: figures.length,
    flat: figures.filter(figure => figure.getBoundingClientRect().height < 60).length,
    wide: root.scrollWidth,
    paper: colour(root).backgroundColor,
    ink: colour(page.querySelector("svg text")).fill,
    fetched: event.target.contentWindow.performance.getEntriesByType("resource")
      .map(entry => entry.name).filter(name => !name.startsWith("data:")),
  });
};
</script>"""


@pytest.fixture(scope="module")
def folder(report):
    (report.parent / "probe.html").write_text(PROBE)
    return report.parent


def browse(folder, *arguments, page):
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         "--allow-file-access-from-files", "--hide-scrollbars", "--enable-logging=stderr",
         "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}",
         "--virtual-time-budget=5000", *arguments, (folder / page).as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def probe(folder, *arguments):
    document = browse(folder, "--dump-dom", *arguments, page="probe.html")
    return json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', document)[1]))


def lightness(colour):
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 765


def test_on_a_narrow_screen_everything_shows_and_nothing_is_fetched_or_cut_off(folder):
    found = probe(folder)
    assert found["images"] > 40
    assert found["broken"] == 0
    assert found["figures"] == 19
    assert found["flat"] == 0
    assert found["wide"] == 400
    assert found["fetched"] == []


@pytest.mark.parametrize(("scheme", "dark"), [(0, True), (1, False)])
def test_page_and_figures_follow_the_colour_scheme(folder, scheme, dark):
    found = probe(folder, f"--blink-settings=preferredColorScheme={scheme}")
    paper, ink = lightness(found["paper"]), lightness(found["ink"])
    assert (paper < 0.2 and ink > 0.5) if dark else (paper > 0.9 and ink < 0.5)


def test_screenshot_is_not_blank(folder):
    browse(folder, "--window-size=1200,900", f"--screenshot={folder / 'r.png'}", page="report.html")
    pixels = np.asarray(Image.open(folder / "r.png").convert("L"))
    assert pixels.shape == (900, 1200)
    assert len(np.unique(pixels)) > 50
