"""Recent jobs on the page, in a real browser: headless Chromium, where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from gan_ray.artifacts.bundle import load_bundle
from serve.api import api
from serve.card import Card
from serve.jobs import Jobs, Prefixes
from serve.model import Model
from serve.settings import AppArgs
from tests.serve.conftest import InProcess, running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def page(
    bundle: Path, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, list[str]]]:
    """A page with a finished, a failed, a running and a waiting job; its URL and their ids."""
    out = tmp_path_factory.mktemp("out")
    args = AppArgs(
        bundles=(str(bundle),), host="127.0.0.1", token="",
        allow=(str(store),), allow_sink=(str(out),),
    )  # fmt: skip
    run, ending = Prefixes({"film": str(bundle)}, None, workers=0), [False]

    def one_that_lasts(job, progress, stop) -> None:
        if "slow" not in job.request.sink.uri:
            run(job, progress, stop)
            return
        counts = {"objects": 1200, "total": 4000, "failed": 7, "errors": []}
        progress({**counts, "rate_per_s": 38.25, "eta_s": 73.2})
        while not ending[0]:
            time.sleep(0.01)

    models = {"film": InProcess(Card.read(bundle), Model(load_bundle(bundle)))}
    with ExitStack() as stack:
        stack.callback(ending.__setitem__, 0, True)
        url = stack.enter_context(
            running(api(args, models, Jobs(args.job_registry, one_that_lasts)))
        )
        client = stack.enter_context(httpx.Client(base_url=url, timeout=30))
        ids = []
        for sink, max_errors in (("a", 1), ("b", 0), ("slow", 1), ("c", 1)):
            body = {
                "model": "film",
                "source": {"uri": str(store)},
                "sink": {"uri": f"{out}/{sink}"},
            }
            sent = client.post("/v2/jobs", json={**body, "options": {"max_errors": max_errors}})
            ids.append(sent.json()["id"])
        while client.get(f"/v2/jobs/{ids[2]}").json()["done"] != 1200:
            time.sleep(0.02)
        yield url, ids


def browse(url: str, profile: Path, *arguments: str) -> str:
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         "--hide-scrollbars", "--enable-logging=stderr", f"--user-data-dir={profile}",
         "--virtual-time-budget=6000", *arguments, url],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert [line for line in said if "Password forms should have" not in line] == []
    return done.stdout


def test_recent_jobs_show_state_progress_and_time_left(page, tmp_path: Path):
    url, ids = page
    document = browse(url, tmp_path / "profile", "--dump-dom")
    section = re.search(r'<section id="jobs".*?</section>', document, re.S)[0]
    assert "hidden" not in re.match(r"<section[^>]*>", section)[0]
    assert 'aria-labelledby="jobs-title"' in section
    rows = re.findall(r'<tr><th scope="row">.*?</tr>', section, re.S)
    assert [re.search(r"j-[0-9a-f]{16}", row)[0] for row in rows] == ids[::-1], "newest first"
    waiting, going, failed, done = rows
    assert "Waiting" in waiting
    assert re.search(r'<progress aria-label="Progress of j-\w+" max="4000" value="1200">', going)
    for told in ("Running", "1,200 of 4,000", "38.3/s", "1:13 min"):
        assert told in going
    assert "could not be scored, but max_errors allows 0" in failed
    assert "41 of 41" in done
    for row, label in ((waiting, "Cancel"), (going, "Cancel")):
        assert re.search(rf'<button aria-label="{label} j-\w+">Cancel</button>', row)
    for row in (failed, done):
        assert re.search(r"<button [^>]*hidden", row), "there is nothing to cancel any more"


def test_the_section_fits_a_narrow_screen_and_a_wide_one(page, tmp_path: Path):
    url, _ = page
    for width in (400, 1200):
        picture = tmp_path / f"{width}.png"
        browse(
            *(url, tmp_path / f"profile-{width}"),
            *(f"--window-size={width},1400", f"--screenshot={picture}"),
        )
        pixels = np.asarray(Image.open(picture).convert("L"))
        assert pixels.shape == (1400, width)
        assert len(np.unique(pixels)) > 50
