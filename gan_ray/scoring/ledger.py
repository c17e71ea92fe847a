"""The ledger of a batch job: which objects it scores, and which of them are done. No Ray here.

    SINK/plan.json, SINK/plan/LISTING/00000000.parquet, ...
    SINK/parts/00000000.parquet, ..., SINK/maps/ID.npy

The plan fixes the listing, so that a resumed job scores the same objects. It names them by their
pseudonyms, which a new listing with the same key finds again. Plan and parts are written on the
condition that they are absent: whoever comes second, be it another job or a worker that was
believed dead, changes nothing. Neither plan nor listing is ever whole in memory.
"""

from __future__ import annotations

import io
import json
import uuid
from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from gan_ray.config import config, from_dict, to_dict
from gan_ray.data.suffixes import matches, names_image
from gan_ray.errors import ConfigError, DataError, StorageError
from gan_ray.names import OBJECT_DIGITS, pseudonym
from gan_ray.storage import ObjectMissing, Store, open_store

SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # `object_id`
        ("uri", pa.string()),  # null unless names are shown
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
_LISTED = pa.schema([("id", pa.string()), ("etag", pa.string())])
_BLOCK = 2**14  # objects of the plan that are written, and read, together
_THREADS = 16
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
    pseudonym_key: str
    """Name of the key that the ids are made with."""
    with_names: bool
    """Whether rows hold the addresses of the objects."""
    shard_size: int
    """Objects per shard: what one worker takes, and one part holds."""
    suffixes: tuple[str, ...]
    """Endings of the keys that are images, in lower case; "" for those without one."""
    glob: str = ""
    """Pattern that the keys of the images fit, too (`suffixes.matches`); "" for all."""
    stratum: str = ""
    """Scanner, site, ... that all images are of, as the calibration names it."""

    def takes(self, key: str) -> bool:
        """Whether the object of a key is one of its images."""
        return names_image(key, self.suffixes) and (not self.glob or matches(key, self.glob))


@config
class _Document:
    """A plan as it is written: the objects are beside it, without their names."""

    schema_version: Literal[3] = 3
    """Layout of this document."""
    job: Job
    """What is done to them."""
    listing: str
    """Folder of the objects: of several that began to list, the first to end counts."""
    objects: int
    """How many they are."""
    passed_over: int
    """Objects of the source that are no images by their names."""


@dataclass(frozen=True)
class Planned:
    """An object that a job scores."""

    id: str
    key: str | None
    """Where it is in the source; None where a later listing did not find it any more."""
    etag: str


@dataclass(frozen=True)
class Plan:
    """A job and its objects, which come in the order of their keys."""

    job: Job
    objects: int
    passed_over: int
    _listing: str
    _source: Store = field(repr=False, compare=False)
    _sink: Store = field(repr=False, compare=False)

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.objects // self.job.shard_size)

    def size(self, shard: int) -> int:
        """Give how many objects a shard has."""
        return min(self.job.shard_size, self.objects - shard * self.job.shard_size)

    def left(self, finished: Container[int] = ()) -> Iterator[tuple[int, list[Planned]]]:
        """Stream the shards that are not `finished`, with their objects.

        The source is listed again meanwhile, to learn the keys of their ids.
        """
        objects = _found(self._planned(), self._listed())
        for shard in range(self.shards):
            planned = list(islice(objects, self.job.shard_size))
            if shard not in finished:
                yield shard, planned

    def _planned(self) -> Iterator[tuple[str, str]]:
        for entry in self._sink.list(_folder(self._listing)):
            block = pq.read_table(io.BytesIO(self._sink.get(entry.key)))
            yield from zip(block["id"].to_pylist(), block["etag"].to_pylist(), strict=True)

    def _listed(self) -> Iterator[str]:
        return (entry.key for entry in self._source.list() if self.job.takes(entry.key))


def object_id(key: str) -> str:
    """Give the pseudonym of an object: long enough for the largest bucket."""
    return pseudonym(key, OBJECT_DIGITS)


def settle(source: Store, sink: Store, job: Job) -> Plan:
    """Give the plan in `sink`, after making it from a listing when there is none.

    Raises:
        ConfigError: the sink holds another job.
        DataError: there is no image in the source.
    """
    if not sink.exists(_PLAN):
        _make(source, sink, job)
    document = _read_plan(sink)
    mine, theirs = to_dict(job), to_dict(document.job)
    if mine != theirs:
        other = ", ".join(
            f"{name} {theirs[name]!r} (now {mine[name]!r})"
            for name in mine
            if mine[name] != theirs[name]
        )
        raise ConfigError(
            f"sink {sink.uri} holds the rows of another job: {other}. Choose an empty sink, or "
            "repeat the command that began it (pseudonym_key: with the same "
            "GAN_RAY_PSEUDONYM_KEY; with_names: with or without --show-names)."
        )
    return Plan(job, document.objects, document.passed_over, document.listing, source, sink)


def done(sink: Store) -> set[int]:
    """Give the shards whose rows are written."""
    return {int(entry.key.removeprefix(_PARTS)[:8]) for entry in sink.list(_PARTS)}


def failures(sink: Store, shards: Sequence[int]) -> int:
    """Count the rows with an error in finished shards; each is read."""

    def count(shard: int) -> int:
        errors = pq.read_table(io.BytesIO(sink.get(_part(shard))), columns=["error"])["error"]
        return len(errors) - int(errors.null_count)

    with ThreadPoolExecutor(_THREADS) as threads:
        return sum(threads.map(count, shards))


def commit(sink: Store, shard: int, rows: Sequence[dict[str, object]]) -> bool:
    """Write the rows of a shard, in the columns of `SCHEMA`; False when they were there already."""
    return sink.put(_part(shard), _parquet(rows, SCHEMA), if_absent=True)


def read_rows(sink: str) -> pa.Table:
    """Give the rows that a batch job has written so far, in the order of the keys; see `SCHEMA`.

    Raises:
        StorageError: there is no batch job at `sink`, or it cannot be read.
    """
    store = open_store(sink)
    _read_plan(store)
    parts = [pq.read_table(io.BytesIO(store.get(entry.key))) for entry in store.list(_PARTS)]
    return pa.concat_tables([SCHEMA.empty_table(), *parts], promote_options="default")


def read_page(
    sink: Store, shard: int, row: int, limit: int, *, ended: bool
) -> tuple[list[dict[str, Any]], tuple[int, int] | None]:
    """Give up to `limit` rows from `row` of `shard` on, and where the next page begins.

    Pages follow the order of the keys. Until the job has `ended` they stop before the first shard
    that is not written, where the next page begins; then they pass over what was never scored, and
    None says that there is no more.
    """
    rows: list[dict[str, Any]] = []
    while len(rows) < limit:
        try:
            part = pq.read_table(io.BytesIO(sink.get(_part(shard))))
        except ObjectMissing:
            if not ended:
                break
            later = [other for other in done(sink) if other > shard]
            if not later:
                return rows, None
            shard, row = min(later), 0
            continue
        taken = part.slice(row, limit - len(rows)).to_pylist()
        rows += taken
        row += len(taken)
        if row >= len(part):
            shard, row = shard + 1, 0
    return rows, (shard, row)


def _part(shard: int) -> str:
    return f"{_PARTS}{shard:08d}.parquet"


def _folder(listing: str) -> str:
    return f"plan/{listing}/"


def _parquet(rows: Sequence[dict[str, object]], schema: pa.Schema) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema), buffer, compression="zstd")
    return buffer.getvalue()


def _make(source: Store, sink: Store, job: Job) -> None:
    """List the source into a folder of its own, then say that this is the plan."""
    listing, objects, passed_over = uuid.uuid4().hex, 0, 0
    block: list[dict[str, object]] = []

    def write() -> None:
        number = (objects - 1) // _BLOCK
        sink.put(f"{_folder(listing)}{number:08d}.parquet", _parquet(block, _LISTED))
        block.clear()

    for entry in source.list():
        if not job.takes(entry.key):
            passed_over += 1
            continue
        block.append({"id": object_id(entry.key), "etag": entry.etag})
        objects += 1
        if len(block) == _BLOCK:
            write()
    if not objects:
        fitting = f" that fits {job.glob}" if job.glob else ""
        raise DataError(
            f"there is no image{fitting} in {job.source} ({passed_over} other objects): images end "
            f"in {', '.join(filter(None, job.suffixes))}. Check the address."
        )
    if block:
        write()
    made = _Document(job=job, listing=listing, objects=objects, passed_over=passed_over)
    sink.put(_PLAN, json.dumps(to_dict(made)).encode(), if_absent=True)
    if _read_plan(sink).listing != listing:  # somebody else was quicker
        for entry in list(sink.list(_folder(listing))):
            sink.delete(entry.key)


def _found(planned: Iterator[tuple[str, str]], listed: Iterator[str]) -> Iterator[Planned]:
    """Give each planned object with its key in a new listing, None where it went away.

    Both come in the order of the keys, but an id does not tell its place in it. So the side that
    has fewer in waiting reads on, until an id is on both: what came before it on either side is on
    that side alone. Memory holds the longest run of such objects, and no more.
    """
    asked: OrderedDict[str, str] = OrderedDict()  # id: etag
    offered: OrderedDict[str, str] = OrderedDict()  # id: key
    planning = listing = True  # whether a side has more
    while (planning or asked) and (listing or offered):
        if planning and (not listing or len(asked) <= len(offered)):
            one = next(planned, None)
            if one is None:
                planning = False
                continue
            name = one[0]
            asked[name] = one[1]
        elif listing:
            if not planning:
                offered.clear()  # what nobody asked for by now is new
            key = next(listed, None)
            if key is None:
                listing = False
                continue
            name = object_id(key)
            offered[name] = key
        else:
            break
        if name in asked and name in offered:
            before = ""
            while before != name:
                before, etag = asked.popitem(last=False)
                yield Planned(before, offered[name] if before == name else None, etag)
            while offered.popitem(last=False)[0] != name:
                pass
    yield from (Planned(name, None, etag) for name, etag in chain(asked.items(), planned))


def _read_plan(sink: Store) -> _Document:
    try:
        return from_dict(_Document, json.loads(sink.get(_PLAN)))
    except ObjectMissing:
        raise StorageError(
            f"{sink.uri} holds no batch job (no {_PLAN}): give the SINK of `gan-ray score`."
        ) from None
    except ValueError as error:
        raise StorageError(
            f"{sink.uri}/{_PLAN} cannot be read: {error}. Take the gan-ray that wrote it, or "
            "another sink."
        ) from None
