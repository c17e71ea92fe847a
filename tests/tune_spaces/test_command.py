from __future__ import annotations

import pytest

from gan_ray.__main__ import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ganomaly"], "--out"),
        (["ganomali", "--out", "x"], "Did you mean 'ganomaly'"),
        (["ganomaly", "--out", "x", "--objective", "test/image_auroc"], "test labels"),
        (["ganomaly", "--out", "x", "--fix", "model.width"], "KEY=VALUE"),
        (["ganomaly", "--out", "x", "--range", "model.weights.latent=3"], "KEY=LOW:HIGH"),
        (["ganomaly", "--out", "x", "--samples", "0"], "whole number"),
        (["ganomaly", "--out", "x", "--study", "weight"], "Did you mean 'weights'"),
    ],
)
def test_a_mistake_ends_with_2_and_a_hint(words, message, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *words, "--preset", "tiny"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_help_comes_without_an_architecture(capsys) -> None:
    assert main(["sweep", "--help"]) == 0
    assert "trials of each architecture" in capsys.readouterr().out
