"""Scoring a whole prefix: each object exactly once, whatever breaks on the way."""

import io
import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_ray import names
from gan_ray.artifacts.bundle import load_bundle, read_verified
from gan_ray.artifacts.manifest import MANIFEST
from gan_ray.errors import ClusterError, ConfigError, DataError, StorageError
from gan_ray.scoring import ledger
from gan_ray.scoring.batch import IMAGE_SUFFIXES, read_rows, score_prefix
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.shards import MAX_BYTES, ShardScorer
from gan_ray.storage import open_store
from tests.artifacts.conftest import make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle", "brainomaly")


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 20), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def fill(uri: str, count: int) -> list[str]:
    keys = [f"patient-{number % 7}/{number:03d}.png" for number in range(count)]
    store = open_store(uri)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda item: store.put(item[1], png(item[0])), enumerate(keys)))
    return sorted(keys)


def job_of(bundle: Path, source: Path | str, **changes) -> ledger.Job:
    manifest, _ = read_verified(bundle)
    settings = {
        "source": open_store(str(source)).uri,
        "model": manifest.name,
        "version": manifest.version,
        "manifest_digest": manifest.digest,
        "preprocessing": manifest.preprocessing,
        "maps": False,
        "pseudonym_key": names.key_name(),
        "with_names": True,
        "shard_size": 4,
        "suffixes": IMAGE_SUFFIXES,
    }
    return ledger.Job(**settings | changes)


def settled(job: ledger.Job, sink: Path | str) -> ledger.Plan:
    return ledger.settle(open_store(job.source, private=True), open_store(str(sink)), job)


def scorer_of(bundle: Path, plan: ledger.Plan, sink: Path | str) -> ShardScorer:
    manifest, contents = read_verified(bundle)
    return ShardScorer({**contents, MANIFEST: manifest.to_json()}, plan.job, str(sink))


def score_here(bundle: Path, plan: ledger.Plan, sink: Path | str) -> list[tuple[int, int]]:
    """Do what the actors do, in this process."""
    scorer = scorer_of(bundle, plan, sink)
    ended = [scorer.score(shard, objects) for shard, objects in plan.left()]
    return [(shard.scored, shard.failed) for shard in ended]


def test_the_plan_fixes_the_listing_and_cuts_it_into_shards(bundle: Path, tmp_path: Path):
    keys = fill(str(tmp_path / "in"), 10)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / "UPPER.PNG").write_bytes(png(99))
    job = job_of(bundle, tmp_path / "in")
    plan = settled(job, tmp_path / "out")
    cut = list(plan.left())
    assert [one.key for _, objects in cut for one in objects] == ["UPPER.PNG", *keys]
    assert (plan.objects, plan.passed_over, plan.shards) == (11, 1, 3)
    assert [len(objects) for _, objects in cut] == [plan.size(n) for n in range(3)] == [4, 4, 3]
    (tmp_path / "in" / "later.png").write_bytes(png(5))
    again = settled(job, tmp_path / "out")
    assert again == plan
    assert list(again.left({1})) == [cut[0], cut[2]]


def test_a_sink_with_another_job_is_refused(bundle: Path, tmp_path: Path):
    fill(str(tmp_path / "in"), 2)
    settled(job_of(bundle, tmp_path / "in"), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"another job: shard_size 4 \(now 5\)\. Choose an empty"):
        settled(job_of(bundle, tmp_path / "in", shard_size=5), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"manifest_digest .* \(now 'other'\)"):
        settled(job_of(bundle, tmp_path / "in", manifest_digest="other"), tmp_path / "out")


def test_a_source_without_images_and_a_sink_without_a_job_are_named(bundle: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"no image in .*\.png, .* Check the address"):
        settled(job_of(bundle, tmp_path / "typo"), tmp_path / "out")
    with pytest.raises(StorageError, match="holds no batch job"):
        read_rows(str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "plan.json").write_text("{")
    with pytest.raises(StorageError, match=r"plan\.json cannot be read"):
        read_rows(str(tmp_path / "out"))


def test_of_two_commits_of_a_shard_the_first_counts(tmp_path: Path):
    sink = open_store(str(tmp_path))
    assert ledger.commit(sink, 3, [{"uri": "a", "score": 1.0}]) is True
    assert ledger.commit(sink, 3, [{"uri": "a", "score": 2.0}]) is False
    assert ledger.done(sink) == {3}


def test_rows_hold_the_scores_of_the_scorer_and_where_they_come_from(bundle: Path, tmp_path: Path):
    keys = fill(str(tmp_path / "in"), 40)
    plan = settled(job_of(bundle, tmp_path / "in", maps=True, shard_size=37), tmp_path / "out")
    assert score_here(bundle, plan, tmp_path / "out") == [(37, 0), (3, 0)]
    rows = read_rows(str(tmp_path / "out"))
    loaded = load_bundle(bundle)
    items = [(key, (tmp_path / "in" / key).read_bytes()) for key in keys]
    expected = Scorer.from_bundle(loaded).score_files(items, maps=True)
    scores = np.array(rows["score"])
    np.testing.assert_allclose(scores, [result.score for result in expected], rtol=1e-5)
    np.testing.assert_array_equal(rows["p_value"], loaded.calibration.p_values(scores))
    np.testing.assert_array_equal(rows["abnormal"], loaded.calibration.abnormal(scores))
    assert rows["uri"].to_pylist() == [f"file://{tmp_path.resolve()}/in/{key}" for key in keys]
    assert rows["etag"].to_pylist() == [
        planned.etag for _, objects in plan.left() for planned in objects
    ]
    assert rows["error"].null_count == 40
    manifest = loaded.manifest
    for column, value in {
        "model": manifest.name,
        "version": manifest.version,
        "manifest_digest": manifest.digest,
        "preprocessing": manifest.preprocessing,
        "threshold": loaded.calibration.id,
    }.items():
        assert set(rows[column].to_pylist()) == {value}
    kept = np.load(
        tmp_path / "out" / "maps" / f"{ledger.object_id(keys[38])}.npy", allow_pickle=False
    )
    assert kept.dtype == np.float16
    np.testing.assert_allclose(kept, expected[38].map, atol=1e-3)


def test_a_bad_file_is_a_row_with_the_reason(bundle: Path, tmp_path: Path):
    fill(str(tmp_path / "in"), 3)
    folder = tmp_path / "in"
    (tmp_path / "secret.png").write_bytes(png(1))
    (folder / "a-half.png").write_bytes(png(0)[:60])
    (folder / "b-empty.png").write_bytes(b"")
    (folder / "c-link.png").symlink_to(tmp_path / "secret.png")
    (folder / "d-gone.png").write_bytes(png(1))
    (folder / "e-changed.png").write_bytes(png(1))
    with open(folder / "f-huge.png", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    plan = settled(job_of(bundle, folder), tmp_path / "out")
    (folder / "d-gone.png").unlink()
    (folder / "e-changed.png").write_bytes(png(0)[:-1])
    assert score_here(bundle, plan, tmp_path / "out") == [(0, 4), (2, 2), (1, 0)]
    rows = read_rows(str(tmp_path / "out")).to_pylist()
    reasons = [
        *("a-half.png", "is empty", "leads out of", "no object", "changed after it was listed"),
        "268,435,457 bytes, but 268,435,456 are allowed",
    ]
    for row, reason in zip(rows[:6], reasons, strict=True):
        assert reason in row["error"]
        assert (row["score"], row["p_value"], row["abnormal"]) == (None, None, None)
    assert [row["error"] for row in rows[6:]] == [None] * 3


def test_a_store_that_fails_stops_the_job_and_commits_nothing(
    s3, bundle: Path, tmp_path: Path, monkeypatch
):
    fill(s3.uri, 4)
    plan = settled(job_of(bundle, s3.uri), tmp_path / "out")
    monkeypatch.setattr("gan_ray.storage.s3.ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="Check the network"):
        score_here(bundle, plan, tmp_path / "out")
    assert ledger.done(open_store(str(tmp_path / "out"))) == set()


def actor_processes() -> list[int]:
    """Processes of this session's own cluster that hold a ShardScorer."""
    parents, actors = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
        except (FileNotFoundError, ProcessLookupError):
            continue
        if title.startswith(b"ray::ShardScorer"):
            actors.append(int(folder.name))

    def ours(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return [pid for pid in actors if ours(pid)]


@pytest.mark.ray
def test_killed_workers_cost_no_row_and_double_none(s3, ray_cluster, bundle: Path):
    source, sink = s3.uri + "/in", s3.uri + "/out"
    keys = fill(source, 120)
    open_store(source).put("broken.png", b"no image")
    killed: list[int] = []

    def kill_one(figures: dict) -> None:
        alive = [pid for pid in actor_processes() if pid not in killed]
        if figures["objects"] and len(killed) < 3 and alive:
            os.kill(alive[0], signal.SIGKILL)
            killed.append(alive[0])

    summary = score_prefix(bundle, source, sink, shard_size=4, progress=kill_one)
    assert len(killed) == 3
    rows = read_rows(sink)
    expected = Counter(f"{source}/{key}" for key in ["broken.png", *keys])
    assert Counter(rows["uri"].to_pylist()) == expected
    assert (summary["objects"], summary["failed"], rows["error"].null_count) == (121, 1, 120)


@pytest.mark.ray
def test_an_interrupted_job_goes_on_where_it_stopped(ray_cluster, bundle: Path, tmp_path: Path):
    source, sink = str(tmp_path / "in"), str(tmp_path / "out")
    keys = fill(source, 40)

    def interrupt(figures: dict) -> None:
        if figures["objects"] >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_prefix(bundle, source, sink, shard_size=4, workers=1, progress=interrupt)
    before = {entry.key: entry.etag for entry in open_store(sink).list("parts/")}
    assert 3 <= len(before) < 10
    told: list[dict] = []
    summary = score_prefix(bundle, source, sink, shard_size=4, progress=told.append)
    after = {entry.key: entry.etag for entry in open_store(sink).list("parts/")}
    assert before.items() <= after.items()
    # The shards in flight when the job was interrupted may still have landed.
    assert 4 * len(before) <= summary["resumed"] == told[0]["objects"] < 40
    assert (told[-1]["objects"], told[-1]["total"]) == (40, 40)
    uris = read_rows(sink)["uri"].to_pylist()
    assert [uri.removeprefix(f"file://{tmp_path.resolve()}/in/") for uri in uris] == keys
    again = score_prefix(bundle, source, sink, shard_size=4)
    assert (again["resumed"], again["scored"], again["failed"]) == (40, 0, 0)


@pytest.mark.ray
def test_errors_come_out_of_the_workers_as_they_are(s3, ray_cluster, bundle: Path, tmp_path: Path):
    import boto3

    fill(s3.uri, 9)

    def lose_the_bucket(figures: dict) -> None:
        bucket = boto3.resource("s3").Bucket(s3.uri.removeprefix("s3://"))
        for found in bucket.objects.all():
            found.delete()
        bucket.delete()

    with pytest.raises(StorageError, match="The bucket does not exist") as caught:
        score_prefix(bundle, s3.uri, str(tmp_path / "out"), progress=lose_the_bucket)
    assert "Traceback" not in str(caught.value)
    assert type(caught.value) is StorageError


@pytest.mark.ray
def test_more_workers_than_the_cluster_has_are_refused(ray_cluster, bundle: Path, tmp_path: Path):
    fill(str(tmp_path / "in"), 9)
    with pytest.raises(ClusterError, match=r"9 workers need 9 CPUs, the cluster has 8\."):
        score_prefix(bundle, str(tmp_path / "in"), str(tmp_path / "out"), workers=20, shard_size=1)
