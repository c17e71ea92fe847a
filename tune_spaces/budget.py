"""The bytes that a sweep's checkpoints may take, and which go when there are more."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gan_ray.errors import ConfigError
from gan_ray.storage.store import Entry
from gan_ray.training.run import REMOVED, RunFolder
from gan_ray.training.state import DIGEST
from tune_spaces.record import Record

BEST = 5
"""Trials whose checkpoints always stay, the best ones: they are what finalists are made of."""

STAGES = "stages/"
"""Where the stages lie that trials share, beside the trials."""

_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{binary}B": (1024 if binary else 1000) ** power
    for power, prefix in enumerate("KMGT", 1)
    for binary in ("i", "")
}


def parse_bytes(text: str) -> int:
    """Read a number of bytes: `20GiB`, `500 MB`, `1.5TiB`, `4096`.

    Raises:
        ConfigError: it is none, or nothing.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    count = int(float(match[1]) * _UNITS[match[2]]) if match and match[2] in _UNITS else 0
    if count < 1:
        raise ConfigError(
            f"'{text}' is no number of bytes: write a number above 0 and a unit of "
            f"{', '.join(filter(None, _UNITS))}, such as 20GiB."
        )
    return count


def trim(record: Record, limit: int, *, over: bool = False) -> None:
    """Remove checkpoints of finished trials, the worst first, until all fit into `limit` bytes.

    Never those of a running trial, of the `BEST` best or of the selected one. What is left may be
    more than the limit then. When the sweep is `over`, shared stages go before them, those first
    that served the worst trials; those of the best trial stay, which further trials keep. All is on
    record in `record.budget`.
    """
    rows = {_folder(row): row for row in record.content()["trials"]}
    entries = [entry for folder in ("trials/", STAGES) for entry in record.store.list(folder)]
    sizes, gone = _sizes(entries, rows)
    removed: dict[str, int] = dict((record.budget or {}).get("removed", {}))
    for folder in gone:  # also by a process that was killed before it could say so
        run = RunFolder(rows[folder]["run"])
        removed.setdefault(str(rows[folder]["number"]), run.get_json(REMOVED)["bytes"])
    chosen = (record.selection or {}).get("winner")
    held = sum(sizes.values())
    if over and held > limit:
        held -= _drop_stages(record, entries, rows.values(), held - limit)
    for row in doomed(list(rows.values()), keep=[] if chosen is None else [chosen]):
        if held <= limit:
            break
        size = sizes.get(_folder(row), 0)
        if size:
            RunFolder(row["run"]).remove_checkpoints(
                f"trial {row['number']} was not among the best of its sweep, whose checkpoints may "
                f"take {limit:,} bytes (--keep-bytes)"
            )
            removed[str(row["number"])] = size
            held -= size
    record.budget = {"bytes": limit, "held": held, "removed": removed}


def _drop_stages(
    record: Record, entries: Iterable[Entry], rows: Iterable[Mapping[str, Any]], excess: int
) -> int:
    """Remove whole sets of shared stages until `excess` bytes are free; give how many are.

    `entries` are all of the sweep's folder that count.
    """
    worth: dict[str, float] = {}
    for row in rows:
        used = (RunFolder(row["run"]).get_json("environment.json") or {}).get("stages", "")
        if used and row["value"] is not None:
            worth[used] = max(row["value"], worth.get(used, row["value"]))
    kept = max(worth, key=lambda key: worth[key], default="")
    stages: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.key.startswith(STAGES):
            stages.setdefault(entry.key.split("/")[1], []).append(entry)
    freed = 0
    for key in sorted(stages.keys() - {kept}, key=lambda key: worth.get(key, -math.inf)):
        if freed >= excess:
            break
        # Digests go first: what a kill leaves behind is then torn, not wrong.
        for entry in sorted(stages[key], key=lambda entry: not entry.key.endswith(DIGEST)):
            record.store.delete(entry.key)
            freed += entry.size
    return freed


def doomed(
    rows: Sequence[Mapping[str, Any]], keep: Iterable[int] = (), best: int = BEST
) -> list[Mapping[str, Any]]:
    """Give the trials whose checkpoints may go, the worst first: those without a value, then by it.

    Not the running ones, the `best` best, nor those numbered in `keep`.
    """
    over = [row for row in rows if row["state"] != "running"]
    ranked = sorted(over, key=lambda row: (row["value"] is None, -(row["value"] or 0.0)))
    stay = {*keep, *(row["number"] for row in ranked[:best] if row["value"] is not None)}
    return [row for row in reversed(ranked) if row["number"] not in stay]


def _folder(row: Mapping[str, Any]) -> str:
    return str(row["run"]).rpartition("/")[2]


def _sizes(
    entries: Iterable[Entry], rows: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, int], set[str]]:
    """Give the bytes of checkpoints by trial, of all else that counts, and what was removed."""
    sizes: dict[str, int] = {}
    gone: set[str] = set()
    for entry in entries:
        parts = entry.key.split("/")
        if entry.key.startswith(STAGES):
            sizes[parts[0]] = sizes.get(parts[0], 0) + entry.size
        elif parts[0] == "trials" and parts[2:3] == ["checkpoints"]:
            sizes[parts[1]] = sizes.get(parts[1], 0) + entry.size
        elif parts[0] == "trials" and parts[2:] == [REMOVED] and parts[1] in rows:
            gone.add(parts[1])
    return sizes, gone
