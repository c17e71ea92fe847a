"""The ledger of a batch job: which objects it scores, and which of them are done. No Ray here.

    SINK/plan.json, SINK/parts/00000000.parquet, ..., SINK/maps/KEY.npy

The plan fixes the listing, so that a resumed job scores the same objects. Plan and parts are
written on the condition that they are absent: whoever comes second, be it another job or a worker
that was believed dead, changes nothing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from gan_ray.config import config, from_dict, to_dict
from gan_ray.data.suffixes import names_image
from gan_ray.errors import ConfigError, DataError, StorageError
from gan_ray.storage import Entry, ObjectMissing, Store, open_store

SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("etag", pa.string()),  # of the content that was scored
        ("score", pa.float64()),  # null where there is an error
        ("p_value", pa.float64()),  # null without calibration, too
        ("abnormal", pa.bool_()),
        ("threshold", pa.string()),  # its id: the stratum's own, or the common one
        ("error", pa.string()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("manifest_digest", pa.string()),
        ("preprocessing", pa.string()),
    ]
)
_PLAN = "plan.json"
_PARTS = "parts/"


@config
class Job:
    """What makes two commands the same job."""

    source: str
    """Address of the images."""
    model: str
    """Name of the bundle."""
    version: str
    """Its version."""
    manifest_digest: str
    """Its content."""
    preprocessing: str
    """Its way from a file's pixels to the networks."""
    maps: bool
    """Whether anomaly maps are kept."""
    shard_size: int
    """Objects per shard: what one worker takes, and one part holds."""
    suffixes: tuple[str, ...]
    """Endings of the keys that are images, in lower case; "" for those without one."""
    stratum: str = ""
    """Scanner, site, ... that all images are of, as the calibration names it."""


@config
class Plan:
    """A job and its objects, in the order of their keys."""

    schema_version: Literal[1] = 1
    """Layout of this document."""
    job: Job
    """What is done to them."""
    passed_over: int
    """Objects of the source that are no images by their names."""
    objects: tuple[tuple[str, int, str], ...]
    """Key, size and etag of each."""

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-len(self.objects) // self.job.shard_size)

    def shard(self, index: int) -> list[Entry]:
        """Give the objects of a shard."""
        start = index * self.job.shard_size
        return [Entry(*found) for found in self.objects[start : start + self.job.shard_size]]


def settle(sink: Store, job: Job) -> Plan:
    """Give the plan in `sink`, after making it from a listing when there is none.

    Raises:
        ConfigError: the sink holds another job.
        DataError: there is no image in the source.
    """
    if not sink.exists(_PLAN):
        # Somebody else may be quicker: what counts is what is read back.
        sink.put(_PLAN, json.dumps(to_dict(_list(job))).encode(), if_absent=True)
    plan = _read_plan(sink)
    mine, theirs = to_dict(job), to_dict(plan.job)
    if mine != theirs:
        other = ", ".join(
            f"{name} {theirs[name]!r} (now {mine[name]!r})"
            for name in mine
            if mine[name] != theirs[name]
        )
        raise ConfigError(
            f"sink {sink.uri} holds the rows of another job: {other}. Choose an empty sink, or "
            "repeat the command that began it."
        )
    return plan


def done(sink: Store) -> set[int]:
    """Give the shards whose rows are written."""
    return {int(entry.key.removeprefix(_PARTS)[:8]) for entry in sink.list(_PARTS)}


def commit(sink: Store, shard: int, rows: Sequence[dict[str, object]]) -> bool:
    """Write the rows of a shard, in the columns of `SCHEMA`; False when they were there already."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), buffer, compression="zstd")
    return sink.put(_part(shard), buffer.getvalue(), if_absent=True)


def read_rows(sink: str) -> pa.Table:
    """Give the rows that a batch job has written so far, in the order of the keys; see `SCHEMA`.

    Raises:
        StorageError: there is no batch job at `sink`, or it cannot be read.
    """
    store = open_store(sink)
    _read_plan(store)
    parts = [pq.read_table(io.BytesIO(store.get(entry.key))) for entry in store.list(_PARTS)]
    return pa.concat_tables([SCHEMA.empty_table(), *parts], promote_options="default")


def _part(shard: int) -> str:
    return f"{_PARTS}{shard:08d}.parquet"


def _list(job: Job) -> Plan:
    objects, passed_over = [], 0
    for entry in open_store(job.source).list():
        if names_image(entry.key, job.suffixes):
            objects.append((entry.key, entry.size, entry.etag))
        else:
            passed_over += 1
    if not objects:
        raise DataError(
            f"there is no image in {job.source} ({passed_over} other objects): images end in "
            f"{', '.join(filter(None, job.suffixes))}. Check the address."
        )
    return Plan(job=job, passed_over=passed_over, objects=tuple(objects))


def _read_plan(sink: Store) -> Plan:
    try:
        return from_dict(Plan, json.loads(sink.get(_PLAN)))
    except ObjectMissing:
        raise StorageError(
            f"{sink.uri} holds no batch job (no {_PLAN}): give the SINK of `gan-ray score`."
        ) from None
    except ValueError as error:
        raise StorageError(
            f"{sink.uri}/{_PLAN} cannot be read: {error}. Take the gan-ray that wrote it, or "
            "another sink."
        ) from None
