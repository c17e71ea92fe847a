"""The whole product once, on embedded real data, in minutes.

Digit 0 is normal, the other nine digits are abnormal. Images go into an object store; two systems
are searched, one is chosen without labels, trained on two workers, exported, served, and scores the
store's test images over HTTP; only then are test labels opened.
"""

from __future__ import annotations

import io
import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from gan_ray.artifacts.export import export
from gan_ray.cluster import connect
from gan_ray.config import DataConfig, Experiment, merge, to_dict
from gan_ray.data.sources import open_source
from gan_ray.errors import ArtifactError, CheckFailed
from gan_ray.experiment import make, parse
from gan_ray.report.html import write_report
from gan_ray.scoring.evaluate import evaluate
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import make_score
from gan_ray.storage.store import Store, open_store
from gan_ray.training.launch import train
from gan_ray.training.run import RunFolder, load_detector

SYSTEMS = ("brainomaly", "ganomaly")
SAMPLES = 2
"""Trials per system: the paper's weights and one other."""
SWEEP_IMAGES, TRAIN_IMAGES = 8_000, 24_000
FPR = 0.1
"""Calibration has about 20 normals, hardly more than the 19 that a rate of 1 in 20 needs."""
PER_REQUEST = 64
TOLERANCE = 1e-4

Say = Callable[[str], None]


def quickstart(*, store: str, out: str | Path, say: Say) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run everything; give the contents of `summary.json` and `evaluation.json`, which `out` holds.

    Starts over what is in `out`.

    Raises:
        CheckFailed: served scores differ from those of the training side.
    """
    started = time.monotonic()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with _step(say, "put the digits into the store"):
        uris = put_digits(open_store(store))
    with _step(say, "start Ray"):
        connect(num_cpus=4)
    with _step(say, f"search {SAMPLES} settings of each of {', '.join(SYSTEMS)}"):
        selection = _search(store, folder / "sweep", say)
    with _step(say, f"train the winner, {selection['architecture']}, on two workers"):
        run = train(_winner(selection), folder / "run", fresh=True)
    with _step(say, "export it through the parity gate"):
        bundle = _export(run, folder / "bundle")
    with _step(say, f"serve it and score {len(uris)} images of the store over HTTP"):
        served, rate = _serve_and_score(bundle, store, uris, say)
        difference = _difference(run, open_store(store), served)
    if difference > TOLERANCE:
        raise CheckFailed(f"served and trained scores differ by {difference:.2g} > {TOLERANCE:g}")
    with _step(say, "open the test labels and evaluate"):
        evaluation = evaluate([bundle], None, folder / "evaluation", baselines=True)
    with _step(say, "write the report"):
        paths = [folder / "evaluation", folder / "run", folder / "sweep"]
        report = write_report(paths, folder / "report.html", title="gan_ray quickstart")
    metrics = evaluation["models"][0]["metrics"]
    auroc = metrics["image_auroc"]
    summary = {
        "image_auroc": auroc["value"],
        "image_auroc_ci": [auroc["low"], auroc["high"]],
        "image_ap": metrics["image_ap"]["value"],
        "served_images": len(served),
        "served_images_per_second": round(rate, 1),
        "max_score_difference": difference,
        "seconds": round(time.monotonic() - started, 1),
        "winner": selection["architecture"],
        "trials": selection["trials"],
        "report": str(report),
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1))
    say(f"summary: {folder / 'summary.json'}   report: {report}   {summary['seconds']:.0f} s")
    return summary, evaluation


@contextmanager
def _step(say: Say, name: str) -> Iterator[None]:
    started = time.monotonic()
    say(f"- {name} ...")
    yield
    say(f"  {time.monotonic() - started:.1f} s")


def put_digits(store: Store) -> list[str]:
    """Write scikit-learn's digits as a folder layout of PNG files; give the test images' URIs."""
    source = open_source(DataConfig(source="digits", normal_class=0))
    parts = {name: items for name, items in source.training().items() if items}
    labels = source.labels().labels
    objects = {
        f"{part}/{number:04d}.png": item
        for part, items in parts.items()
        for number, item in enumerate(items)
    }
    tests = {
        f"test/{'abnormal' if label else 'normal'}/{number:04d}.png": item
        for number, (item, label) in enumerate(zip(source.test(), labels, strict=True))
    }

    objects |= tests

    def write(key: str) -> None:
        picture = io.BytesIO()
        Image.fromarray(objects[key].load()[1]).save(picture, "PNG")
        store.put(key, picture.getvalue())

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, objects))
    return [f"{store.uri}/{key}" for key in tests]


def _base(architecture: str, store: str) -> Experiment[Any]:
    changes = {
        "data": {"root": store, "source": "folder", "image_size": 16, "holdout": 0.5},
        "train": {
            "images": SWEEP_IMAGES,
            "report_every": SWEEP_IMAGES // 4,
            "batch_size": 16,
            "samples": 0,
        },
    }
    return make(architecture, preset="tiny", changes=changes)


def _search(store: str, out: Path, say: Say) -> dict[str, Any]:
    from tune_spaces.select import select
    from tune_spaces.sweep import sweep

    for entry in list((old := open_store(str(out))).list()):
        old.delete(entry.key)
    bases = [_base(name, store) for name in SYSTEMS]
    result = sweep(bases, samples=SAMPLES, out=str(out), progress=lambda trial: say(_line(trial)))
    selection = select(str(out))
    say(f"  {selection['reason']}")
    return {**selection, "trials": len(result["trials"])}


def _line(trial: Mapping[str, Any]) -> str:
    value = "no value" if trial["value"] is None else f"AUCp {trial['value']:.3f}"
    return (
        f"  trial {trial['number']} ({trial['architecture']}): {trial['state']}, {value} "
        f"after {trial['images']:,} images"
    )


def _winner(selection: Mapping[str, Any]) -> Experiment[Any]:
    found = to_dict(RunFolder(selection["run"]).experiment())
    longer = {"images": TRAIN_IMAGES, "report_every": TRAIN_IMAGES // 6, "workers": 2, "samples": 8}
    return parse(merge(found, {"train": longer}))


def _export(run: RunFolder, out: Path) -> Path:
    for file in out.glob("*"):
        file.unlink()
    if out.exists():
        out.rmdir()
    return export(run.uri, out, name="quickstart", fpr=FPR)


def _serve_and_score(
    bundle: Path, store: str, uris: Sequence[str], say: Say
) -> tuple[dict[str, float], float]:
    from serve.launch import launch

    with launch([bundle], port=0, allow=[open_store(store).uri]) as endpoint:
        started = time.monotonic()
        scores: dict[str, float] = {}
        for begin in range(0, len(uris), PER_REQUEST):
            body = json.dumps({"uris": uris[begin : begin + PER_REQUEST]}).encode()
            request = urllib.request.Request(
                f"{endpoint.url}/v2/models/quickstart/score",
                data=body,
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                outputs = json.load(answer)["outputs"]
            scores |= {row["input"]: row["score"] for row in outputs}
        rate = len(scores) / (time.monotonic() - started)
    last = outputs[-1]
    say(f"  {len(scores)} images at {rate:.0f}/s; the last: {last['score']:.3f}, {last['label']}")
    return scores, rate


def _difference(run: RunFolder, store: Store, served: Mapping[str, float]) -> float:
    """Give the largest difference between served scores and those of the trained detector."""
    detector, experiment, _ = load_detector(run)
    scorer = Scorer(detector, make_score(experiment.score, detector), fit=experiment.data.fit)
    items = [(uri, store.get(uri.removeprefix(f"{store.uri}/"))) for uri in served]
    gaps = []
    for result in scorer.score_files(items):
        if result.score is None:
            raise ArtifactError(f"{result.name}: {result.error}")
        gaps.append(abs(result.score - served[result.name]))
    return float(max(gaps))
