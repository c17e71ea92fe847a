"""Real material for reports: handwritten digits judged by two detectors that need no network.

Normal are zeros. `mean` scores by the distance to the mean zero, `pca` by the residual of four
principal components; labels, scores, reconstructions and maps are what these really give.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from gan_ray.config import to_dict
from gan_ray.report.figures import save_grid
from gan_ray.scoring.curves import CURVES
from gan_ray.scoring.intervals import intervals_and_bands
from gan_ray.scoring.selection import select


def digits():
    """Give train normals [N, 8, 8], test images, labels and sub-labels; pixels in [0, 1]."""
    data = load_digits()
    zeros = np.flatnonzero(data.target == 0)
    others = np.flatnonzero(np.isin(data.target, [1, 3, 6, 9]))[:200]
    test = np.concatenate([zeros[100:], others])
    labels = (data.target[test] != 0).astype(int)
    sublabels = np.where(labels == 1, np.char.add("digit ", data.target[test].astype(str)), "")
    images = data.images / 16.0
    return images[zeros[:100]], images[test], labels, sublabels


def interval(metric, labels, scores, resamples=40):
    draw = np.random.default_rng(0)
    rows = [draw.integers(0, len(labels), len(labels)) for _ in range(resamples)]
    values = [metric(labels[r], scores[r]) for r in rows if 0 < labels[r].sum() < len(r)]
    low, high = np.quantile(values, [0.025, 0.975])
    return {"value": float(metric(labels, scores)), "low": float(low), "high": float(high)}


def model(name, fit, calibrate, images, labels, sublabels, *, version="1", baseline=False):
    """Give evaluation.json's record of a detector and its cases; `fit(x)` gives reconstructions."""
    residual = {key: np.abs(x - fit(x)) for key, x in (("cal", calibrate), ("test", images))}
    scores, normals = (residual[key].mean((1, 2)) for key in ("test", "cal"))
    threshold = float(np.sort(normals)[int(np.ceil((len(normals) + 1) * 0.95)) - 1])
    flagged = scores > threshold
    record = {
        "name": name,
        "version": "" if baseline else version,
        "architecture": "" if baseline else name,
        "score": "residual",
        "metrics": {
            "image_auroc": interval(roc_auc_score, labels, scores),
            "image_ap": interval(average_precision_score, labels, scores),
            "image_pr_auc": interval(average_precision_score, labels, scores),
        },
        "by_group": None,
        "heads": None,
        "by_sublabel": {
            str(s): {
                "images": int((sublabels == s).sum()),
                "image_auroc": interval(
                    roc_auc_score, labels[(labels == 0) | (sublabels == s)],
                    scores[(labels == 0) | (sublabels == s)]),
            }
            for s in sorted(set(sublabels) - {""})
        },
        "threshold": None,
        "scores": {
            "ids": [f"{i:012x}" for i in range(len(labels))],
            "labels": labels.tolist(),
            "sublabels": sublabels.tolist(),
            "groups": [str(i) for i in range(len(labels))],
            "values": scores.tolist(),
            "p_values": [float((1 + (normals >= s).sum()) / (len(normals) + 1)) for s in scores],
        },
        "cases": [],
        "map_range": [float(np.quantile(residual["cal"], q)) for q in (0.5, 0.999)],
        "images_per_second": 12345.6,
    }  # fmt: skip
    fpr, tpr, _ = roc_curve(labels, scores)
    record["roc"] = {"fpr": fpr.tolist(), "tpr": tpr.tolist()}
    _, bands = intervals_and_bands([(CURVES, scores)], labels, resamples=40)
    record["bands"] = {curve: band.rounded() for curve, band in bands.items()}
    if baseline:
        record["map_range"] = record["scores"]["p_values"] = None
        return record, {}
    record["threshold"] = {"value": threshold, "fpr": 0.05, "images": len(normals)}
    record["metrics"] |= {
        "sensitivity": interval(lambda y, s: (s > threshold)[y == 1].mean(), labels, scores),
        "specificity": interval(lambda y, s: (s <= threshold)[y == 0].mean(), labels, scores),
        "precision": interval(lambda y, s: y[s > threshold].mean(), labels, scores),
    }
    kinds = {"miss": (1, 0), "false_alarm": (0, 1), "hit": (1, 1), "correct_pass": (0, 0)}
    rows = []
    for outcome, (label, flag) in kinds.items():
        for row in np.flatnonzero((labels == label) & (flagged == flag))[:4].tolist():
            case = {"id": record["scores"]["ids"][row], "sublabel": str(sublabels[row])}
            case |= {"outcome": outcome, "score": float(scores[row]), "row": len(rows)}
            record["cases"].append(case)
            rows.append(row)
    pixels = [(np.clip(x[rows], 0, 1) * 255).astype(np.uint8) for x in (images, fit(images))]
    maps = residual["test"][rows].astype(np.float16)
    return record, {"images": pixels[0], "reconstructions": pixels[1], "maps": maps}


def write_evaluation(folder: Path, data=None, source="digits") -> Path:
    """Write evaluation.json and cases.npz into `folder`."""
    train, images, labels, sublabels = data or digits()
    fitted, calibrate = train[: len(train) * 2 // 3], train[len(train) * 2 // 3 :]
    mean = fitted.mean(0)
    pca = PCA(4, random_state=0).fit(fitted.reshape(len(fitted), -1))

    def pca_fit(x):
        return pca.inverse_transform(pca.transform(x.reshape(len(x), -1))).reshape(x.shape)

    rest = (calibrate, images, labels, sublabels)
    made = [
        model("mean", lambda x: np.broadcast_to(mean, x.shape), *rest),
        model("pca", pca_fit, *rest, version="2"),
    ]
    black = model("brightness", np.zeros_like, *rest, baseline=True)[0]
    white = model("darkness", np.ones_like, *rest, baseline=True)[0]
    a, b = (m["metrics"]["image_auroc"]["value"] for m, _ in made)
    evaluation = {
        "schema": 1,
        "data": {"fingerprint": "8d0fa3b1c2d4e5f6", "images": len(labels), "source": source,
                 "abnormal": int(labels.sum()), "groups": len(labels)},
        "models": [record for record, _ in made],
        "baselines": [black, white],
        "paired": [{"a": "pca@2", "b": "mean@1", "metric": metric, "difference": b - a,
                    "low": b - a - 0.012, "high": b - a + 0.011, "p_value": 0.004,
                    "verdict": "a is better", "p_holm": 0.008, "p_delong": exact}
                   for metric, exact in (("image_auroc", 0.0031), ("image_ap", None))],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    arrays = {f"{kind}_{i}": x for i, (_, cases) in enumerate(made) for kind, x in cases.items()}
    np.savez(folder / "cases.npz", **arrays)
    return folder


def add_heads(model: dict) -> None:
    """Give a model one head, a little worse than its own score."""
    values = {key: {end: x - 0.02 for end, x in model["metrics"][key].items()}
              for key in ("image_auroc", "image_ap")}  # fmt: skip
    pairs = [{"a": "residual", "b": "ssim,top=0.01", "metric": key, "difference": 0.02,
              "low": 0.011, "high": 0.028, "p_value": 0.02, "verdict": "a is better",
              "p_holm": 0.04, "p_delong": None} for key in values]  # fmt: skip
    figures = {"ssim,top=0.01": {"metrics": values, "values": model["scores"]["values"]}}
    model["heads"] = {"own": "residual", "figures": figures, "paired": pairs}


def metrics() -> list[dict]:
    """Give the reports of a two-stage training: power iterations of PCA as its 'encoder' stage."""
    reports = []
    for step in range(1, 21):
        first = step <= 12
        terms = (
            {"critic/discrimination": -8 / step, "critic/gradient_penalty": 1 / step**2,
             "generator/adversarial": 2 + np.cos(step)}
            if first else
            {"encoder/image_distance": 0.3 / step, "encoder/feature_distance": 2 / step,
             "val/aucp": 0.9 - 2.0 / step, "val/normal_score": 0.4 / step}
        )  # fmt: skip
        reports.append(
            {"stage": "gan" if first else "encoder", "images": step * 1000, "seconds": 2.5,
             "images_per_second": 400 + 15 * np.sin(step), **terms})  # fmt: skip
    return reports


def write_run(folder: Path, *, reports=None) -> Path:
    """Write a run folder with settings, reports, a threshold and two sample grids."""
    experiment = {
        "architecture": "f-anogan", "variant": "izi_f", "preset": "tiny", "seed": 0,
        "model": {"latent_size": 16, "weights": {"gradient_penalty": 10.0, "features": 1.0}},
        "data": {"source": "digits", "image_size": 8, "channels": 1},
        "train": {"images": 20000, "batch_size": 32, "workers": 2},
        "score": {"name": "residual_features", "feature_weight": 1.0},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "experiment.json").write_text(json.dumps(experiment))
    (folder / "environment.json").write_text(json.dumps({"python": "3.11", "torch": "2.13.0"}))
    lines = [json.dumps(report) + "\n" for report in (metrics() if reports is None else reports)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    chosen = to_dict(select(metrics()))
    (folder / "selection.json").write_text(json.dumps(chosen))
    threshold = {"value": 0.31, "fpr": 0.05, "images": 42, "checkpoint": 20000}
    threshold["calibration"] = {"bound": {"expected": 0.047, "upper": 0.108}}
    (folder / "threshold.json").write_text(json.dumps(threshold))
    x = (load_digits().images[:8] / 8.0 - 1.0)[:, None]
    mean = np.broadcast_to(load_digits().images.mean(0) / 8.0 - 1.0, x.shape)
    for images in (10000, 20000):
        save_grid([x, mean, np.abs(x - mean).mean(1) / 2], folder / f"samples/{images:012d}.png",
                  ["input", "reconstruction", "difference"])  # fmt: skip
        write_latent(folder, images)
    return folder


def write_latent(folder: Path, images: int) -> None:
    """Write drawings from the plane of two principal components of the digits."""
    flat = load_digits().data / 8.0 - 1.0
    plane = PCA(2, random_state=0).fit(flat)

    def draw(codes):
        scaled = codes * np.sqrt(plane.explained_variance_)
        return plane.inverse_transform(scaled).reshape(-1, 1, 8, 8)

    codes = np.random.default_rng(images).standard_normal((8, 2))
    save_grid([draw(codes)], folder / f"latent/samples/{images:012d}.png", ["fixed codes"])
    levels = np.linspace(-1.6, 1.6, 9)
    lines = [draw(np.stack([levels, np.full(9, level)], axis=1)) for level in levels]
    save_grid(lines, folder / f"latent/walk/{images:012d}.png", ["plane", *[""] * 8], tile=48)


def write_sweep(folder: Path, trials: int = 24) -> Path:
    """Write sweep.json: PCA on digits as trials, the number of components searched."""
    train, images, labels, _ = digits()
    flat = images.reshape(len(images), -1)
    draw = np.random.default_rng(0)
    records = []
    for number in range(trials):
        parts, noise = int(draw.integers(1, 30)), float(draw.uniform(0, 2))
        pca = PCA(parts, random_state=0).fit(train.reshape(len(train), -1))
        shaken = flat + noise * draw.standard_normal(flat.shape)
        residual = np.abs(shaken - pca.inverse_transform(pca.transform(shaken))).mean(1)
        record = {"number": number, "architecture": ("f-anogan", "ganomaly")[number % 2]}
        record |= {"state": "complete", "value": float(roc_auc_score(labels, residual))}
        record |= {"images": 4000, "seconds": 3.2 + number / 10}
        record |= {"params": {"model": {"latent_size": parts}, "train": {"noise": noise}}}
        records.append(record)
    records[5] |= {"state": "failed", "value": None, "reason": "DivergedError: for the test"}
    for number in (7, 11, 16):
        stopped = {"rung": 1000, "value": 0.41, "threshold": 0.57, "compared": number}
        records[number] |= {"state": "pruned", "images": 1000, "stopped": stopped}
    records[11]["removed"] = True
    best = max((r for r in records if r["value"]), key=lambda r: r["value"])
    sweep = {"study": "digits", "objective": "val/aucp", "trials": records, "best": best["number"]}
    sweep["selection"] = {"winner": best["architecture"], "reason": "highest AUCp that is valid"}
    sweep["queue"] = {"done": trials, "running": [], "waiting": {"f-anogan": 0, "ganomaly": 3}}
    sweep["budget"] = {"bytes": 20 * 2**30, "held": 3 * 2**30, "removed": {"11": 2**20}}
    space = {"model.latent_size": "IntRange(1, 30)", "train.noise": "Uniform(0.0, 2.0)"}
    sweep["searches"] = {name: {"samples": 12, "space": space} for name in ("f-anogan", "ganomaly")}
    shares = {"train.noise": 0.8, "model.latent_size": 0.2}
    sweep["importance"] = {
        "f-anogan": {"method": "fANOVA", "trials": 11, "fewest": 10, "shares": shares},
        "ganomaly": {"method": "fANOVA", "trials": 9, "fewest": 10, "shares": {}},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(sweep))
    return folder
