"""Draws that share a GAN."""

from __future__ import annotations

import dataclasses
import json

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from gan_ray.experiment import make
from gan_ray.training.run import RunFolder
from gan_ray.training.state import DIGEST
from tune_spaces.derive import Method
from tune_spaces.plan import Plan
from tune_spaces.record import Record
from tune_spaces.samplers import STARTUP
from tune_spaces.search import StudySearch
from tune_spaces.sharing import REDRAW, Sharing
from tune_spaces.space import Point, Space
from tune_spaces.studies import plans

OF_GAN = "model.weights.gradient_penalty"
OF_ENCODER = "model.weights.features"
OF_SCORE = "score.feature_weight"


def plan(name: str = "f-anogan", study: str = "weights", stages: str = "somewhere") -> Plan:
    experiment = make(name, preset="tiny")
    train = dataclasses.replace(experiment.train, stages=stages)
    return plans([dataclasses.replace(experiment, train=train)], study, {}, {})[0]


def test_what_the_encoder_or_the_score_alone_read_is_no_setting_of_the_gan() -> None:
    sharing = Sharing(plan(study="full"))
    keys = sharing.keys
    assert sharing.scored == {OF_SCORE}
    assert {OF_GAN, "model.gan_optimizer.lr", "model.latent_size"} <= keys
    alone = {OF_ENCODER, "model.mode", "model.encoder_optimizer.lr", OF_SCORE}
    assert plan(study="full").space.keys() >= alone
    assert not keys & alone


def searched(
    tmp_path, given: Plan, values: list[float], method: Method = "tpe"
) -> list[dict[str, float]]:
    """Settings of trials that end with `values`, one after the other."""
    record = Record(str(tmp_path))
    record.claim("weights", "val/aucp", 0, len(values), [given])
    search = StudySearch(given, record, objective="val/aucp", seed=0, method=method,
                         ended=lambda number: None)  # fmt: skip
    drawn = []
    for number, value in enumerate(values):
        trial = search.suggest(str(number))
        end(search, number, trial["run"], value)
        drawn.append(trial["settings"])
    return drawn


def end(search: StudySearch, number: int, folder: str, value: float) -> None:
    """Let a trial end with `value`."""
    run = RunFolder(folder)
    run.put_metrics([{"images": 16, "seconds": 1.0, "val/aucp": value}])
    run.put_json("selection.json", {"images": 16})
    run.put_checkpoint(16, {DIGEST: b"{}"})
    search.on_trial_complete(str(number), {"finished": True, "cost": 1000 - number})


def test_most_trials_keep_the_gan_of_the_best_so_far_and_draw_the_rest_anew(tmp_path) -> None:
    values = [0.5, 0.6, 0.7, 0.9, *[0.8] * (STARTUP + 1)]
    drawn = searched(tmp_path, plan(), values)
    gans = [settings[OF_GAN] for settings in drawn]
    kept = [gan for number, gan in enumerate(gans) if number > 3 and number % REDRAW]
    assert set(kept) == {gans[3]}, "that of the best, also where TPE draws the rest"
    assert len({settings[OF_ENCODER] for settings in drawn}) == len(drawn)
    assert len(set(gans)) == pytest.approx(len(drawn) / REDRAW, abs=1)


def test_one_of_three_trials_draws_a_score_alone_for_the_best_that_was_trained(tmp_path) -> None:
    values = [0.5, 0.6, 0.7, 0.9, *[0.8] * (STARTUP + 1)]
    drawn = searched(tmp_path, plan(study="full"), values)
    for number, settings in enumerate(drawn[4:], 4):
        trained = {key: value for key, value in settings.items() if key != OF_SCORE}
        same = trained.items() == {k: v for k, v in drawn[3].items() if k != OF_SCORE}.items()
        assert same == (number % REDRAW == REDRAW - 1)
    assert len({settings[OF_SCORE] for settings in drawn}) == len(drawn)


def test_what_is_learned_from_is_the_best_of_each_gan_however_often_it_was_kept() -> None:
    sharing = Sharing(plan(study="full"))
    assert sharing
    made = [
        create_trial(
            value=value,
            params={OF_GAN: gan, OF_ENCODER: encoder, OF_SCORE: float(number + 1)},
            distributions=dict.fromkeys(
                (OF_GAN, OF_ENCODER, OF_SCORE), FloatDistribution(0.01, 100.0)
            ),
            user_attrs={"value": value},
        )
        for number, (gan, encoder, value) in enumerate(
            [(10.0, 1.0, 0.5), (10.0, 2.0, 0.9), (10.0, 2.0, 0.8), (20.0, 3.0, 0.7),
             (20.0, 4.0, 0.6), (20.0, 4.0, 0.65)]
        )
    ]  # fmt: skip

    def turn(count: int) -> tuple[Point, list[float]]:
        kept, known = sharing.turn(made[:count])
        return kept, [trial.value for trial in known]

    assert turn(6) == ({}, [0.9, 0.7]), "of each GAN"
    assert turn(4) == ({OF_GAN: 10.0}, [0.5, 0.9, 0.7]), "of each training"
    assert turn(5) == ({OF_GAN: 10.0, OF_ENCODER: 2.0}, [0.9, 0.8, 0.5, 0.7, 0.6])


@pytest.mark.parametrize("cost", ["", "parameters"])
def test_trials_that_run_or_failed_are_no_hindrance(cost, tmp_path) -> None:
    record = Record(str(tmp_path))
    given = plan(study="full")
    record.claim("full", "val/aucp", 0, STARTUP + 6, [given], cost=cost)
    search = StudySearch(given, record, objective="val/aucp", cost=cost, seed=0,
                         ended=lambda number: None)  # fmt: skip
    for number in range(STARTUP + 6):
        trial = search.suggest(str(number))
        if number == 3:
            search.on_trial_complete(str(number), {"failed": "for the test"})
        elif number < STARTUP:
            end(search, number, trial["run"], 0.5 + number / 100)
    rows = record.content()["trials"]
    assert [row["state"] for row in rows[STARTUP:]] == ["running"] * 6
    assert len({json.dumps(row["params"]) for row in rows}) == len(rows)


@pytest.mark.parametrize(
    "given", [plan(stages=""), plan("ganomaly")], ids=["not shared", "one stage"]
)
def test_without_stages_to_share_every_trial_draws_all(given, tmp_path) -> None:
    drawn = searched(tmp_path, given, [0.5, 0.9, 0.8, 0.8, 0.8])
    for key in given.space:
        assert len({settings[key] for settings in drawn}) == len(drawn)


def test_a_trial_of_equal_training_is_given_the_run_of_the_other(tmp_path) -> None:
    from gan_ray.ranges import Choice, LogUniform

    few = {"model.n_critic": Choice(1, 3), "score.feature_weight": LogUniform(0.1, 10.0)}
    given = dataclasses.replace(plan(study="full"), space=Space(few))
    record = Record(str(tmp_path))
    record.claim("full", "val/aucp", 0, 6, [given])
    search = StudySearch(given, record, objective="val/aucp", seed=0, ended=lambda number: None)
    first: dict[int, str] = {}
    for number in range(6):
        trial = search.suggest(str(number))
        critic = trial["settings"]["model.n_critic"]
        assert trial.get("trained") == first.get(critic)
        first.setdefault(critic, trial["run"])
        end(search, number, trial["run"], 0.5)
    rows = record.content()["trials"]
    trained = [row for row in rows if row["reused_images"] == 0]
    assert len(trained) == len(first) < len(rows)
    assert {row["reused_seconds"] for row in rows if row not in trained} == {1.0}


def test_random_draws_stay_random(tmp_path) -> None:
    drawn = searched(tmp_path, plan(), [0.5, 0.9, 0.8, 0.8, 0.8], method="random")
    assert len({settings[OF_GAN] for settings in drawn}) == len(drawn)
