"""Recent jobs on the page, in a real browser: headless Chromium, where it is installed."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from gan_ray.artifacts.bundle import load_bundle
from serve.api import api
from serve.card import Card
from serve.jobs import Jobs, Prefixes
from serve.model import Model
from serve.settings import AppArgs
from tests.chromium import PROGRAM, Page, browser
from tests.serve.conftest import InProcess, running

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def shown(
    bundle: Path, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Page, httpx.Client, list[str]]]:
    """The page with a finished, a failed, a running and a waiting job; a client; the jobs' ids."""
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
        while not ending[0] and not stop():
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
        page = stack.enter_context(browser(tmp_path_factory.mktemp("profile")))
        page.open(url)
        page.until(lambda: page.value("document.querySelectorAll('#job-rows tr').length") == 4)
        yield page, client, ids


def test_recent_jobs_show_state_progress_and_time_left(shown):
    page, _, ids = shown
    section = page.value("document.getElementById('jobs').outerHTML")
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
    for row in (waiting, going):
        assert re.search(r'<button aria-label="Cancel j-\w+">Cancel</button>', row)
    for row in (failed, done):
        assert re.search(r"<button [^>]*hidden", row), "there is nothing to cancel any more"
    assert page.said == []


@pytest.mark.parametrize("width", [400, 1200])
def test_the_section_fits_a_narrow_screen_and_a_wide_one(shown, width: int):
    page, *_ = shown
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=1400,
              deviceScaleFactor=1, mobile=False)  # fmt: skip
    assert page.value("document.documentElement.scrollWidth") == width


def test_a_click_cancels_a_job_that_waits_and_one_that_runs(shown):
    page, client, ids = shown
    for job in (ids[3], ids[2]):
        page.click(f'button[aria-label="Cancel {job}"]')
        page.until(lambda job=job: client.get(f"/v2/jobs/{job}").json()["state"] == "cancelled")
    page.until(lambda: page.text("#job-rows").count("Cancelled") == 2)
    assert page.said == []
