"""The named studies: which of a system's annotated settings are searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gan_ray import architectures
from gan_ray.config import Experiment, ScoreConfig, flatten, to_dict
from gan_ray.detector import Batch
from gan_ray.errors import ConfigError, unknown
from gan_ray.experiment import build_detector
from gan_ray.ranges import Choice, Range, Value
from gan_ray.scoring.scores import settings_read
from tune_spaces.derive import STUDIES, Narrowing, derive, members, narrow, pick
from tune_spaces.plan import Plan
from tune_spaces.settings import with_settings
from tune_spaces.space import Space


def plans(
    experiments: Sequence[Experiment[Any]],
    study: str,
    fixes: Mapping[str, Value],
    ranges: Mapping[str, Narrowing],
) -> list[Plan]:
    """Give each experiment's search: pinned by `fixes`, which may name any setting, then narrowed.

    With several architectures a key counts for those that know it, and one has to.

    Raises:
        ConfigError: an unknown study or key, a range that is no part of the study's, two
            experiments of one name, or nothing left to search.
    """
    if study not in STUDIES:
        raise ConfigError(unknown("study", study, STUDIES))
    made = [_plan(experiment, study, fixes, ranges) for experiment in experiments]
    names = [plan.name for plan in made]
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            f"a sweep needs different architectures, and got {', '.join(names) or 'none'}: name "
            "one or more, each once."
        )
    settings = {key for experiment in experiments for key in flatten(to_dict(experiment))}
    searched = {key for plan in made for key in plan.space}
    for key in fixes:
        if key not in settings:
            raise ConfigError(f"--fix: {unknown('setting', key, settings)}")
    for key in ranges:
        if key not in searched:
            raise ConfigError(f"--range: {unknown(f'key of the study {study}', key, searched)}")
    return made


def _plan(
    experiment: Experiment[Any],
    study: str,
    fixes: Mapping[str, Value],
    ranges: Mapping[str, Narrowing],
) -> Plan:
    known = flatten(to_dict(experiment))
    experiment = with_settings(experiment, {k: v for k, v in fixes.items() if k in known})
    searchable = derive(type(experiment.model), "model.") | _ranges_of_score(experiment)
    idle = _idle_weights(experiment, every_variant="model.weights." not in STUDIES[study])
    wanted = {
        key: narrowed(key, searchable[key], ranges.get(key))
        for key in members(study, searchable)
        if key not in fixes and key not in idle
    }
    space = searchable.within(wanted, flatten(to_dict(experiment)))
    if not space:
        raise ConfigError(
            f"the study '{study}' of {experiment.architecture} has nothing to search: what it has "
            "is fixed, or unused by this variant. Fix less, leave the system out, or take --study "
            "full."
        )
    return Plan(experiment, space)


def narrowed(key: str, wide: Range, narrowing: Narrowing | None) -> Range:
    """Give what a narrowing leaves of a range; None leaves all of it."""
    if narrowing is None:
        return wide
    if isinstance(narrowing, Choice):
        return pick(key, wide, narrowing)
    return narrow(key, wide, *narrowing)


def _ranges_of_score(experiment: Experiment[Any]) -> Space:
    """Ranges of the settings that the experiment's score reads."""
    read = settings_read(experiment.score, architectures.get(experiment.architecture))
    ranges = derive(ScoreConfig, "score.")
    return Space({key: wide for key, wide in ranges.items() if key.removeprefix("score.") in read})


def _idle_weights(experiment: Experiment[Any], *, every_variant: bool) -> set[str]:
    """Keys of weights that switch a term off, or weigh none that this variant computes.

    The terms are those of one look at two images; a search over `every_variant` may switch to
    another one, whose terms are not idle.
    """
    weights: dict[str, float] = to_dict(experiment.model)["weights"]
    used = set(weights) if every_variant else _terms(experiment)
    return {f"model.weights.{n}" for n, w in weights.items() if w == 0 or n not in used}


def _terms(experiment: Experiment[Any]) -> set[str]:
    detector = build_detector(experiment)
    shape = (2, detector.image.channels, detector.image.size, detector.image.size)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    batch = Batch(dict.fromkeys(detector.streams, noise))
    steps = [step for stage in detector.stages() for step in stage.steps]
    return {term for step in steps for term in step.loss(batch)}
