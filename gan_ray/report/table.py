"""An evaluation as a table on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_COLUMNS = ("image_auroc", "image_ap", "pixel_auroc", "sensitivity", "specificity")


def show_evaluation(evaluation: Mapping[str, Any]) -> None:
    """Print models and baselines with their 95 % intervals, and the paired verdicts."""
    rows = [*evaluation["models"], *evaluation["baselines"]]
    shown = [name for name in _COLUMNS if any(name in row["metrics"] for row in rows)]
    view = Table(box=None, pad_edge=False)
    view.add_column("detector")
    for name in shown:
        view.add_column(name, justify="right")
    for row in rows:
        label = f"{row['name']}@{row['version']}" if row["version"] else row["name"]
        view.add_row(Text(label), *(_cell(row["metrics"].get(name)) for name in shown))
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(view)
    for pair in evaluation["paired"]:
        console.print(
            f"{pair['a']} - {pair['b']}, {pair['metric']}: {pair['difference']:+.4f} "
            f"[{pair['low']:+.4f}, {pair['high']:+.4f}]  {pair['verdict']}",
            markup=False,
            highlight=False,
        )


def _cell(figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return "-"
    return f"{figure['value']:.3f} ({figure['low']:.3f}-{figure['high']:.3f})"
