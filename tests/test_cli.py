"""The `gan-ray` command as a user meets it: a process, its exit code, its two streams."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from PIL import Image

from gan_ray.artifacts.store import publish
from gan_ray.training.run import RunFolder
from tests.artifacts.conftest import make_bundle

DIGITS = ["--data.source", "digits", "--data.normal-class", "1", "--data.image-size", "16"]
SHORT = ["--train.images", "3200", "--train.report-every", "320", "--train.samples", "2"]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "gan_ray", *map(str, arguments)]


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_help_comes_at_once_and_names_every_verb():
    began = time.monotonic()
    text = run("--help").stdout
    assert time.monotonic() - began < 2  # the figure is 0.1 s; a torch import would take 2 and more
    for verb in ("quickstart", "architectures", "data", "train", "sweep", "select", "calibrate",
                 "evaluate", "report", "export", "serve", "score", "verify", "doctor",
                 "submit"):  # fmt: skip
        assert f"\n  {verb} " in text


def test_help_of_every_verb_imports_neither_torch_nor_ray():
    script = """
import sys
from gan_ray.__main__ import VERBS, main
for verb in VERBS:
    try:
        main([verb, "--help"])
    except SystemExit as end:
        assert end.code == 0, verb
    print("IMPORTED", verb, *sorted({"torch", "ray", "boto3"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("IMPORTED")]
    assert len(lines) >= 15
    assert not [line for line in lines if len(line.split()) > 2]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["trian"], 2, "Did you mean 'train'"),
        (["train", "sagann"], 2, "unknown architecture 'sagann'"),
        (["train", "ganomaly", "--preset", "huge"], 2, "unknown preset"),
        (["train", "ganomaly"], 2, "--out"),
        (["train", "ganomaly", "--model.weights.contextul", "3"], 2, "contextul"),
        (["train", "ganomaly", "--score.scales", "latent", "3"], 2, "--score.scales"),
        (["train", "ganomaly", "--score.feature-weight", "3"], 2, "does not read"),
        (
            ["train", "ganomaly", "--data.root", "nowhere", "--local", "--out", "{out}"],
            4,
            "nowhere",
        ),
        pytest.param(
            ["train", "ganomaly", "--local", "--out", "{out}", "--train.use-gpu"],
            2,
            "no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here"),
        ),
        (["train", "ganomaly", "--local", "--out", "{out}", "--train.workers", "2"], 2, "--local"),
        (["train", "ganomaly", "--dry-run", "--data.root", "{out}/gone"], 4, "gone"),
        (["train", "ganomaly", "--dry-run", "--data.source", "digits"], 2, "normal-class"),
        (["train", "ganomaly", "--train.workers", "0"], 2, "train.workers"),
        (["train", "ganomaly", "--train.images", "-5"], 2, "train.images"),
        (["train", "ganomaly", "--model.generator-optimizer.lr", "nan"], 2, "lr"),
        (["verify", "{out}/nothing"], 3, "manifest.json"),
        (["verify", "famous@1"], 2, "registry"),
        (["serve", "{out}/nothing", "--port", "99999"], 2, "65535"),
        (["export", "{out}/nothing", "-o", "{out}"], 2, "exists already"),
        (["export", "{out}/nothing", "-o", "{out}/new", "--name", "a/b"], 2, "--name 'a/b'"),
        (["data", "check", "{out}/nothing"], 4, "nothing"),
    ],
)
def test_mistakes_have_their_exit_code_and_no_traceback(arguments, code, says, tmp_path):
    done = run(*(a.replace("{out}", str(tmp_path)) for a in arguments), code=code)
    assert says in done.stderr + done.stdout


def test_a_command_that_fails_leaves_the_folder_to_the_corrected_one(tmp_path):
    train = ["train", "ganomaly", "--preset", "tiny", "--local", "--out", tmp_path / "run"]
    run(*train, "--data.source", "digits", code=2)
    run(*train, *DIGITS, "--train.images", "16", "--train.samples", "0")


def test_fresh_removes_a_run_and_nothing_else(tmp_path):
    train = ["train", "ganomaly", "--preset", "tiny", "--local", *DIGITS, "--train.samples", "0"]
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    assert "no run" in run(*train, "--out", precious, "--fresh", code=2).stderr
    out = tmp_path / "run"
    run(*train, "--out", out, "--train.images", "64")
    (out / "notes.txt").write_text("mine")
    run(*train, "--out", out, "--train.images", "32", "--fresh")
    assert RunFolder(out).checkpoints()[-1] == 32
    assert (out / "notes.txt").exists()
    assert (precious / "thesis.tex").exists()


def hear_control_c() -> None:
    """Undo what a shell does to its background jobs, and they to the tests that they run."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.slow
def test_control_c_under_ray_ends_with_130_and_keeps_what_is_done(tmp_path):
    train = ["train", "brainomaly", "--preset", "tiny", *DIGITS, "--train.images", "200000",
             "--train.report-every", "480", "--train.samples", "0"]  # fmt: skip
    process = subprocess.Popen(
        command(*train, "--out", tmp_path / "run"),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_control_c,
    )
    folder = RunFolder(tmp_path / "run")
    while not folder.checkpoints() and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    assert folder.newest() is not None


def test_dry_run_prints_the_resolved_experiment_and_writes_nothing(tmp_path):
    out = tmp_path / "run"
    arguments = ["--variant", "izi", "--model.weights.features", "3", "--seed", "7"]
    done = run("train", "f-anogan", *DIGITS, *arguments, "--out", out, "--dry-run")
    settings = json.loads(done.stdout)
    assert settings["model"]["weights"]["features"] == 3
    assert (settings["seed"], settings["variant"]) == (7, "izi")
    assert not out.exists()


def test_killed_and_resumed_equals_never_killed_then_becomes_a_bundle(tmp_path):
    train = ["train", "ganomaly", "--preset", "tiny", *DIGITS, *SHORT, "--data.holdout", "0.5"]
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    run(*train, "--local", "--out", unbroken)

    process = subprocess.Popen(
        command(*train, "--local", "--out", killed), stderr=subprocess.DEVNULL
    )
    folder = RunFolder(killed)
    while len(folder.checkpoints()) < 2 and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it must die in the middle"
    done = run(*train, "--local", "--out", killed, "--json")
    assert json.loads(done.stdout)["last"]["images"] == 3200

    name = f"checkpoints/{3200:012d}/tensors.safetensors"
    assert (killed / name).read_bytes() == (unbroken / name).read_bytes()
    for left in ("experiment.json", "environment.json", "metrics.jsonl", "curves.png", "log.txt",
                 "selection.json", "scores/val.parquet", "samples/000000003200.png"):  # fmt: skip
        assert (killed / left).stat().st_size > 0, left
    assert list((killed / "tb").glob("events*"))

    bundle, evaluation = tmp_path / "bundle", tmp_path / "evaluation"
    run("calibrate", killed, "--fpr", "0.1")
    run("export", killed, "-o", bundle)
    assert json.loads(run("verify", bundle, "--json").stdout)["max_score_difference"] <= 1e-4
    found = json.loads(run("evaluate", bundle, "--out", evaluation, "--json").stdout)
    auroc = found["models"][0]["metrics"]["image_auroc"]
    assert auroc["low"] < auroc["value"] < auroc["high"]
    assert found["models"][0]["threshold"]["fpr"] == 0.1
    page = tmp_path / "report.html"
    told = json.loads(run("report", killed, evaluation, "-o", page, "--json").stdout)
    assert told["evaluations"][0]["models"][0]["metrics"] == found["models"][0]["metrics"]
    assert "ganomaly" in page.read_text()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry that holds tiny-ganomaly@1."""
    folder = tmp_path_factory.mktemp("published")
    publish(make_bundle(folder / "bundle", "ganomaly"), str(folder / "registry"))
    return folder / "registry"


def test_a_bundle_may_be_named_by_its_version_in_a_registry(registry, tmp_path):
    named = ["tiny-ganomaly@1", "--registry", registry]
    assert json.loads(run("verify", *named, "--json").stdout)["bundle"] == "tiny-ganomaly@1"
    refused = run("verify", "tiny-ganomaly@2", *named[1:], code=3)
    assert "known are tiny-ganomaly@1" in refused.stderr
    digits = ["--data.source", "digits", "--data.normal-class", "1"]
    done = run("evaluate", *named, *digits, "--out", tmp_path, "--json")
    assert json.loads(done.stdout)["models"][0]["name"] == "tiny-ganomaly"


def test_a_registry_in_a_bucket_serves_as_well(registry, s3_server, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    urlopen(Request(f"{s3_server}/command", method="PUT")).close()
    publish(registry / "tiny-ganomaly" / "1", "s3://command/registry")
    for named in (
        ["tiny-ganomaly@1", "--registry", "s3://command/registry"],
        ["s3://command/registry/tiny-ganomaly/1"],
    ):
        assert json.loads(run("verify", *named, "--json").stdout)["bundle"] == "tiny-ganomaly@1"


def test_score_tells_its_progress_and_wants_a_folder(registry, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        pixels = np.full((20, 20), number, np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    named = ["--registry", registry, "--workers", "1"]
    score = ["score", "tiny-ganomaly@1", *named]
    done = run(*score, images, tmp_path / "scores", "--json")
    assert json.loads(done.stdout)["scored"] == 3
    lines = [line for line in done.stderr.splitlines() if "ETA" in line]
    assert len(lines) == 1
    assert lines[0].startswith("3/3 images")
    archive = shutil.make_archive(str(tmp_path / "films"), "zip", images)
    for source in (archive, images / "0.png"):
        assert "folder or prefix" in run(*score, source, tmp_path / "more", code=2).stderr
    assert not (tmp_path / "more").exists()


def test_score_without_workers_does_without_ray_and_fails_on_more_errors_than_allowed(
    registry, tmp_path
):
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(images / "0.png")
    for name in ("1.png", "2.png"):
        (images / name).write_bytes(b"no image")
    (images / "notes.png.txt").write_text("no image by its name")
    score = ["score", "tiny-ganomaly@1", "--registry", registry, "--workers", "0", images]
    script = "import sys; from gan_ray.__main__ import main; main(sys.argv[1:]); "
    script += "assert 'ray' not in sys.modules"
    words = [*score, tmp_path / "scores", "--glob", "[01].png", "--max-errors", "0.5", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["scored"], told["failed"], told["passed_over"]) == (1, 1, 2)
    refused = run(*score, tmp_path / "more", "--max-errors", "0.5", code=1).stderr
    assert "2 of 3 objects could not be scored, but max_errors allows 0.5" in refused
    assert "in [0, 1]" in run(*score, tmp_path / "more", "--max-errors", "2", code=2).stderr


@pytest.mark.slow
def test_control_c_ends_serving_quietly(registry):
    arguments = ["tiny-ganomaly@1", "--registry", registry, "--port", "0"]
    process = subprocess.Popen(
        command("serve", *arguments),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_control_c,
    )
    said = ""
    for line in process.stderr:
        said += line
        if "Ctrl-C" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    after = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said + after
    assert after == "gan-ray: stopped serving.\n"


def test_the_catalogue_is_generated_from_the_code():
    rows = json.loads(run("architectures", "--json").stdout)["architectures"]
    sizes = {row["name"]: row["parameters"]["reference"] for row in rows}
    assert sizes["f-anogan"] == 8_539_329 + 7_490_689 + 8_531_200
    assert {"f-anogan", "ganomaly", "brainomaly"} <= set(sizes)
