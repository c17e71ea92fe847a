"""The habits of the house that a machine can check."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("gan_ray", "tune_spaces", "serve")
TOP = {"cluster", "gan_ray", "tune_spaces", "serve", "tests", "pyproject.toml", "README.md",
       "Makefile", "docs", "benchmarks", "LICENSE"}  # fmt: skip
LONGER: dict[str, str] = {}
"""Modules over 400 lines, with the reason."""


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [Path(line) for line in listed.stdout.splitlines()]


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


def test_no_module_is_longer_than_400_lines():
    long = {str(p.relative_to(ROOT)) for p in modules() if len(p.read_text().splitlines()) > 400}
    assert long == set(LONGER)


def test_no_module_is_a_drawer():
    drawers = {"utils", "util", "helpers", "helper", "misc", "common", "manager"}
    assert not [path for path in modules() if path.stem in drawers]


def test_the_top_level_is_as_decided():
    top = {path.parts[0] for path in tracked()}
    assert {name for name in top if not name.startswith(".")} == TOP


def test_nobody_asks_for_an_architecture_by_name():
    from gan_ray import architectures

    names = "|".join(map(re.escape, architectures.names()))
    asked = re.compile(rf"""(==|!=|\bin)\s*\(?["']({names})["']""")
    assert not [path for path in modules() if asked.search(path.read_text())]


def test_nothing_is_loaded_that_could_run_code():
    unsafe = re.compile(
        r"(?<!safetensors\.)torch\.load\(|import pickle|pickle\.load|allow_pickle=True|yaml\.load\("
    )
    assert not [path for path in modules() if unsafe.search(path.read_text())]
