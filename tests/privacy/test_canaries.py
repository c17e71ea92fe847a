"""Canaries in the tags and names of DICOM files appear in nothing that the commands give out."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from gan_ray import names
from gan_ray.__main__ import main
from gan_ray.artifacts.bundle import load_bundle, read_verified
from gan_ray.artifacts.manifest import MANIFEST
from gan_ray.data.items import digest
from gan_ray.scoring import ledger
from gan_ray.scoring.batch import IMAGE_SUFFIXES, read_rows
from gan_ray.scoring.shards import ShardScorer
from gan_ray.storage import open_store
from serve.card import Card
from serve.jobs import Jobs, Prefixes
from serve.model import Model
from serve.settings import AppArgs
from tests.data.trees import write_folder
from tests.privacy.canaries import CANARIES, broken, film, films, found_in, leaking, leaks, zip_of
from tests.serve.conftest import InProcess, api, running, write_bundle

Run = Callable[..., str]
PATIENTS = ["--data.group-pattern", r"^([^_]+)_"]
SETTINGS = ["--preset", "tiny", "--data.image-size", "16", "--train.images", "256",
            "--train.report-every", "128", "--train.samples", "2"]  # fmt: skip


@pytest.fixture(autouse=True)
def default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(names.SHOW)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "film")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Run:
    """Run a command in this process; give all that it says."""

    def command(*words: object, code: int = 0) -> str:
        caplog.set_level(logging.DEBUG)
        ended = main([str(word) for word in words])
        told = "".join([*capfd.readouterr(), caplog.text])
        assert ended == code, told
        return told

    return command


def test_a_whole_project_names_nobody(run: Run, tmp_path: Path):
    root, out = write_folder(tmp_path / "data", films()), tmp_path / "out"
    bundle = out / "bundle"
    told = [
        run("data", "check", root, *PATIENTS, "--thumbnails", out / "page.html"),
        run("data", "check", root, *PATIENTS, "--with-labels", "--json"),
        run("train", "brainomaly", *SETTINGS, "--data.root", root, *PATIENTS, "--local",
            "--out", out / "run"),
        run("calibrate", out / "run", "--fpr", "0.4"),
        run("export", out / "run", "-o", bundle),
        run("verify", bundle),
        run("evaluate", bundle, "--out", out / "evaluation", "--baselines"),
        run("report", out / "run", out / "evaluation", "-o", out / "report.html", "--json"),
    ]  # fmt: skip
    assert [found_in(text) for text in told] == [[]] * len(told)
    assert {path.name for path in out.rglob("*")} >= {"val.parquet", "evaluation.json"}
    assert leaks([out]) == {}
    scores = json.loads((out / "evaluation" / "evaluation.json").read_text())["models"][0]["scores"]
    patient = names.pseudonym(digest(f"{CANARIES[0]}Jane030".encode()))
    assert patient in scores["groups"]


TABLE = f"{CANARIES[0]}.dcm,{CANARIES[0]},test\n"
TREES = {
    "unreadable": (broken, PATIENTS),
    "leaking": (leaking, PATIENTS),
    "patients": (films, ["--data.group-pattern", r"^(nobody)_"]),
    "misplaced": (lambda: {**films(), f"test/{CANARIES[0]}.dcm": film(1)}, []),
    "no header": (
        lambda: {**films(), "manifest.csv": TABLE.encode()},
        ["--data.manifest", "manifest.csv"],
    ),
    "no row": (
        lambda: {**films(), "manifest.csv": b"file,group\na,b\n"},
        ["--data.manifest", "manifest.csv"],
    ),
    "shifted": (
        lambda: {**films(), "manifest.csv": b"file,split,label\n" + TABLE.encode()},
        ["--data.source", "csv"],
    ),
    "headless": (
        lambda: {**films(), "manifest.csv": TABLE.encode()},
        ["--data.source", "csv"],
    ),
    "missing": (
        lambda: {
            "images/a.dcm": film(1),
            "data.json": json.dumps(
                {"train": {"0": ["a.dcm", f"{CANARIES[0]}.dcm"]}, "test": {"0": [], "1": []}}
            ).encode(),
        },
        ["--data.source", "data-json"],
    ),
    "twice": (
        lambda: {
            "images/a.dcm": film(1),
            "data.json": json.dumps(
                {"train": {"0": [CANARIES[0], CANARIES[0]]}, "test": {"0": [], "1": []}}
            ).encode(),
        },
        ["--data.source", "data-json"],
    ),
    "mask": (
        lambda: {**films(), f"test/masks/{CANARIES[0]}other.png": film(1)},
        ["--with-labels"],
    ),
    "npz": (
        lambda: {f"{CANARIES[0]}.npz": zip_of(f"{CANARIES[0]}.npy", b"x")},
        ["--data.source", "npz", "--data.normal-class", "0"],
    ),
    "idx": (films, ["--data.source", "idx", "--data.normal-class", "0"]),
}


@pytest.mark.parametrize("kind", TREES)
def test_what_is_wrong_with_a_data_set_is_said_without_names(run: Run, tmp_path: Path, kind: str):
    files, settings = TREES[kind]
    root = write_folder(tmp_path / "data", files())
    told = run("data", "check", root, *settings, code=4)
    assert found_in(told) == []
    if kind != "headless" and kind != "no header":
        assert "#" in told
        assert "--show-names names them" in told
        # With names, the same command shows that this test would see them.
        assert found_in(run("data", "check", root, *settings, "--show-names", code=4))
    assert found_in(run("data", "check", root, *settings, code=4)) == [], (
        "it counts for one command"
    )


def test_training_on_files_that_cannot_be_read_names_none(run: Run, tmp_path: Path):
    root, out = write_folder(tmp_path / "data", films() | broken()), tmp_path / "out"
    words = ["train", "brainomaly", *SETTINGS, "--data.root", root, "--local", "--out", out]
    assert found_in(run(*words, code=4)) == []
    assert leaks([out]) == {}
    assert found_in(run(*words, "--show-names", code=4))


def test_an_archive_with_a_damaged_file_names_none(run: Run, tmp_path: Path):
    name = f"train/normal/{CANARIES[0]}.dcm"
    content = bytearray(zip_of(name, film(1)))
    content[len(name) + 400] ^= 1
    (tmp_path / "data.zip").write_bytes(content)
    told = run("data", "check", tmp_path / "data.zip", code=4)
    assert "BadZipFile" in told
    assert found_in(told) == []


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_the_rows_of_a_bucket_name_nobody(
    s3, bundle: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
):
    source = s3.uri + "/in" if place == "bucket" else str(tmp_path / "in")
    store = open_store(source)
    for name, content in (films() | broken()).items():
        store.put(name, content)
    early, late, changed = unusable = [f"{CANARIES[0]}_{n}.dcm" for n in range(3)]
    for name in unusable:
        store.put(name, b"x")
    job, sink = job_of(bundle, source), tmp_path / "out"
    images = open_store(source, private=True)
    ledger.settle(images, open_store(str(sink)), job)
    store.delete(early)
    plan = ledger.settle(images, open_store(str(sink)), job)  # as a second command does
    shards = list(plan.left())
    store.delete(late)
    store.put(changed, b"another")
    manifest, contents = read_verified(bundle)
    worker = ShardScorer({**contents, MANIFEST: manifest.to_json()}, job, str(sink))
    for shard, objects in shards:
        worker.score(shard, objects)
    assert leaks([sink]) == {}
    rows = {row["id"]: row for row in read_rows(str(sink)).to_pylist()}
    expected = [*films(), *broken(), *unusable]
    assert set(rows) == {names.pseudonym(name, names.OBJECT_DIGITS) for name in expected}
    errors = {row_id for row_id, row in rows.items() if row["error"]}
    assert {ledger.object_id(name) for name in [*broken(), *unusable]} == errors
    for row_id in errors:  # what is said of an object names it as its row does
        assert "#" + row_id[: names.DIGITS] in rows[row_id]["error"]
    assert {row["uri"] for row in rows.values()} == {None}
    maps = {path.stem for path in (sink / "maps").iterdir()}
    assert maps == set(rows) - errors


def job_of(bundle: Path, source: str) -> ledger.Job:
    manifest, _ = read_verified(bundle)
    return ledger.Job(
        source=open_store(source).uri, model=manifest.name, version=manifest.version,
        manifest_digest=manifest.digest, preprocessing=manifest.preprocessing, maps=True,
        pseudonym_key=names.key_name(), with_names=names.are_shown(), shard_size=7,
        suffixes=IMAGE_SUFFIXES,
    )  # fmt: skip


def test_http_tells_a_client_of_its_own_names_alone_and_the_log_of_none(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd
):
    root = write_folder(tmp_path / "in", films() | broken())
    args = AppArgs(bundles=(str(bundle),), host="127.0.0.1", token="", allow=(root,))
    card = Card.read(bundle)
    caplog.set_level(logging.DEBUG, logger="ray.serve")
    served = InProcess(card, Model(load_bundle(bundle)))
    with running(api(args, {card.name: served})) as url, httpx.Client(base_url=url) as client:
        path = f"/v2/models/{card.name}/score"
        for name, content in {**broken(), "sound": film(0)}.items():
            answer = client.post(path, files=[("image", (name, content))])
            assert found_in(answer.text) == []
        missing = f"{root}/{CANARIES[0]}.dcm"
        uris = [f"{root}/{name}" for name in broken()] + [missing]
        outputs = client.post(path, json={"uris": uris}).json()["outputs"]
        assert [output["input"] for output in outputs] == uris, "what a client sent, it reads"
        outside = client.post(path, json={"uris": [f"/{CANARIES[0]}"]})
        assert outside.status_code == 403
        served.model.read = lambda job: Path(missing).read_bytes()
        assert client.post(path, json={"uris": [missing]}).status_code == 500
    assert "failed: FileNotFoundError, at" in caplog.text
    assert found_in(caplog.text + "".join(capfd.readouterr())) == []


def test_a_job_over_http_names_no_object_in_answers_rows_registry_and_log(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd
):
    root, out = write_folder(tmp_path / "in", films() | broken()), tmp_path / "out"
    args = AppArgs(
        bundles=(str(bundle),), host="127.0.0.1", token="", allow=(root,), allow_sink=(str(out),)
    )
    card = Card.read(bundle)
    caplog.set_level(logging.DEBUG)
    desk = Jobs(args.job_registry, Prefixes({card.name: str(bundle)}, None, workers=0))
    served = {card.name: InProcess(card, Model(load_bundle(bundle)))}
    body = {"model": card.name, "source": {"uri": root}, "sink": {"uri": f"{out}/rows"}}
    body["options"] = {"maps": True}
    with running(api(args, served, desk)) as url, httpx.Client(base_url=url) as client:
        job = client.post("/v2/jobs", json=body).headers["Location"]
        while (answer := client.get(job)).json()["state"] in ("queued", "running"):
            time.sleep(0.05)
        told = [answer, client.get("/v2/jobs"), client.get(f"{job}/results?limit=10000")]
    assert (answer.json()["state"], answer.json()["failed"]) == ("done", len(broken()))
    assert len(answer.json()["errors"]) == 10
    assert "#" in answer.json()["errors"][0]["error"]
    assert len(told[2].text.splitlines()) == len(films()) + len(broken())
    assert [found_in(response.text) for response in told] == [[], [], []]
    assert leaks([out]) == {}
    assert found_in(caplog.text + "".join(capfd.readouterr())) == []
