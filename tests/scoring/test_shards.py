"""A worker reads the first objects of its next shard while it ends the one before."""

from collections import Counter
from concurrent.futures import wait
from pathlib import Path

import pytest

from gan_ray.scoring import ledger
from gan_ray.scoring.batch import _Tasks
from gan_ray.storage.local import LocalStore
from tests.artifacts.conftest import make_bundle
from tests.scoring.test_score_prefix import fill, job_of, scorer_of, settled


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle", "brainomaly")


@pytest.fixture
def plan(bundle: Path, tmp_path: Path) -> ledger.Plan:
    fill(str(tmp_path / "in"), 14)
    return settled(job_of(bundle, tmp_path / "in"), tmp_path / "out")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often each object was read."""
    counted: Counter = Counter()
    get = LocalStore.get

    def count(self: LocalStore, key: str, **options: str) -> bytes:
        if key.endswith(".png"):
            counted[key] += 1
        return get(self, key, **options)

    monkeypatch.setattr(LocalStore, "get", count)
    return counted


def test_the_next_shard_is_read_before_it_is_asked_for_and_only_once(
    bundle: Path, plan: ledger.Plan, tmp_path: Path, reads: Counter
):
    scorer = scorer_of(bundle, plan, tmp_path / "out")
    (first, now), (second, later), *_ = plan.left()
    scorer.score(first, now, later)
    wait([content for _, content in scorer._begun])
    assert set(reads) == {one.key for one in (*now, *later)}
    assert scorer.score(second, later).scored == 4
    assert set(reads.values()) == {1}


def test_another_shard_than_the_one_that_was_read_ahead_is_scored_as_itself(
    bundle: Path, plan: ledger.Plan, tmp_path: Path
):
    scorer = scorer_of(bundle, plan, tmp_path / "out")
    tasks = dict(plan.left())
    for shard, following in ((0, 1), (2, 3), (1, 0), (3, 0)):
        scorer.score(shard, tasks[shard], tasks[following])
    rows = ledger.read_rows(str(tmp_path / "out"))
    assert rows["id"].to_pylist() == [one.id for objects in tasks.values() for one in objects]
    alone = scorer_of(bundle, plan, tmp_path / "alone")
    ledger.settle(plan._source, alone._sink, plan.job)
    for shard, objects in tasks.items():
        alone.score(shard, objects)
    assert rows.equals(ledger.read_rows(str(tmp_path / "alone")))


def test_a_free_worker_takes_the_shard_that_was_set_aside_for_a_slow_one(plan: ledger.Plan):
    cut = dict(plan.left())
    assert list(cut) == [0, 1, 2, 3]
    tasks = _Tasks(plan, finished={1})
    assert tasks.give(0) == (0, cut[0])
    assert tasks.following(0) == cut[2]
    assert tasks.give(1) == (3, cut[3])
    assert tasks.following(1) == ()
    assert tasks.give(1) == (2, cut[2])
    assert tasks.following(0) == ()
    assert tasks.give(0) is None
