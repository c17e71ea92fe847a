"""The `gan-ray` command as a user meets it: a process, its exit code, its two streams."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gan_ray.training.run import RunFolder

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
                 "evaluate", "report", "export", "serve", "score", "verify"):  # fmt: skip
        assert f"\n  {verb} " in text


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["trian"], 2, "Did you mean 'train'"),
        (["train", "sagann"], 2, "unknown architecture 'sagann'"),
        (["train", "ganomaly", "--preset", "huge"], 2, "unknown preset"),
        (["train", "ganomaly"], 2, "--out"),
        (["train", "ganomaly", "--model.weights.contextul", "3"], 2, "contextul"),
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
        (["verify", "{out}/nothing"], 3, "manifest.json"),
        (["data", "check", "{out}/nothing"], 4, "nothing"),
    ],
)
def test_mistakes_have_their_exit_code_and_no_traceback(arguments, code, says, tmp_path):
    done = run(*(a.replace("{out}", str(tmp_path)) for a in arguments), code=code)
    assert says in done.stderr + done.stdout


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
    run("report", killed, evaluation, "-o", page)
    assert "ganomaly" in page.read_text()


def test_the_catalogue_is_generated_from_the_code():
    rows = json.loads(run("architectures", "--json").stdout)["architectures"]
    sizes = {row["name"]: row["parameters"]["reference"] for row in rows}
    assert sizes["f-anogan"] == 8_539_329 + 7_490_689 + 8_531_200
    assert {"f-anogan", "ganomaly", "brainomaly"} <= set(sizes)
