"""What is searched in one Optuna study: the settings of a system, or of several and which one.

A `Plan` is one system's space around its experiment. A `Joint` puts several into one conditional
space. A search asks both for the same: their space, the points to begin with, and which experiment
with which settings a point stands for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from gan_ray.config import Experiment, flatten, to_dict
from gan_ray.errors import ConfigError
from gan_ray.ranges import Choice, Value, When
from gan_ray.training.launch import needs_of_one
from gan_ray.training.run import identity
from tune_spaces.derive import nearest
from tune_spaces.space import Point, Space

ARCHITECTURE = "architecture"
"""The study, and the dimension in it, of the choice among systems."""


def system_name(architecture: str, variant: str) -> str:
    """Give architecture, and variant where there is one, as one name."""
    return f"{architecture}-{variant}" if variant else architecture


@dataclass(frozen=True)
class Plan:
    """One architecture's search: the first trial is `experiment` itself, moved into `space`."""

    experiment: Experiment[Any]
    space: Space

    @property
    def name(self) -> str:
        """Architecture, and variant where there is one."""
        return system_name(self.experiment.architecture, self.experiment.variant)

    @property
    def first(self) -> Point:
        """The point of the space nearest to the experiment's own settings."""
        here = flatten(to_dict(self.experiment))
        return self.space.draw(lambda key, values: nearest(values, here[key]))

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The systems that are searched."""
        return (self,)

    @property
    def firsts(self) -> list[Point]:
        """The points that are tried before any is drawn."""
        return [self.first]

    def point(self, name: str, settings: Mapping[str, Value]) -> Point | None:
        """Give the point of the system so called with these settings; None if it is another."""
        return dict(settings) if name == self.name else None

    def read(self, point: Mapping[str, Value]) -> tuple[Plan, Point]:
        """Give the system that a point stands for, and its settings."""
        return self, dict(point)

    def identity(self) -> dict[str, Any]:
        """Give what makes it this search beside its space; see `gan_ray.training.run.identity`."""
        return identity(self.experiment)


@dataclass(frozen=True)
class Joint:
    """A search among systems: the dimension `architecture`, and theirs where it has chosen them.

    Keys of a system are called `system:key`: a value that is good for one need not be for another.
    """

    plans: tuple[Plan, ...]

    name: ClassVar[str] = ARCHITECTURE

    @property
    def space(self) -> Space:
        """The choice among the systems, then the spaces of all."""
        space = Space({ARCHITECTURE: Choice(*(plan.name for plan in self.plans))})
        for plan in self.plans:
            names = {key: f"{plan.name}:{key}" for key in plan.space}
            own = When(architecture=plan.name)
            space |= Space(
                {names[key]: values for key, values in plan.space.items()},
                {
                    names[key]: (own, *(w.named(names) for w in plan.space.conditions.get(key, ())))
                    for key in plan.space
                },
            )
        return space

    @property
    def firsts(self) -> list[Point]:
        """The points that are tried before any is drawn: each system's own settings."""
        return [point for plan in self.plans if (point := self.point(plan.name, plan.first))]

    def point(self, name: str, settings: Mapping[str, Value]) -> Point | None:
        """Give the point of the system so called with these settings; None if there is none."""
        if name not in (plan.name for plan in self.plans):
            return None
        return {ARCHITECTURE: name} | {f"{name}:{key}": v for key, v in settings.items()}

    def read(self, point: Mapping[str, Value]) -> tuple[Plan, Point]:
        """Give the system that a point stands for, and its settings."""
        plan = next(plan for plan in self.plans if plan.name == point[ARCHITECTURE])
        return plan, settings_of(point)

    def identity(self) -> dict[str, Any]:
        """Give what makes it this search beside its space."""
        return {f"{p.name}:{key}": value for p in self.plans for key, value in p.identity().items()}


Search = Plan | Joint
"""What one Optuna study searches."""


def settings_of(point: Mapping[str, Any]) -> dict[str, Any]:
    """Give a point's settings by the keys that its system knows them by."""
    return {key.rpartition(":")[2]: v for key, v in point.items() if key != ARCHITECTURE}


def searches(made: Sequence[Plan], study: str) -> list[Search]:
    """Give the Optuna studies: one of each plan, or one of all in the study `architecture`.

    Raises:
        ConfigError: a single system to choose among, or trials that need different resources.
    """
    if study != ARCHITECTURE:
        return list(made)
    if len(made) < 2:
        raise ConfigError(
            f"the study '{study}' chooses among systems and got {made[0].name} alone: name two or "
            "more (brainomaly,ganomaly), or take --study weights."
        )
    trains = [plan.experiment.train for plan in made]
    if len({(train.workers, *needs_of_one(train).items()) for train in trains}) > 1:
        raise ConfigError(
            "the systems of one study must have equally many workers with equal resources: give "
            "all the same --train.workers, --train.use-gpu and --train.gpus-per-worker."
        )
    return [Joint(tuple(made))]
