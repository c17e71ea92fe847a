"""The study `score`: heads and score weights of a finished training; nothing is trained.

The networks look once at the held-out normals, the unlabeled mix, the labelled validation images
and, where they are the objective, pseudo-anomalies. What they saw is kept, and each trial is a
score of it: hundreds take seconds. The folder is that of any sweep, so `select`, `report` and
`optuna-dashboard` read it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial

from gan_ray import architectures
from gan_ray.artifacts.bundle import load_bundle
from gan_ray.artifacts.manifest import MANIFEST
from gan_ray.config import DataConfig, Experiment, ScoreConfig, to_dict
from gan_ray.data.pseudo import pseudo_anomalies
from gan_ray.data.sources import TrainingData, load_training
from gan_ray.detector import Detector
from gan_ray.errors import ConfigError, unknown
from gan_ray.experiment import with_absolute_paths
from gan_ray.ranges import Choice, Value, When
from gan_ray.scoring.heads import head_name
from gan_ray.scoring.kept import KeptEvidence, kept_score
from gan_ray.scoring.scores import make_score, offered, settings_read
from gan_ray.scoring.selection import figures
from gan_ray.seeds import derive_seed
from gan_ray.storage.store import open_store
from gan_ray.training.run import RunFolder, load_detector
from gan_ray.training.validation import check_selection, part_to_look_at
from tune_spaces.derive import Method, Narrowing, corners, derive
from tune_spaces.objectives import AUTO, OBJECTIVES, read_objective, settled
from tune_spaces.plan import Plan
from tune_spaces.record import Record
from tune_spaces.samplers import check_method, given_points, make_sampler
from tune_spaces.select import select
from tune_spaces.settings import with_settings
from tune_spaces.space import Space
from tune_spaces.studies import narrowed


@dataclass(frozen=True)
class Trained:
    """A finished training: where it is, its detector as it is scored, its settings, its data."""

    uri: str
    detector: Detector
    experiment: Experiment[Any]
    fingerprint: str


def open_trained(source: str) -> Trained:
    """Open a run folder (its chosen checkpoint) or a bundle.

    Raises:
        ConfigError: the name of a system.
        DataError, ArtifactError: neither is there, or it is damaged.
    """
    if source in architectures.names():
        raise ConfigError(
            f"the study 'score' trains nothing, so '{source}' alone gives it nothing to score: "
            "name a run folder or a bundle in its place."
        )
    store = open_store(source)
    if store.exists(MANIFEST):
        bundle = load_bundle(source)
        experiment = dataclasses.replace(bundle.experiment, score=bundle.score)
        return Trained(store.uri, bundle.detector, experiment, bundle.manifest.data_fingerprint)
    run = RunFolder(source)
    detector, experiment, _ = load_detector(run)
    known = run.get_json("environment.json") or {}
    return Trained(store.uri, detector, experiment, known.get("data", ""))


def score_study(
    trained: Trained,
    *,
    samples: int,
    out: str,
    data: DataConfig | None = None,
    fixes: Mapping[str, Value] | None = None,
    ranges: Mapping[str, Narrowing] | None = None,
    method: Method = "tpe",
    seed: int = 0,
    objective: str = AUTO,
    progress: Callable[[dict[str, Any]], None] = lambda row: None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Score `trained` in `samples` ways; give the content of `sweep.json`.

    The first way is its own score. `data` says where its images are now. Called again with the same
    `out` and more samples it goes on. `progress` sees each row that is the best so far, `say` is
    told the objective before.

    Raises:
        ConfigError: other data than those of the training, data that lack what the objective is
            made of, a second objective, a key or range that cannot be, or `out` holds another
            sweep.
    """
    aim = read_objective(objective)
    if aim.cost:
        raise ConfigError(
            f"the study score has one objective: all its trials have the same networks, so "
            f"'{aim.cost}' tells none apart. Name {aim.figure} alone."
        )
    check_method(method)
    fixes, own = fixes or {}, trained.experiment
    space = _space(trained.detector, fixes, ranges or {})
    aim, why = settled(aim, [data or own.data])
    figure, by = aim.figure, OBJECTIVES[aim.figure]
    train = dataclasses.replace(own.train, select=by, features="")
    name = own.score.name or trained.detector.score
    # As in heads: a score that is named starts from the usual settings.
    score = {} if "score.name" in fixes else {**to_dict(own.score), "name": name, "scales": {}}
    experiment = dataclasses.replace(
        own, data=data or own.data, train=train, score=ScoreConfig(**score)
    )
    plan = Plan(with_absolute_paths(with_settings(experiment, fixes)), space)
    images = load_training(plan.experiment.data)
    if trained.fingerprint != images.fingerprint:
        raise ConfigError(
            f"{trained.uri} was trained on other data (fingerprint {trained.fingerprint}, here "
            f"{images.fingerprint}): its held-out normals are not known. Give the images of its "
            "training (--data.root)."
        )
    check_selection(
        plan.experiment,
        unlabeled=images.unlabeled is not None,
        labelled=images.labelled is not None,
    )
    say(f"objective: {figure}, {why}")
    record = Record(out)
    record.claim("score", figure, seed, samples, [plan], method=method)
    known = dict(record.studies()).get(plan.name, [])
    if any(trial.user_attrs["run"] != trained.uri for trial in known):
        raise ConfigError(
            f"{record.uri} holds scores of {known[0].user_attrs['run']}, not of {trained.uri}: "
            "choose another --out."
        )
    if len(known) < samples:
        seen = _Seen(trained.detector, part_to_look_at(images, train.look), pseudo=by == "pseudo")
        _search(plan, seen, record, known, trained.uri, figure, samples, seed, method)
    highest = -math.inf
    for row in record.write()["trials"]:
        if row["value"] > highest:
            highest = row["value"]
            progress(row)
    record.selection = select(record.uri, by=by)
    return record.write()


class _Seen:
    """Evidence of the held-out images of selection, of which scores are judged."""

    def __init__(self, detector: Detector, data: TrainingData, *, pseudo: bool) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        splits = {"normal": data.select, "unlabeled": data.mix}
        if pseudo:
            splits["pseudo"] = pseudo_anomalies(data.select)
        self.detector = detector
        self._labels = None
        if data.labelled is not None:
            splits["labelled"], self._labels = data.labelled
        self._seen = {
            name: KeptEvidence(detector, split, device=device)
            for name, split in splits.items()
            if split is not None
        }

    def judge(self, head: ScoreConfig) -> dict[str, float]:
        """Give the figures of a head that a report of a training would have."""
        score = kept_score(head, self.detector, self._seen["normal"])
        scores = {name: seen.scores(score) for name, seen in self._seen.items()}
        labelled = None if self._labels is None else (self._labels, scores["labelled"])
        return figures(
            scores["normal"], scores.get("unlabeled"), labelled, pseudo=scores.get("pseudo")
        )


def _search(
    plan: Plan,
    seen: _Seen,
    record: Record,
    known: list[FrozenTrial],
    uri: str,
    objective: str,
    samples: int,
    seed: int,
    method: Method,
) -> None:
    """Search in memory; the record gets each trial in one entry, when it has ended."""
    journal = optuna.create_study(
        study_name=plan.name, storage=record.storage, direction="maximize", load_if_exists=True
    )
    study = optuna.create_study(direction="maximize")
    study.add_trials(known)
    number, points = record.next_number(), given_points(method, plan, samples)
    count = len(points) if method == "grid" else samples
    for index in range(len(known), count):
        began = time.perf_counter()
        study.sampler = make_sampler(method, derive_seed(seed, plan.name, index))
        if index < len(points):
            study.enqueue_trial(points[index])
        trial = study.ask()
        head = _head(plan.space.suggest(trial), plan.experiment.score, seen.detector)
        judged = seen.judge(head)
        about = {
            "number": number + index - len(known),
            "architecture": plan.experiment.architecture,
            "variant": plan.experiment.variant,
            "run": uri,
            "head": head_name(head, seen.detector),
            "figures": judged,
            "value": judged[objective],
            "seconds": round(time.perf_counter() - began, 3),
        }
        for key, value in about.items():
            trial.set_user_attr(key, value)
        journal.add_trial(study.tell(trial, judged[objective]))


def _head(point: Mapping[str, Value], own: ScoreConfig, detector: Detector) -> ScoreConfig:
    """Give the head that a point stands for; what it leaves open is as in `own`."""

    def value(setting: str) -> Any:
        return point.get(f"score.{setting}", getattr(own, setting))

    head = ScoreConfig(name=value("name"))
    used = settings_read(head, detector) - {"scales"}
    if "reconstruction" in detector.offers:
        used |= {"top", "smooth"} if value("top") else {"top"}
    return dataclasses.replace(head, **{setting: value(setting) for setting in used})


def _space(
    detector: Detector, fixes: Mapping[str, Value], ranges: Mapping[str, Narrowing]
) -> Space:
    """Give all heads that the detector can feed, as far as `fixes` and `ranges` leave them open."""
    names = [str(fixes["score.name"])] if "score.name" in fixes else _able(detector)
    read = {name: settings_read(ScoreConfig(name=name), detector) for name in names}
    wide = dict(derive(ScoreConfig, "score."))
    top, smooth = wide.pop("score.top"), wide.pop("score.smooth")
    space = Space({"score.name": Choice(*names)} if len(names) > 1 else {})
    for key, values in wide.items():
        readers = tuple(name for name in names if key.removeprefix("score.") in read[name])
        if readers:
            when = (When(**{"score.name": readers}),) if len(names) > 1 else ()
            space |= Space({key: values}, {key: when})
    if "reconstruction" in detector.offers:
        # The blur of a map that no score is made of changes no score.
        pooled = When(**{"score.top": tuple(value for value in corners(top) if value)})
        space |= Space({"score.top": top, "score.smooth": smooth}, {"score.smooth": (pooled,)})
    for what, keys in (("--fix", fixes), ("--range", ranges)):
        for key in keys:
            if key not in {"score.name", *space}:
                raise ConfigError(f"{what}: {unknown('key of the study score', key, space)}")
    wanted = {
        key: narrowed(key, values, ranges.get(key))
        for key, values in space.items()
        if key not in fixes
    }
    space = space.within(wanted, {"score.top": 0.0, **fixes})
    if not space:
        raise ConfigError(f"the study 'score' of {detector.name} has nothing to search: fix less.")
    return space


def _able(detector: Detector) -> list[str]:
    """Names of the scores that suit the detector and its image size."""
    able = []
    for name in offered(detector):
        try:
            make_score(ScoreConfig(name=name), detector)
        except ConfigError:  # images too small for it
            continue
        able.append(name)
    return able
