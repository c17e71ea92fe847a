"""What a search is for: a figure to raise and, where one is named, a cost to lower.

The figures compare different systems and weights, as a loss or a mean score cannot. None of them
is made of a test label.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gan_ray.config import DataConfig, Experiment
from gan_ray.data.sources import list_training
from gan_ray.errors import ConfigError, unknown

Selector = Literal["aucp", "validation", "pseudo"]

OBJECTIVES: Mapping[str, Selector] = {
    "val/aucp": "aucp",
    "val/image_auroc": "validation",
    "val/pseudo_auroc": "pseudo",
}
"""Figures a search may raise, with the selector of checkpoints (`train.select`) that goes along."""

COSTS: Mapping[str, str] = {"latency": "ms per image", "parameters": "parameters"}
"""What a search may lower besides, with its unit (see `inference`)."""

AUTO = "auto"
"""Stands for the figure that suits the data; see `settled`."""


@dataclass(frozen=True)
class Objective:
    """A figure to raise and a cost to lower; without a cost there is one best trial."""

    figure: str
    cost: str = ""

    def __str__(self) -> str:
        """Write it as on the command line."""
        return ",".join(filter(None, (self.figure, self.cost)))


def read_objective(text: str) -> Objective:
    """Read `FIGURE`, `FIGURE,COST`, or `auto` for the figure.

    Raises:
        ConfigError: one of them is unknown, or made of test labels.
    """
    figure, comma, cost = text.partition(",")
    if figure != AUTO:
        check_objective(figure)
    if comma and cost not in COSTS:
        raise ConfigError(unknown("second objective", cost, COSTS))
    return Objective(figure, cost)


def check_objective(figure: str) -> None:
    """Refuse a figure that no search may raise.

    Raises:
        ConfigError: it is unknown, or made of test labels.
    """
    if figure.startswith("test/"):
        raise ConfigError(
            f"'{figure}' would choose settings by test labels, and the test would then measure "
            f"nothing: search for one of {', '.join(OBJECTIVES)}, and `gan-ray evaluate` once."
        )
    if figure not in OBJECTIVES:
        raise ConfigError(unknown("objective", figure, [AUTO, *OBJECTIVES]))


def settled(objective: Objective, data: Sequence[DataConfig]) -> tuple[Objective, str]:
    """Give the objective with a figure that all of the data offer, and why it is that one.

    `auto` is AUCp where there is an unlabeled mix, the labelled validation images where the user
    has some, and pseudo-anomalies of held-out normals otherwise. Opens no image.

    Raises:
        ConfigError, DataError: see `list_training`.
    """
    if objective.figure != AUTO:
        return objective, "as asked for"
    found = [list_training(one) for one in dict.fromkeys(data)]
    if all(items.unlabeled for items in found):
        figure, why = "val/aucp", "the data have an unlabeled mix"
    elif all(items.abnormal for items in found):
        figure, why = "val/image_auroc", "the data have no unlabeled mix, but labels in val/"
    else:
        figure, why = "val/pseudo_auroc", "the data have neither an unlabeled mix nor labels"
    return dataclasses.replace(objective, figure=figure), why


def prepared(experiment: Experiment[Any], objective: Objective) -> Experiment[Any]:
    """Choose checkpoints by the objective where the experiment leaves it open.

    Raises:
        ConfigError: the experiment's reports will lack the figure, or the cost cannot be measured.
    """
    train, by = experiment.train, OBJECTIVES[objective.figure]
    if train.select == "auto":
        train = dataclasses.replace(train, select=by)
    if by == "pseudo" and train.select != by:
        raise ConfigError(
            f"{objective.figure} is measured where it chooses checkpoints, but train.select is "
            f"{train.select}: leave --train.select out, or search for another figure."
        )
    if objective.cost == "latency" and train.workers > 1:
        raise ConfigError(
            f"latency is measured in a trial's own process, which has no processor of its own with "
            f"{train.workers} workers: set --train.workers 1, or search for parameters."
        )
    return dataclasses.replace(experiment, train=train)


def pareto(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Give the numbers of the complete trials that no other one beats, the cheapest first.

    To beat is to have no lower `value` and no higher `cost`, and one of them better.
    """
    able = [row for row in rows if row["state"] == "complete"
            and row["value"] is not None and row["cost"] is not None]  # fmt: skip
    front = [row for row in able if not any(_beats(other, row) for other in able)]
    return [row["number"] for row in sorted(front, key=lambda row: (row["cost"], row["number"]))]


def _beats(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    mine, theirs = ((row["value"], -row["cost"]) for row in (one, other))
    return mine != theirs and all(a >= b for a, b in zip(mine, theirs, strict=True))
