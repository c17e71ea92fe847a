"""The entry points: `gan-ray` understands every word of theirs, and they ask for what they need."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from gan_ray import __main__ as command
from tests.cluster.manifests import CLUSTER, read

JOBS = CLUSTER / "jobs"
NEEDS = {
    "sweep": {"DATA": "nowhere", "OUT": "sweep", "REGISTRY": "models"},
    "train": {"DATA": "nowhere", "OUT": "run"},
    "score": {"BUNDLE": "chest@1", "REGISTRY": "models", "SOURCE": "in", "SINK": "out"},
}
needs = pytest.mark.parametrize("job", sorted(NEEDS))


def calls(job: str, folder: Path, *words: str, ends: int = 0, **settings: str) -> list[list[str]]:
    """Run the entry point with a `gan-ray` that writes down its words and ends with `ends`."""
    scribe = folder / "gan-ray"
    # One file, added to: times of files are too coarse to tell which call came first.
    scribe.write_text(
        f'#!/bin/sh\n{{ echo "= call"; for word; do echo "$word"; done; }} >> "$0.calls"\n'
        f"exit {ends}\n"
    )
    scribe.chmod(0o755)
    env = {"PATH": f"{folder}:{os.environ['PATH']}", **settings}
    done = subprocess.run(["sh", JOBS / f"{job}.sh", *words], env=env, capture_output=True)
    assert done.returncode == ends, done.stderr
    _, *written = (folder / "gan-ray.calls").read_text().split("= call\n")
    return [words.splitlines() for words in written]


def test_every_entry_point_is_tested():
    assert {path.stem for path in JOBS.iterdir()} == set(NEEDS)


@needs
def test_it_names_the_variable_that_is_missing(job, tmp_path):
    for missing in NEEDS[job]:
        given = {name: value for name, value in NEEDS[job].items() if name != missing}
        done = subprocess.run(["sh", JOBS / f"{job}.sh"], env=given, capture_output=True, text=True)
        assert done.returncode
        assert missing in done.stderr


@needs
def test_further_words_reach_the_verb(job, tmp_path):
    first = calls(job, tmp_path, "--one", "two words", **NEEDS[job])[0]
    assert first[0] == job
    assert first[-2:] == ["--one", "two words"]


@needs
def test_its_exit_code_is_that_of_the_verb(job, tmp_path):
    assert len(calls(job, tmp_path, ends=4, **NEEDS[job])) == 1


def test_a_sweep_is_followed_by_the_choice_from_its_own_folder(tmp_path):
    sweep, select = calls("sweep", tmp_path, **NEEDS["sweep"])
    assert sweep[sweep.index("--out") + 1] == "sweep"
    assert select == ["select", "sweep", "--publish", "models"]


GPU = ("--train.use-gpu", "--train.gpus-per-worker", "0.5")


def test_train_understands_every_word_and_stops_at_the_missing_data(tmp_path, capsys):
    (words,) = calls("train", tmp_path, *GPU, **NEEDS["train"])
    assert command.main([*words, "--dry-run"]) == 4
    assert "no directory or zip at 'nowhere'" in capsys.readouterr().err


def stops_at_the_missing_place(words: list[str], capsys) -> bool:
    """Whether `sweep` takes all words but --out, without which it starts nothing."""
    place = words.index("--out")
    code = command.main(words[:place] + words[place + 2 :])
    return code == 2 and "needs a place for its trials" in capsys.readouterr().err


def test_sweep_understands_every_word(tmp_path, capsys):
    words = calls("sweep", tmp_path, *GPU, **NEEDS["sweep"])[0]
    assert stops_at_the_missing_place(words, capsys)


def test_sweep_understands_every_word_of_the_manifest(tmp_path, capsys):
    manifest = read(CLUSTER / "kuberay" / "rayjob-sweep.yaml")
    env, *words = shlex.split(manifest["spec"]["entrypoint"])
    settings = dict(word.split("=", 1) for word in words[: words.index("sh")])
    further = words[words.index("sh") + 2 :]
    assert (env, set(settings) >= set(NEEDS["sweep"])) == ("env", True)
    said, _ = calls("sweep", tmp_path, *further, **settings)
    assert said[1] == settings["SYSTEMS"]
    assert stops_at_the_missing_place(said, capsys)


@pytest.mark.parametrize(("job", "which"), [("sweep", 1), ("score", 0)])
def test_select_and_score_understand_every_word_and_stop_at_the_missing_folder(
    job, which, tmp_path, capsys, monkeypatch
):
    words = calls(job, tmp_path, **NEEDS[job])[which]
    monkeypatch.chdir(tmp_path)
    assert command.main(words) not in (0, command.INTERRUPTED)
    assert "--help" not in capsys.readouterr().err
