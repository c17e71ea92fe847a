"""The report: runs, evaluations and sweeps on one page that needs neither network nor script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from gan_ray.config import flatten
from gan_ray.report import charts, operating, page, pictures, summary, trials, words
from gan_ray.report.sources import Evaluation, Run, Search, Source, read


def write_report(
    paths: Sequence[Path | str], out: Path | str, *, title: str = "Anomaly detection report"
) -> Path:
    """Write one self-contained HTML page about runs, evaluations and sweeps; gives its path.

    Each of `paths` is as `sources.read` takes it.

    Raises:
        ConfigError: a path that holds nothing to report.
        ArtifactError: a file that is damaged or of another schema.
        StorageError: a place that cannot be read or written.
    """
    return write_page([source for path in paths for source in read(path)], out, title=title)


def write_page(
    sources: Sequence[Source], out: Path | str, *, title: str = "Anomaly detection report"
) -> Path:
    """Write the page about `sources`; gives its path. The same sources give the same bytes.

    Raises:
        StorageError: `out` cannot be written.
    """
    return page.write(text(sources, title=title), out, what="report")


def text(sources: Sequence[Source], *, title: str, again: bool = False) -> str:
    """Give the page about `sources`; a browser is to load it `again` from time to time.

    Evaluations come first, then trainings, then searches, each in the order given.
    """
    evaluations = [_evaluation(source) for source in sources if isinstance(source, Evaluation)]
    shown = {key for each in evaluations for columns in each["tables"] for key in columns}
    return page.fill(
        "page.html",
        title=title,
        again=again,
        metrics=[meaning for key, meaning in words.METRICS.items() if key in shown],
        evaluations=evaluations,
        runs=[_run(source) for source in sources if isinstance(source, Run)],
        searches=[_search(source) for source in sources if isinstance(source, Search)],
    )


def _evaluation(source: Evaluation) -> dict[str, Any]:
    models, baselines = source.content["models"], source.content.get("baselines", [])
    everything = [*models, *baselines]
    return {
        "name": source.name,
        "data": source.content["data"],
        "models": [_model(model, index, source) for index, model in enumerate(models)],
        "everything": everything,
        "baselines": baselines,
        "tables": _tables(words.metric_keys(everything)),
        "subjects": [model for model in everything if model.get("by_group")],
        "sublabels": {
            name: figures["images"]
            for m in everything
            for name, figures in m["by_sublabel"].items()
        },
        "paired": _by_metric(source.content.get("paired", [])),
        "forest": Markup(charts.forest(models, baselines)),
        "roc": Markup(operating.roc(models, baselines)),
        "precision_recall": Markup(operating.precision_recall(models, baselines)),
        "banded": len(models) <= operating.BANDED and any("bands" in model for model in models),
    }


def _tables(keys: Sequence[str]) -> list[list[str]]:
    """Give the columns of the table of metrics, and those of the one that is folded."""
    parts = ([k for k in keys if k not in words.FURTHER], [k for k in keys if k in words.FURTHER])
    return [part for part in parts if part]


def _by_metric(paired: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    metrics = dict.fromkeys(pair["metric"] for pair in paired)
    return {metric: [pair for pair in paired if pair["metric"] == metric] for metric in metrics}


def _model(model: Mapping[str, Any], index: int, source: Evaluation) -> dict[str, Any]:
    counts, threshold, scale = words.counts(model), model.get("threshold"), model.get("map_range")
    p_values = dict(
        zip(model["scores"]["ids"], model["scores"].get("p_values") or [], strict=False)
    )
    gallery = []
    for outcome, (heading, meaning) in words.OUTCOMES.items():
        cases = [
            {
                **case,
                "p_value": p_values.get(case["id"]),
                "pictures": list(_pictures(model, index, case["row"], source)),
            }
            for case in model["cases"]
            if case["outcome"] == outcome
        ]
        count = counts[outcome] if counts else len(cases)
        gallery.append({"outcome": outcome, "heading": heading, "meaning": meaning,
                        "cases": cases, "count": count})  # fmt: skip
    return {
        "model": model,
        "counts": counts,
        "promise": words.threshold_promise(
            threshold["value"], fpr=threshold["fpr"], images=threshold["images"]
        )
        if threshold
        else None,
        "outcome": words.threshold_outcome(model, counts) if counts else None,
        "strata": [words.stratum_rate(row) for row in (threshold or {}).get("strata", ())],
        "heads": _heads(model),
        "scores": Markup(charts.scores_by_kind(model)),
        "calibration": Markup(charts.calibration(model) or ""),
        "gallery": gallery,
        "scale": pictures.scale(*scale) if scale and f"maps_{index}" in source.cases else None,
    }


def _heads(model: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give the rows of the table of heads, the own score first, and its columns."""
    heads = model.get("heads")
    if not heads:
        return None
    pairs = {pair["b"]: pair for pair in heads["paired"] if pair["metric"] == "image_auroc"}
    figures = heads["figures"].items()
    rows = [{"name": heads["own"], "metrics": model["metrics"], "pair": None}]
    rows += [{"name": n, "metrics": each["metrics"], "pair": pairs[n]} for n, each in figures]
    columns = [k for k in words.metric_keys(rows[1:]) if k not in words.FURTHER]
    return {"rows": rows, "columns": columns, "warning": words.HEADS}


def _pictures(
    model: Mapping[str, Any], index: int, row: int, source: Evaluation
) -> Iterator[tuple[str, str, int]]:
    """Give what cases.npz holds of a case: caption, `data:` address and size in pixels."""
    kinds = ("images", "reconstructions", "maps")
    image, reconstruction, heat = (source.cases.get(f"{kind}_{index}") for kind in kinds)
    if image is None:
        return
    size = image.shape[1]
    yield "image", pictures.png(image[row]), size
    if reconstruction is not None:
        yield "as if normal", pictures.png(reconstruction[row]), size
    if heat is not None and model.get("map_range"):
        yield (
            "difference",
            pictures.png(pictures.overlay(image[row], heat[row], *model["map_range"])),
            size,
        )


def _run(source: Run) -> dict[str, Any]:
    told = summary.run(source)
    return {
        **told,
        "settings": list(flatten(source.experiment).items()),
        "environment": list(flatten(source.environment).items()),
        "promise": words.threshold_promise(**told["threshold"]) if told["threshold"] else None,
        "curves": [Markup(chart) for chart in charts.curves(source.metrics)],
        "samples": _embedded(source.samples),
        "drawn": _embedded(source.drawn),
        "walk": _embedded(source.walk),
    }


def _embedded(grids: Sequence[tuple[str, bytes]]) -> list[tuple[str, str]]:
    """Give when each picture was made, in words, and its `data:` address."""
    return [(_stem(stem), pictures.embed(file)) for stem, file in grids]


def _search(source: Search) -> dict[str, Any]:
    told = summary.search(source)
    ranked = [
        {**trial, "settings": list(flatten(trial["params"]).items())} for trial in told["ranked"]
    ]
    return {
        **told,
        "ranked": ranked,
        "history": Markup(trials.history(source.content)) if ranked else None,
        "coordinates": [
            (name, Markup(chart)) for name, chart in trials.coordinates(source.content)
        ],
        "shares": [
            (
                name,
                Markup(trials.importance(name, found["shares"])) if found["shares"] else None,
                found,
            )
            for name, found in told["importance"].items()
        ],
        "front": Markup(trials.front(source.content)) if told["pareto"] else None,
    }


def _stem(stem: str) -> str:
    return f"{words.number(int(stem))} images" if stem.isdigit() else stem.replace("_", " ")
