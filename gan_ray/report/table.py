"""Evaluations and data checks as tables on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gan_ray.report.words import (
    HEADS,
    model_name,
    number,
    p_value,
    share,
    stratum_rate,
    verdict,
)

_KINDS = ("sizes", "dtypes")
_COLUMNS = (
    *("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro_30"),
    *("sensitivity", "specificity"),
)


def show_evaluation(evaluation: Mapping[str, Any]) -> None:
    """Print models and baselines with their 95 % intervals, and the paired verdicts."""
    rows = [*evaluation["models"], *evaluation["baselines"]]
    console = _console()
    console.print(_metrics("detector", {model_name(row): row["metrics"] for row in rows}))
    for row in evaluation["models"]:
        for stratum in (row["threshold"] or {}).get("strata", ()):
            console.print(Text(f"{model_name(row)}, {stratum_rate(stratum)}"))
    for row in rows:
        if subjects := row["by_group"]:
            names = ("image_auroc", "image_ap", "sensitivity", "specificity")
            cells = (f"{name} {_cell(subjects[name])}" for name in names if name in subjects)
            console.print(
                f"{model_name(row)}, by patient or group ({subjects['groups']}): "
                f"{', '.join(cells)}",
                markup=False,
                highlight=False,
            )
    _print_pairs(console, evaluation["paired"])
    for model in evaluation["models"]:
        if heads := model["heads"]:
            others = {name: each["metrics"] for name, each in heads["figures"].items()}
            named = {f"{heads['own']} (its own)": model["metrics"], **others}
            console.print(_metrics(f"heads of {model_name(model)}", named))
            _print_pairs(console, heads["paired"])
            console.print(HEADS, markup=False, highlight=False)


def _metrics(heading: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    shown = [name for name in _COLUMNS if any(name in metrics for metrics in rows.values())]
    view = Table(box=None, pad_edge=False)
    view.add_column(heading)
    for name in shown:
        view.add_column(name, justify="right")
    for name, metrics in rows.items():
        view.add_row(Text(name), *(_cell(metrics.get(key)) for key in shown))
    return view


def _print_pairs(console: Console, pairs: Sequence[Mapping[str, Any]]) -> None:
    for pair in pairs:
        console.print(
            f"{pair['a']} - {pair['b']}, {pair['metric']}: {pair['difference']:+.4f} "
            f"[{pair['low']:+.4f}, {pair['high']:+.4f}]  {verdict(pair)}  "
            f"(p {p_value(pair['p_value'])}, corrected {p_value(pair['p_holm'])})",
            markup=False,
            highlight=False,
        )


def show_calibration(summary: Mapping[str, Any]) -> None:
    """Print a threshold with what it promises, and those of strata."""
    console = _console()
    rows = [("", summary), *summary["strata"].items()]
    rows += [("mean of a group", summary["subjects"])] if summary["subjects"] else []
    view = Table(box=None, pad_edge=False)
    for head in (summary["by"] or "images", "threshold", "normals", "groups"):
        view.add_column(head)
    for head in ("flagged on average", "at most (95 %)", "id"):
        view.add_column(head)
    for name, row in rows:
        shares = [share(row["bound"][key]) for key in ("expected", "upper")]
        counts = [f"{row[key]:,}" for key in ("images", "groups")]
        view.add_row(Text(name or "all"), number(row["threshold"], 6), *counts, *shares, row["id"])
    console.print(view)
    for name, images in summary["few"].items():
        console.print(
            Text(
                f"{summary['by']} {name!r}: {images} held-out normals are too few for a threshold "
                f"of its own at {share(summary['fpr'])}; it takes the common one, which promises "
                "nothing for it alone"
            )
        )


def _cell(figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return "-"
    return f"{figure['value']:.3f} ({figure['low']:.3f}-{figure['high']:.3f})"


def show_check(report: Mapping[str, Any]) -> None:
    """Print what a data set holds, its warnings and its errors."""
    view = Table(box=None, pad_edge=False)
    for head in ("part", "images", "patients or groups", "sizes", "types"):
        view.add_column(head)
    for name, part in report["splits"].items():
        kinds = [", ".join(f"{k} ({n:,})" for k, n in part[what].items()) for what in _KINDS]
        view.add_row(Text(name), f"{part['images']:,}", f"{part['groups']:,}", *kinds)
    console = _console()
    console.print(view)
    held_out = ", ".join(f"{count} for {use}" for use, count in report["held_out"].items())
    console.print(f"held out of train/normal by patient: {held_out}", highlight=False)
    if report["classes"]:
        counts = ", ".join(f"{kind} ({count:,})" for kind, count in report["classes"].items())
        console.print(Text(f"classes of training normals: {counts}"))
    for split, aurocs in report["shortcuts"].items():
        figures = ", ".join(f"{name} {value:.2f}" for name, value in aurocs.items())
        console.print(Text(f"AUROC of trivial features on {split}: {figures}"))
    for kind in ("errors", "warnings"):
        for line in report[kind]:
            console.print(Text(f"{kind[:-1]}: {line}"))
    console.print("usable" if report["ok"] else "not usable as it is")


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=160)
