from __future__ import annotations

import copy
import json
import re
from xml.etree import ElementTree

import pytest

from gan_ray.report import trials
from gan_ray.report.html import write_report

from .test_charts import HOSTILE, words_of
from .test_html import Page


@pytest.fixture
def search(sweep):
    return json.loads((sweep / "sweep.json").read_text())


def lines(svg):
    """Give the heights through which each line of a chart goes."""
    paths = [path.get("d") for path in ElementTree.fromstring(svg).iter("path")]
    points = [re.findall(r"[ML] ([\d.-]+) ([\d.-]+)", d or "") for d in paths]
    return [[(float(x), float(y)) for x, y in each] for each in points]


def test_history_draws_trials_that_have_a_value_and_leaves_those_stopped_early_hollow(search):
    svg = trials.history(search)
    assert "best so far" in words_of(svg)
    hollow = sum(t["state"] == "pruned" for t in search["trials"])
    marks = [use for use in re.findall(r"<use [^>]*>", svg) if "fill: var(--" in use]
    assert sum("fill: var(--paper)" in use for use in marks) == hollow
    assert len(marks) >= len(search["trials"]) - 1


def test_each_system_has_its_trials_as_lines_down_to_the_objective(search):
    charts = dict(trials.coordinates(search))
    assert list(charts) == ["f-anogan", "ganomaly"]
    for name, svg in charts.items():
        mine = [t for t in search["trials"] if t["architecture"] == name and t["value"] is not None]
        across = [points for points in lines(svg) if len(points) == 3]
        assert len(across) == len(mine)
        assert words_of(svg).index("train.noise") < words_of(svg).index("val/aucp")
        assert "latent_size" in words_of(svg)


def test_the_best_trial_ends_at_the_right_of_the_objective_and_stands_out(search):
    svg = dict(trials.coordinates(search))["f-anogan"]
    best = [path for path in ElementTree.fromstring(svg).iter("path")
            if "var(--mark)" in (path.get("style") or "")]  # fmt: skip
    assert len(best) == 1
    ends = [points[-1][0] for points in lines(svg) if len(points) == 3]
    assert float(re.findall(r"[ML] ([\d.-]+) ", best[0].get("d"))[-1]) == max(ends)


def test_a_range_searched_on_a_logarithmic_scale_is_drawn_on_one(search):
    search["trials"] = [
        {"number": i, "architecture": "a", "state": "complete", "value": i, "params": {"w": w}}
        for i, w in enumerate((0.1, 1.0, 10.0))
    ]

    def middle(space):
        search["searches"] = {"a": {"space": {"w": space}}}
        ((_, svg),) = trials.coordinates(search)
        starts = sorted(p[0][0] for p in lines(svg) if len(p) == 2 and p[0][1] != p[1][1])
        return (starts[1] - starts[0]) / (starts[2] - starts[0])

    assert middle("LogUniform(low=0.1, high=10.0)") == pytest.approx(0.5, abs=1e-3)
    assert middle("Uniform(low=0.1, high=10.0)") == pytest.approx(0.9 / 9.9, abs=1e-3)


def test_names_of_options_stand_at_their_places_and_a_missing_setting_is_a_gap(search):
    params = [{"kind": "rope", "size": 4}, {"kind": "alibi"}, {"kind": "none", "size": 8}]
    search["trials"] = [
        {"number": i, "architecture": "a", "state": "complete", "value": i / 10, "params": p}
        for i, p in enumerate(params)
    ]
    ((_, svg),) = trials.coordinates(search)
    assert all(word in words_of(svg) for word in ("rope", "alibi", "none", "size"))


def test_what_cannot_be_compared_has_no_lines(search):
    search["trials"] = search["trials"][:1]
    assert trials.coordinates(search) == []


def test_the_front_is_drawn_where_there_are_two_objectives(search, sweep, tmp_path):
    assert Page(write_report([sweep], tmp_path / "one.html")).text.count("Value against cost") == 0
    for trial in search["trials"]:
        trial["cost"] = float(trial["params"]["model"]["latent_size"])
    search |= {"cost": "parameters", "pareto": [3, 8]}
    (tmp_path / "sweep.json").write_text(json.dumps(search))
    page = Page(write_report([tmp_path], tmp_path / "two.html"))
    assert "Value against cost" in page.text
    assert "parameters" in words_of(trials.front(search))


def test_the_page_says_what_was_stopped_and_why_what_failed_and_what_it_cost(sweep, tmp_path):
    text = Page(write_report([sweep], tmp_path / "r.html")).text
    for words in (
        "Stopped early: 3",
        "7 ganomaly 1\u202f000 0.41 0.57 7",
        "Failed: 1",
        "DivergedError: for the test",
        "Removed to save room: those of trial 11",
        "Waiting: 3 ganomaly",
        "Too few trials to say: 9 have a value, 10 are needed",
        "fANOVA on 11 trials",
    ):
        assert words in text, words


def test_a_page_of_a_running_sweep_is_loaded_again_and_a_report_is_not(sweep, tmp_path):
    from gan_ray.report import html
    from gan_ray.report.sources import read

    assert 'http-equiv="refresh"' in html.text(read(sweep), title="t", again=True)
    assert 'http-equiv="refresh"' not in html.text(read(sweep), title="t")


def test_hostile_names_are_text_in_every_chart(search):
    search = copy.deepcopy(search)
    for trial in search["trials"]:
        trial |= {"architecture": HOSTILE, "params": {HOSTILE: trial["number"], "b": HOSTILE}}
        trial["cost"] = 1.0
    search |= {"study": HOSTILE, "objective": HOSTILE, "cost": HOSTILE, "pareto": [0]}
    drawn = [trials.history(search), trials.front(search), trials.importance(HOSTILE, {HOSTILE: 1})]
    drawn += [svg for _, svg in trials.coordinates(search)]
    assert len(drawn) == 4
    for svg in drawn:
        assert "<script" not in svg
        ElementTree.fromstring(svg)


def test_charts_follow_the_theme_and_are_the_same_each_time(search):
    def drawn():
        charts = [svg for _, svg in trials.coordinates(search)]
        return [trials.history(search), trials.importance("a", {"w": 0.7, "v": 0.3}), *charts]

    for svg in drawn():
        assert not set(re.findall(r"#[0-9a-f]{6}\b", svg))
    assert drawn() == drawn()
