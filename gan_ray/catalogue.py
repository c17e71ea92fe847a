"""The table of what exists, read from the code."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any


def command(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    """Run the verb `architectures`; gives the exit code."""
    options = parser.parse_args(arguments)
    if options.json:
        print(json.dumps({"architectures": rows()}, indent=1))
    else:
        show(rows())
    return 0


def rows() -> list[dict[str, Any]]:
    """Describe every system: variants, presets, streams, scores, parameters of each preset."""
    import torch

    from gan_ray import architectures
    from gan_ray.experiment import build_detector, make
    from gan_ray.scoring.scores import offered

    table = []
    for name in architectures.names():
        detector = architectures.get(name)
        parameters = {}
        for preset in detector.presets:
            with torch.device("meta"):
                built = build_detector(make(name, preset=preset))
            parameters[preset] = sum(p.numel() for p in built.parameters())
        table.append(
            {
                "name": name,
                "title": detector.title,
                "variants": list(detector.variants),
                "presets": list(detector.presets),
                "streams": list(detector.streams),
                "scores": list(offered(detector)),
                "parameters": parameters,
                "card": f"docs/systems/{name}.md",
            }
        )
    return table


def show(table: list[dict[str, Any]]) -> None:
    """Print the table on standard output."""
    from rich.console import Console
    from rich.table import Table

    view = Table(box=None, pad_edge=False)
    for head in ("name", "system", "variants", "streams", "scores", "parameters (M) by preset"):
        view.add_column(head, overflow="fold")
    for row in table:
        sizes = " ".join(f"{k} {v / 1e6:.2f}" for k, v in row["parameters"].items())
        lists = (", ".join(row[key]) for key in ("variants", "streams", "scores"))
        view.add_row(row["name"], row["title"], *lists, sizes)
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(view)
