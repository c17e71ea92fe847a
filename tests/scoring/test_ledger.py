"""The plan of a job and what is told of it while it grows, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_ray.data.suffixes import matches
from gan_ray.errors import CheckFailed, ConfigError, DataError
from gan_ray.scoring import ledger
from gan_ray.scoring.batch import read_rows, score_prefix
from gan_ray.storage import Entry, open_store
from tests.artifacts.conftest import make_bundle
from tests.scoring.test_score_prefix import fill, job_of, png, settled


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle", "brainomaly")


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        ("**/*.dcm", ["a.dcm", "x/a.dcm", "x/y/a.dcm"], ["a.png", "x/a.dcm/b"]),
        ("*.dcm", ["a.dcm", ".dcm"], ["x/a.dcm", "a.DCM"]),
        ("in/**", ["in/a", "in/x/a", "in"], ["a", "inn/a"]),
        ("a/**/b/*.png", ["a/b/1.png", "a/x/y/b/1.png", "a/b/b/1.png"], ["a/1.png", "b/1.png"]),
        ("scan-?/[12].png", ["scan-a/1.png"], ["scan-ab/1.png", "scan-a/3.png"]),
        ("**", ["a", "a/b"], []),
    ],
)
def test_a_pattern_means_what_a_shell_means_by_it(pattern, fits, fits_not):
    assert [key for key in fits if not matches(key, pattern)] == []
    assert [key for key in fits_not if matches(key, pattern)] == []


def test_no_pattern_takes_long():
    # A backtracking matcher would be at this for longer than the test may last.
    assert not matches("/".join("a" * 500), "/".join(["**", "a"] * 60) + "/b")
    assert not matches("a" * 1000, "*a" * 100 + "b")


@given(st.data())
def test_keys_are_found_again_whatever_came_and_went(data: st.DataObject):
    before = data.draw(st.sets(st.integers(0, 60)))
    after = data.draw(st.sets(st.integers(0, 60)))
    keys = [f"{number:03d}.png" for number in sorted(before)]
    planned = iter([(ledger.object_id(key), f"etag of {key}") for key in keys])
    listed = iter([f"{number:03d}.png" for number in sorted(after)])
    found = list(ledger._found(planned, listed))
    assert [one.id for one in found] == [ledger.object_id(key) for key in keys]
    assert [one.etag for one in found] == [f"etag of {key}" for key in keys]
    there = [key if int(key[:3]) in after else None for key in keys]
    assert [one.key for one in found] == there


def test_of_two_that_list_at_once_one_plan_counts_and_nothing_else_stays(
    bundle: Path, tmp_path: Path
):
    fill(str(tmp_path / "in"), 9)
    job, out = job_of(bundle, tmp_path / "in"), tmp_path / "out"
    source = open_store(job.source)

    class Slow:
        """Lists the source while another one lists it, too, and is done first."""

        def list(self) -> Iterator[Entry]:
            for place, entry in enumerate(source.list()):
                if place == 4:
                    (tmp_path / "in" / "0-new.png").write_bytes(png(1))
                    self.first = settled(job, out)
                yield entry

    slow = Slow()
    plan = ledger.settle(slow, open_store(str(out)), job)
    assert plan == slow.first
    assert plan.objects == 10
    assert len(list((out / "plan").glob("*/*"))) == 1
    assert sum(len(objects) for _, objects in plan.left()) == 10


def test_blocks_of_the_plan_do_not_show_in_its_shards(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ledger, "_BLOCK", 5)
    keys = fill(str(tmp_path / "in"), 23)
    plan = settled(job_of(bundle, tmp_path / "in", shard_size=4), tmp_path / "out")
    assert len(list((tmp_path / "out" / "plan").glob("*/*"))) == 5
    assert [one.key for _, objects in plan.left() for one in objects] == keys
    assert [len(objects) for _, objects in plan.left()] == [4] * 5 + [3]


def test_a_pattern_narrows_what_is_scored_and_belongs_to_the_job(bundle: Path, tmp_path: Path):
    source, sink = tmp_path / "in", str(tmp_path / "out")
    fill(str(source), 14)
    told = score_prefix(bundle, str(source), sink, workers=0, glob="patient-3/*.png")
    assert (told["objects"], told["scored"], told["passed_over"]) == (2, 2, 12)
    assert {row["uri"].split("/")[-2] for row in read_rows(sink).to_pylist()} == {"patient-3"}
    with pytest.raises(ConfigError, match=r"another job: glob"):
        score_prefix(bundle, str(source), sink, workers=0)
    with pytest.raises(DataError, match=r"no image that fits \*\.png in"):
        score_prefix(bundle, str(source), str(tmp_path / "new"), workers=0, glob="*.png")


def test_a_job_without_workers_gives_the_same_rows_without_ray(bundle: Path, tmp_path: Path):
    fill(str(tmp_path / "in"), 10)
    (tmp_path / "in" / "broken.png").write_bytes(b"no image")
    told: list[dict] = []
    summary = score_prefix(
        bundle, str(tmp_path / "in"), str(tmp_path / "out"),
        workers=0, shard_size=4, progress=told.append,
    )  # fmt: skip
    assert (summary["scored"], summary["failed"], summary["left"]) == (10, 1, 0)
    assert [figures["objects"] for figures in told] == [0, 4, 8, 11]
    assert [figures["failed"] for figures in told] == [0, 1, 1, 1]
    assert told[0]["eta_s"] is None
    assert told[-1]["eta_s"] == 0
    for figures in told[1:]:
        left = figures["total"] - figures["objects"]
        assert figures["eta_s"] == pytest.approx(left / figures["rate_per_s"])
    (error,) = summary["errors"]
    rows = {row["id"]: row for row in read_rows(str(tmp_path / "out")).to_pylist()}
    assert len(rows) == 11
    assert rows[error["id"]]["error"] == error["error"]


def test_a_job_that_is_told_to_stop_keeps_what_is_done_and_goes_on_later(
    bundle: Path, tmp_path: Path
):
    fill(str(tmp_path / "in"), 20)
    places = (bundle, str(tmp_path / "in"), str(tmp_path / "out"))
    told: list[dict] = []
    stopped = score_prefix(
        *places, workers=0, shard_size=4, progress=told.append, stop=lambda: len(told) > 2
    )
    assert (stopped["scored"], stopped["left"]) == (8, 12)
    again = score_prefix(*places, workers=0, shard_size=4)
    assert (again["resumed"], again["scored"], again["left"]) == (8, 12, 0)
    assert len(set(read_rows(places[2])["id"].to_pylist())) == 20


def test_more_failures_than_allowed_fail_the_job_also_when_it_goes_on(bundle: Path, tmp_path: Path):
    fill(str(tmp_path / "in"), 16)
    for number in range(4):  # in the first two shards, before the others
        (tmp_path / "in" / f"bad-{number}.png").write_bytes(b"no image")
    job = {"bundle": bundle, "source": str(tmp_path / "in"), "sink": str(tmp_path / "out")}
    job |= {"workers": 0, "shard_size": 3}
    with pytest.raises(CheckFailed, match=r"3 of 20 objects .* allows 0\.1 of them"):
        score_prefix(**job, max_errors=0.1)
    assert len(read_rows(job["sink"])) == 3
    with pytest.raises(CheckFailed, match="3 of 20 objects"):
        score_prefix(**job, max_errors=0.1)
    summary = score_prefix(**job, max_errors=0.2)
    assert (summary["resumed"], summary["failed"], summary["left"]) == (3, 1, 0)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match=r"max_errors is a share"):
            score_prefix(**job, max_errors=share)


def pages(sink: str, limit: int, *, ended: bool) -> list[list[dict]]:
    """Give page after page, until the last or until one is empty."""
    found, place = [], (0, 0)
    while place is not None:
        rows, place = ledger.read_page(open_store(sink), *place, limit, ended=ended)
        if not rows:
            break
        found.append(rows)
    return found


@pytest.mark.parametrize("limit", [1, 3, 4, 7, 100])
def test_pages_give_each_row_once_and_pass_over_what_was_never_scored(
    bundle: Path, tmp_path: Path, limit: int
):
    plan_of = job_of(bundle, tmp_path / "in")
    fill(str(tmp_path / "in"), 18)
    settled(plan_of, tmp_path / "out")
    sink = open_store(str(tmp_path / "out"))
    rows = [{"id": str(number), "score": float(number)} for number in range(18)]
    for shard in (0, 1, 3, 4):  # the third is still at work
        ledger.commit(sink, shard, rows[4 * shard : 4 * shard + 4])
    going, ended = (pages(str(tmp_path / "out"), limit, ended=end) for end in (False, True))
    assert [row["id"] for page in going for row in page] == [str(number) for number in range(8)]
    expected = [str(number) for number in range(18) if not 8 <= number < 12]
    assert [row["id"] for page in ended for row in page] == expected
    assert {len(page) for page in ended[:-1]} <= {limit}
    assert ledger.read_page(sink, 2, 0, limit, ended=False) == ([], (2, 0))
    assert ledger.read_page(sink, 9, 0, limit, ended=True) == ([], None)
