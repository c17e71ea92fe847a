"""A run, an evaluation and a sweep of real digits, written once for all tests of reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from gan_ray.report.html import write_report

from .made import write_evaluation, write_run, write_sweep


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory) -> Path:
    return write_evaluation(tmp_path_factory.mktemp("made") / "digits")


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("made") / "first-run")


@pytest.fixture(scope="session")
def sweep(tmp_path_factory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("made") / "study")


@pytest.fixture(scope="session")
def report(evaluation, run, sweep, tmp_path_factory) -> Path:
    return write_report([evaluation, run, sweep], tmp_path_factory.mktemp("page") / "report.html")
