"""What the ways in make of the cores: a bucket by `score`, lists of URIs and single images by HTTP.

`python -m benchmarks.serving BUNDLE [--objects 4096] [--seconds 20] [--overload 60]`.

The cores allow, images a second: their number over the processor seconds that one image takes to be
downloaded (client and server), decoded and scored, each measured apart, in turns with the ways in:
the machine's mood changes. The object store is a real server in a process of its own on the same
cores; so are the clients. What processes of others take meanwhile is not counted as ours to use:
`cores` beside a rate says how many were.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from itertools import count
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image

from benchmarks.core import conv_gflops
from benchmarks.inference import against_bare
from gan_ray.artifacts.bundle import load_bundle
from gan_ray.data.readers import read_image
from gan_ray.data.transforms import prepare
from gan_ray.scoring.batch import score_prefix
from gan_ray.scoring.scorer import Scorer
from gan_ray.storage import open_store
from serve.launch import launch
from serve.settings import TOKEN_VARIABLE, AppArgs
from tests.s3_server import access, make_bucket, serving

LIST = 32
"""Images of a request for many."""
SIDE = 256
"""Stored pixels of an image's side."""
THREADS = 16
TURNS = 3
"""Times that the bucket, then lists, are measured in turns with the parts of their cost."""
Answer = tuple[int, float, str]
"""Status, seconds and `Retry-After` of a request."""
Request = Callable[[int], tuple[str, str, bytes]]
"""Path, content type and body of a request, by its number."""


def film(seed: int) -> bytes:
    """Give a PNG with structure, as large as a film of that size."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(40, 200, (SIDE // 16, SIDE // 16), np.uint8)
    smooth = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth, np.int16) + draw.integers(-6, 7, (SIDE, SIDE))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "png")
    return file.getvalue()


@dataclass(frozen=True)
class Cost:
    """Processor seconds of one image."""

    download: float
    server: float
    decode: float
    forward: float

    def allowed(self, cores: float) -> float:
        """Images a second on so many cores."""
        return cores / (self.download + self.server + self.decode + self.forward)

    def beside(self, rate: float, cores: float) -> dict[str, float]:
        """Give a rate, the cores that it had and its share of what those allow."""
        share = rate / self.allowed(cores)
        return {"rate": round(rate, 1), "cores": round(cores, 2), "of_allowed": round(share, 3)}

    @staticmethod
    def mean(measured: Sequence[Cost]) -> Cost:
        """Give the mean of several measurements."""
        return Cost(*(mean(parts) for parts in zip(*map(astuple, measured), strict=True)))


def cost(bundle: Path, uri: str, keys: Sequence[str], server: int) -> Cost:
    """Measure the parts of one image's way, each by itself."""
    loaded = load_bundle(bundle)
    store, scorer = open_store(uri), Scorer.from_bundle(loaded, batch_size=LIST)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(store.get, keys[:THREADS]))  # connections
        began, before = time.process_time(), _cpu_seconds(server)
        contents = list(pool.map(store.get, keys))
        download, at_server = time.process_time() - began, _cpu_seconds(server) - before
    began = time.process_time()
    image, fit = loaded.manifest.image, loaded.manifest.fit
    rows = [prepare(read_image(content, "a.png"), image, fit) for content in contents]
    decode = time.process_time() - began
    scorer.score_images(np.stack(rows[:LIST]))
    began = time.process_time()
    scorer.score_images(np.stack(rows))
    forward = time.process_time() - began
    return Cost(*(part / len(keys) for part in (download, at_server, decode, forward)))


def scorer_of_bare(bundle: Path) -> float:
    """Give the rate of `Scorer` as a share of the bare forward pass's."""
    loaded = load_bundle(bundle)
    image = loaded.manifest.image
    shape = (4 * LIST, image.channels, image.size, image.size)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return round(against_bare(Scorer.from_bundle(loaded, batch_size=LIST), pixels, turns=8)[1], 3)


def bucket_job(bundle: Path, source: str, sink: str, cores: int) -> tuple[int, float, float]:
    """Score a bucket: give images, seconds, and those of a core that others took meanwhile.

    They are counted from the end of the first shards to the end of the last.
    """
    seen: list[tuple[float, float, int]] = []
    score_prefix(
        bundle, source, sink, workers=cores, shard_size=128,
        progress=lambda figures: seen.append((time.perf_counter(), _others(), figures["objects"])),
    )  # fmt: skip
    (first, before, done), (last, after, all_) = seen[2 * cores], seen[-1]
    return all_ - done, last - first, after - before


class Client:
    """One connection that stays open."""

    def __init__(self, url: str) -> None:
        place, token = urlsplit(url), os.environ.get(TOKEN_VARIABLE)
        self._token = {"Authorization": f"Bearer {token}"} if token else {}
        self._connection = http.client.HTTPConnection(
            str(place.hostname), int(place.port or 80), timeout=120
        )

    def post(self, path: str, kind: str, body: bytes) -> Answer:
        """Post and read the answer; status 0 where there was none."""
        began = time.perf_counter()
        try:
            self._connection.request("POST", path, body, {"Content-Type": kind, **self._token})
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return 0, time.perf_counter() - began, ""
        return answer.status, time.perf_counter() - began, answer.getheader("Retry-After") or ""


def closed_loop(url: str, clients: int, seconds: float, request: Request) -> list[Answer]:
    """Let clients send one request after another; give the answers."""
    numbers, ends = count(), time.perf_counter() + seconds

    def work(_: int) -> list[Answer]:
        client, answers = Client(url), []
        while time.perf_counter() < ends:
            answers.append(client.post(*request(next(numbers))))
        return answers

    with ThreadPoolExecutor(clients) as pool:
        return [answer for some in pool.map(work, range(clients)) for answer in some]


def open_loop(url: str, rate: float, seconds: float, request: Request) -> list[Answer]:
    """Send `rate` requests a second whatever becomes of the earlier ones; give the answers."""
    answers: list[Answer] = []
    idle: list[Client] = []

    def send(number: int) -> None:
        client = idle.pop() if idle else Client(url)
        answers.append(client.post(*request(number)))
        idle.append(client)

    threads = []
    began = time.perf_counter()
    for number in range(int(rate * seconds)):
        time.sleep(max(0.0, began + number / rate - time.perf_counter()))
        threads.append(threading.Thread(target=send, args=(number,), daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return answers


@contextmanager
def sampled(look: Callable[[], object], every: float) -> Iterator[None]:
    """Look now, then `every` so many seconds until the block ends."""
    over = threading.Event()

    def work() -> None:
        look()
        while not over.wait(every):
            look()

    watcher = threading.Thread(target=work)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def quantiles(answers: Sequence[Answer], status: int = 200) -> dict[str, float]:
    """Give p50 and p99 of the seconds of the answers with a status, in milliseconds."""
    times = [seconds for found, seconds, _ in answers if found == status]
    return (
        {f"p{q}": round(1000 * float(np.percentile(times, q)), 1) for q in (50, 99)}
        if times
        else {}
    )


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _others() -> float:
    """Give the processor seconds so far of all that is no process of this benchmark."""
    parents, spent = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
        spent[int(folder.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ours(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # less idle and iowait
    return busy - sum(seconds for pid, seconds in spent.items() if ours(pid))


def _resident_mib() -> float:
    """Memory of all scoring processes and of those in front of them."""
    total = 0
    for folder in Path("/proc").iterdir():
        try:
            if "ServeReplica" in (folder / "cmdline").read_text():
                total += int((folder / "statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            continue
    return total * os.sysconf("SC_PAGE_SIZE") / 2**20


def _server() -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid() and "moto" in (folder / "cmdline").read_text():
                return int(folder.name)
        except OSError:
            continue
    raise RuntimeError("the object store's process is not there")


@contextmanager
def films(objects: int, folder: Path) -> Iterator[tuple[str, list[str], int]]:
    """Give a bucket with films, their keys and the process of its server."""
    with serving("127.0.0.1", folder / "server.log") as endpoint:
        os.environ.update(access(endpoint))
        bucket = make_bucket(endpoint)
        store = open_store(f"{bucket.uri}/in")
        contents = [film(seed) for seed in range(64)]
        keys = [f"{number:06}.png" for number in range(objects)]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda n: store.put(keys[n], contents[n % 64]), range(objects)))
        yield bucket.uri, keys, _server()


def run(bundle: Path, objects: int, seconds: float, overload: float) -> dict[str, Any]:
    torch.set_num_threads(1)
    cores = os.cpu_count() or 1
    found: dict[str, Any] = {"cores": cores, "conv_gflops": round(conv_gflops(), 1)}
    with TemporaryDirectory() as folder, films(objects, Path(folder)) as (uri, keys, server):

        def measured() -> Cost:
            return cost(bundle, f"{uri}/in", keys[:512], server)

        found["scorer_of_bare"] = scorer_of_bare(bundle)
        costs, jobs = [measured()], []
        for turn in range(TURNS):
            jobs.append(bucket_job(bundle, f"{uri}/in", f"{uri}/out-{turn}", cores))
            costs.append(measured())
        images, took, foreign = (sum(parts) for parts in zip(*jobs, strict=True))
        each = Cost.mean(costs)
        found["cpu_ms"] = {part: round(1000 * value, 2) for part, value in vars(each).items()}
        found["allowed"] = round(each.allowed(cores), 1)
        found["bucket"] = each.beside(images / took, cores - foreign / took)
        print(found, flush=True)
        manifest = load_bundle(bundle).manifest
        pace = AppArgs(bundles=(str(bundle),), replicas=cores).pace(manifest.passes_per_image)
        clients = pace.room // LIST  # as many as are let in
        with launch([bundle], port=0, allow=[uri], replicas=cores) as endpoint:
            path = f"/v2/models/{manifest.name}/score"

            def listed(number: int) -> tuple[str, str, bytes]:
                some = [keys[(LIST * number + k) % objects] for k in range(LIST)]
                wanted = {"uris": [f"{uri}/in/{key}" for key in some]}
                return path, "application/json", json.dumps(wanted).encode()

            image = film(0)

            def single(number: int) -> tuple[str, str, bytes]:
                return path, "image/png", image

            closed_loop(endpoint.url, 2, 3, listed)
            answers, costs, took, foreign = [], costs[-1:], 0.0, 0.0
            for _ in range(TURNS):
                began, others = time.perf_counter(), _others()
                answers += closed_loop(endpoint.url, clients, seconds / TURNS, listed)
                took += time.perf_counter() - began
                foreign += _others() - others
                costs.append(measured())
            capacity, had = _good(answers) / took, cores - foreign / took
            full = quantiles(answers)
            each = Cost.mean(costs)
            found["lists"] = {"clients": clients, **each.beside(LIST * capacity, had), **full}
            print(found["lists"], flush=True)
            found["single"] = {}
            for alone in (1, 8, 32):
                answers = closed_loop(endpoint.url, alone, seconds, single)
                figures = {"rate": round(_good(answers) / seconds, 1), **quantiles(answers)}
                found["single"][alone] = figures
                print(alone, figures, flush=True)
            if overload:
                memory: list[int] = []
                with sampled(lambda: memory.append(round(_resident_mib())), overload / 6):
                    answers = open_loop(endpoint.url, 4 * capacity, overload, listed)
                found["overload"] = {
                    "asked_per_second": round(4 * LIST * capacity, 1),
                    "answers": dict(Counter(status for status, _, _ in answers)),
                    "accepted": quantiles(answers),
                    "at_full_capacity": full,
                    "refused": quantiles(answers, 429),
                    "with_retry_after": sum(bool(a[2]) for a in answers if a[0] == 429),
                    "memory_mib": memory,
                }  # fmt: skip
    return found


def _good(answers: Sequence[Answer]) -> int:
    return sum(status == 200 for status, _, _ in answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--objects", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--overload", type=float, default=60.0)
    print(json.dumps({"serving": run(**vars(parser.parse_args()))}))


if __name__ == "__main__":
    main()
