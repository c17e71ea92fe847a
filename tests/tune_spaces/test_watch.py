"""What shows a sweep: its page, the queue, and TensorBoard's tab of hyper-parameters."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import Request, urlopen

import optuna
import pytest
from optuna.distributions import FloatDistribution

from gan_ray.report.sources import read as read_sources
from gan_ray.training.run import RunFolder
from tests.report.test_html import Page
from tests.tune_spaces.test_record import claimed, searching
from tune_spaces.importance import FEWEST, importance
from tune_spaces.record import Record
from tune_spaces.search import StudySearch
from tune_spaces.watch import PAGE, Watch, queue_line, time_left


def watched(out: str, *, samples: int) -> tuple[Record, StudySearch, Watch, list[str]]:
    said: list[str] = []
    record = claimed(out, samples=samples)
    watch = Watch(record, keep_bytes=None, progress=None, say=said.append)
    return record, searching(record, ended=watch.ended), watch, said


def end(search: StudySearch, number: int, value: float, **row: float) -> None:
    run = RunFolder(search.suggest(str(number))["run"])
    run.put_metrics([{"images": 16, "seconds": 1.5, "val/aucp": value, **row}])
    run.put_json("selection.json", {"images": 16})
    search.on_trial_complete(str(number), {"finished": True})


def test_the_queue_says_what_is_over_what_runs_and_what_waits(tmp_path) -> None:
    record, search, _, said = watched(str(tmp_path), samples=4)
    assert record.content()["queue"] == {"done": 0, "running": [], "waiting": {"ganomaly": 4}}
    search.suggest("x")
    end(search, 1, 0.5)
    queue = {"done": 1, "running": [0], "waiting": {"ganomaly": 2}}
    assert json.loads((tmp_path / "sweep.json").read_text())["queue"] == queue
    assert said[0].startswith("queue: 1 done; running: 0; waiting: 2 ganomaly")
    assert queue_line({"done": 4, "running": [], "waiting": {"ganomaly": 0}}) == (
        "queue: 4 done; running: none; waiting: 0"
    )


def test_what_trials_have_taken_says_how_long_the_others_will(tmp_path) -> None:
    _, search, _, said = watched(str(tmp_path), samples=4)
    search.suggest("x")
    end(search, 1, 0.5, look_seconds=60.0)
    end(search, 2, 0.6, look_seconds=0.5)
    assert said[0].endswith("; left: about 3 min of one worker"), "one runs, two wait, 61.5 s each"
    assert said[1].endswith("; left: about 64 s of one worker"), "one runs, one waits, 31.75 s each"


def test_nothing_is_said_of_the_time_of_what_has_not_begun() -> None:
    row = {"architecture": "ganomaly", "variant": "", "seconds": 8.0, "look_seconds": 2.0}
    content = {
        "study": "weights",
        "queue": {"waiting": {"ganomaly": 3, "f-anogan": 4}},
        "trials": [{**row, "state": "failed"}],
    }
    assert time_left(content) == ""
    content["trials"] = [{**row, "state": "pruned"}]
    assert time_left(content) == "; left: about 30 s of one worker and all of f-anogan"
    content |= {"study": "architecture", "queue": {"waiting": {"architecture": 2}}}
    assert time_left(content) == "; left: about 20 s of one worker"
    content["queue"] = {"waiting": {"architecture": 0}}
    assert time_left(content) == ""


def test_the_page_is_there_after_the_first_trial_and_whole_at_the_end(tmp_path) -> None:
    _, search, watch, _ = watched(str(tmp_path), samples=FEWEST)
    end(search, 0, 0.5)
    running = (tmp_path / PAGE).read_text()
    assert 'http-equiv="refresh"' in running
    assert "Too few trials to say: 1 have a value" in running
    for number in range(1, FEWEST):
        end(search, number, 0.5 + number / 100)
    assert (tmp_path / PAGE).read_text() == running, "drawn again at once"
    content = watch.finished()
    page = Page(tmp_path / PAGE)
    assert 'http-equiv="refresh"' not in (tmp_path / PAGE).read_text()
    assert f"{FEWEST} trials by val/aucp" in page.text
    assert page.count("svg") == 3, "history, settings, importance"
    assert content["importance"]["ganomaly"]["trials"] == FEWEST
    (source,) = read_sources(tmp_path)
    assert source.content == content


def test_a_page_that_cannot_be_drawn_ends_no_sweep(tmp_path) -> None:
    record, search, watch, said = watched(str(tmp_path), samples=2)
    (tmp_path / PAGE).mkdir()
    end(search, 0, 0.5)
    assert said[0].startswith(f"warning: {PAGE} is left as it was: ")
    assert said[1].startswith("queue: 1 done")
    assert watch.finished()["queue"]["done"] == 1
    assert record.content()["trials"][0]["value"] == 0.5


def test_importance_finds_the_setting_that_matters_and_waits_for_enough_trials() -> None:
    def trials(count: int) -> list[optuna.trial.FrozenTrial]:
        ranges = {name: FloatDistribution(0.0, 1.0) for name in ("matters", "idle")}
        draw = optuna.samplers.RandomSampler(seed=1)._rng.rng
        points = draw.uniform(size=(count, 2)).tolist()
        return [
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.PRUNED if n % 3 else optuna.trial.TrialState.COMPLETE,
                value=None if n % 3 else 0.0,
                params={"matters": a, "idle": b},
                distributions=ranges,
                user_attrs={"value": a**2},
            )
            for n, (a, b) in enumerate(points)
        ]

    found = importance([("few", trials(FEWEST - 1)), ("many", trials(40))])
    assert found["few"]["shares"] == {}
    assert found["many"]["shares"]["matters"] > 0.9
    assert importance([("many", trials(40))]) == {"many": found["many"]}


def ask(url: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    answer: dict = json.load(urlopen(Request(url, data=data, headers=headers), timeout=30))
    return answer


def test_tensorboard_has_the_settings_of_every_trial_and_what_came_of_them(tmp_path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: '.[dashboard]'")
    record, search, _, _ = watched(str(tmp_path), samples=3)
    for number, value in enumerate((0.5, 0.7, 0.6)):
        end(search, number, value)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = shutil.which("tensorboard") or f"{sys.prefix}/bin/tensorboard"
    board = subprocess.Popen(
        [sys.executable, program, "--logdir", str(tmp_path / "trials"), "--port", str(port),
         "--host", "127.0.0.1", "--load_fast", "false"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    base = f"http://127.0.0.1:{port}/data/plugin/hparams"
    try:
        ends = time.monotonic() + 90
        groups: list = []
        while len(groups) < 3:
            assert time.monotonic() < ends, groups
            time.sleep(0.5)
            try:
                experiment = ask(f"{base}/experiment", {"experimentName": ""})
                groups = ask(f"{base}/session_groups", {
                    "experimentName": "", "startIndex": 0, "sliceSize": 10, "colParams": [],
                    "allowedStatuses": ["STATUS_SUCCESS", "STATUS_UNKNOWN"],
                })["sessionGroups"]  # fmt: skip
            except (URLError, KeyError):
                continue
    finally:
        board.kill()
        board.wait()
    assert {info["name"] for info in experiment["hparamInfos"]} == set(
        record.content()["trials"][0]["params"]
    )
    for row in record.content()["trials"]:
        (group,) = [g for g in groups if g["name"].startswith(row["run"].rpartition("/")[2])]
        assert group["hparams"] == pytest.approx(row["params"])
        values = {v["name"]["tag"]: v["value"] for v in group["metricValues"]}
        assert values["trial/value"] == pytest.approx(row["value"], abs=1e-6)
        assert values["trial/images"] == 16
