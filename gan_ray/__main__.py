"""The `gan-ray` command: one verb, one function. Imports are lazy, so that help comes at once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from gan_ray import names
from gan_ray.errors import CheckFailed, ConfigError, GanRayError, unknown
from gan_ray.parser import Parser

INTERRUPTED = 130
Verb = Callable[[list[str]], int]


def _parser(
    verb: str, *, with_json: bool = True, with_registry: bool = False, with_names: bool = False
) -> Parser:
    parser = Parser(verb, VERBS[verb][1])
    if with_names:
        parser.add_show_names()
    if with_registry:
        about = "where name@version is looked up: directory or s3://bucket/prefix"
        parser.add_argument("--registry", default=None, metavar="URI", help=about)
    if with_json:
        parser.add_argument("--json", action="store_true", help="print one JSON object, no more")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _bundle(reference: str, registry: str | None) -> Path:
    """Give the folder of a bundle named by its folder, its address or `name@version`."""
    from gan_ray.artifacts.store import resolve

    return resolve(reference, registry)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def _elsewhere(module: str, verb: str) -> Verb:
    """Give the verb that `command(parser, arguments)` of a module runs."""

    def run(arguments: list[str]) -> int:
        code: int = import_module(module).command(_parser(verb), arguments)
        return code

    return run


def data(arguments: list[str]) -> int:
    """Check a data set."""
    parser = _parser("data", with_names=True)
    parser.add_argument("check", choices=["check"])
    parser.add_argument("root", nargs="?", default="", help="directory, zip or s3://bucket/prefix")
    parser.add_argument("--source", default="", help="layout of ROOT (default: folder)")
    parser.add_argument("--with-labels", action="store_true", help="open the test labels too")
    parser.add_argument("--thumbnails", default="", metavar="HTML", help="write a page of images")
    options, rest = parser.parse_known_args(arguments)
    from gan_ray.config import DataConfig
    from gan_ray.data.check import check
    from gan_ray.report.table import show_check
    from gan_ray.report.thumbnails import write_thumbnails
    from gan_ray.settings import data_settings

    rest += ["--data.source", options.source] if options.source else []
    settings = data_settings(rest, "data check", DataConfig(root=options.root))
    report = check(settings, with_labels=options.with_labels)
    if options.thumbnails:
        _say(str(write_thumbnails(settings, options.thumbnails, with_labels=options.with_labels)))
    _print_json(report) if options.json else show_check(report)
    if told := names.hint(json.dumps(report)):
        _say(told.strip())
    return 0 if report["ok"] else 4


def train(arguments: list[str]) -> int:
    """Train a system into a run folder; the same command resumes."""
    parser = _parser("train", with_names=True)
    parser.add_argument("architecture")
    parser.add_argument("--variant", default="", help="member of the family")
    parser.add_argument("--preset", default="default", help="tiny, default or reference")
    parser.add_argument("--out", default="", help="run folder: directory or s3://bucket/prefix")
    parser.add_argument("--fresh", action="store_true", help="start over in --out")
    parser.add_argument("--local", action="store_true", help="in this process, without Ray")
    parser.add_argument("--dry-run", action="store_true", help="print the experiment and stop")
    if arguments[:1] in (["-h"], ["--help"]):
        parser.print_help()
        return 0
    wants_help = {"-h", "--help"} & set(arguments)
    kept = [argument for argument in arguments if argument not in ("-h", "--help")]
    options, rest = parser.parse_known_args(kept)
    if wants_help:
        parser.print_help()
        rest = ["--help"]
    from gan_ray.config import fingerprint, to_dict
    from gan_ray.settings import experiment_settings
    from gan_ray.training.run import identity

    experiment = experiment_settings(
        options.architecture, options.variant, options.preset, rest, "train"
    )

    name = fingerprint(identity(experiment))
    if options.dry_run:
        from gan_ray.training.preflight import preflight

        for warning in preflight(experiment):
            _say(f"warning: {warning}")
        _print_json({**to_dict(experiment), "fingerprint": name})
        return 0
    if not options.out:
        raise ConfigError("train needs a place for its run folder: add --out DIR or --out s3://…")
    from gan_ray.progress import ProgressLine
    from gan_ray.training.launch import train as launch

    _say(f"{experiment.architecture}, experiment {name}, into {options.out}")
    # Ray tells of killed workers on stdout, where only results belong.
    with ProgressLine(experiment.train.images) as line, redirect_stdout(sys.stderr):
        run = launch(
            experiment,
            options.out,
            local=options.local,
            fresh=options.fresh,
            progress=line,
            say=_say,
        )
    if options.json:
        rows = run.metrics()
        best = run.get_json("selection.json")
        _print_json({"run": run.uri, "last": rows[-1] if rows else None, "selection": best})
    else:
        _say(f"trained: {run.uri}")
    return 0


def sweep(arguments: list[str]) -> int:
    """Search settings with Ray Tune and Optuna; the same command resumes."""
    from tune_spaces.command import sweep as command

    code: int = command(_parser("sweep", with_names=True), arguments)
    return code


def select(arguments: list[str]) -> int:
    """Choose the best trial of a sweep without test labels and publish its bundle."""
    parser = _parser("select")
    parser.add_argument("sweep", help="the sweep's folder")
    about = "aucp, pseudo, or validation (your labels); default: what the sweep searched for"
    parser.add_argument("--by", default="", help=about)
    parser.add_argument("--publish", default="", help="registry: directory or s3://bucket/prefix")
    options = parser.parse_args(arguments)
    from tune_spaces.select import select as choose

    selection = choose(options.sweep, by=options.by, publish=options.publish)
    _print_json(selection) if options.json else _say(selection["reason"])
    return 0


def calibrate(arguments: list[str]) -> int:
    """Fit the threshold on held-out normals for a false-positive rate."""
    parser = _parser("calibrate")
    parser.add_argument("run")
    parser.add_argument("--fpr", type=float, default=0.05, help="share of normals flagged, (0, 1)")
    about = "column of the manifest (scanner, site) whose values get thresholds of their own"
    parser.add_argument("--by", default="", metavar="COLUMN", help=about)
    options = parser.parse_args(arguments)
    from gan_ray.artifacts.export import calibrate_run
    from gan_ray.report.table import show_calibration

    summary = calibrate_run(options.run, fpr=options.fpr, by=options.by).summary()
    _print_json(summary) if options.json else show_calibration(summary)
    return 0


def evaluate(arguments: list[str]) -> int:
    """Open the test split: metrics with intervals, paired tests, baselines."""
    parser = _parser("evaluate", with_registry=True, with_names=True)
    parser.add_argument("bundles", nargs="+", help="folder, s3://… or name@version")
    parser.add_argument("--out", required=True, help="folder for evaluation.json and cases.npz")
    parser.add_argument("--baselines", action="store_true", help="trivial detectors beside it")
    about = "other scores of the same pass: name[,smooth=2][,top=0.01] …"
    parser.add_argument("--heads", nargs="+", default=[], metavar="HEAD", help=about)
    options, rest = parser.parse_known_args(arguments)
    from gan_ray.artifacts.bundle import load_bundle
    from gan_ray.report.table import show_evaluation
    from gan_ray.scoring.evaluate import evaluate as run
    from gan_ray.settings import data_settings

    bundles = [_bundle(reference, options.registry) for reference in options.bundles]
    settings = None
    if rest:  # `--data.…` changes what the first bundle was trained on
        known = load_bundle(bundles[0]).experiment.data
        settings = data_settings(rest, "evaluate", known)
    where, baselines = Path(options.out), options.baselines
    result = run(bundles, settings, where, heads=options.heads, baselines=baselines)
    _print_json(result) if options.json else show_evaluation(result)
    return 0


def report(arguments: list[str]) -> int:
    """Write one self-contained page about runs, evaluations and sweeps."""
    parser = _parser("report")
    parser.add_argument("paths", nargs="+")
    parser.add_argument("-o", "--out", default="report.html")
    options = parser.parse_args(arguments)
    from gan_ray.report.html import write_page
    from gan_ray.report.sources import read
    from gan_ray.report.summary import summarise

    sources = [source for path in options.paths for source in read(path)]
    page = str(write_page(sources, options.out))
    if options.json:
        _print_json({"report": page, "paths": options.paths, **summarise(sources)})
    else:
        _say(page)
    return 0


def export(arguments: list[str]) -> int:
    """Make a bundle of a run, through the parity gate."""
    parser = _parser("export")
    parser.add_argument("run")
    parser.add_argument("-o", "--out", required=True, help="the bundle's folder")
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best")
    about = "safetensors, and after commas the graphs to put beside it: pt2, onnx"
    parser.add_argument("--format", default="safetensors", help=about)
    about = "of the stored weights; arithmetic stays float32"
    precisions = ["float32", "bfloat16", "int8"]
    parser.add_argument("--precision", choices=precisions, default="float32", help=about)
    parser.add_argument("--name", default=None)
    parser.add_argument("--version", default="1")
    parser.add_argument("--head", default="", help="another score: name[,smooth=2][,top=0.01]")
    parser.add_argument("--fpr", type=float, default=None, help="default: as calibrated, or 0.05")
    parser.add_argument("--by", default=None, metavar="COLUMN", help="strata; as calibrated, or ''")
    options = parser.parse_args(arguments)
    from gan_ray.artifacts.export import export as run

    bundle = run(
        options.run,
        options.out,
        checkpoint=options.checkpoint,
        name=options.name,
        version=options.version,
        fpr=options.fpr,
        by=options.by,
        formats=options.format,
        precision=options.precision,
        head=options.head,
    )
    _print_json({"bundle": str(bundle)}) if options.json else _say(f"bundle: {bundle}")
    return 0


def serve(arguments: list[str]) -> int:
    """Serve bundles over HTTP."""
    from serve.command import serve as command

    parser = _parser("serve", with_json=False, with_registry=True, with_names=True)
    code: int = command(parser, arguments)
    return code


def score(arguments: list[str]) -> int:
    """Score a folder or prefix, exactly once per object; the same command resumes."""
    parser = _parser("score", with_registry=True, with_names=True)
    parser.add_argument("bundle", help="folder, s3://… or name@version")
    parser.add_argument("source")
    parser.add_argument("sink")
    about = "processes on the cluster; 0 scores in this one, without Ray"
    parser.add_argument("--workers", type=int, default=2, help=about)
    parser.add_argument("--glob", default="", help="only these keys, e.g. '**/*.dcm'")
    parser.add_argument("--maps", action="store_true")
    about = "share of the objects that may fail before the job does"
    parser.add_argument("--max-errors", type=float, default=1.0, metavar="SHARE", help=about)
    parser.add_argument("--stratum", default="", help="scanner, site, ... that all images are of")
    options = parser.parse_args(arguments)
    from gan_ray.progress import ShardLine
    from gan_ray.scoring.batch import score_prefix

    bundle = _bundle(options.bundle, options.registry)
    with ShardLine() as line, redirect_stdout(sys.stderr):
        result = score_prefix(bundle, options.source, options.sink, workers=options.workers,
                              glob=options.glob, maps=options.maps, stratum=options.stratum,
                              max_errors=options.max_errors, progress=line)  # fmt: skip
    _print_json(result) if options.json else _say(json.dumps(result))
    return 0


def verify(arguments: list[str]) -> int:
    """Check a bundle: digests, schema, golden images."""
    parser = _parser("verify", with_registry=True)
    parser.add_argument("bundle", help="folder, s3://… or name@version")
    about = "replay model.pt2 too: loading it can run code of whoever made it"
    parser.add_argument("--trust-pt2", action="store_true", help=about)
    options = parser.parse_args(arguments)
    from gan_ray.artifacts.parity import verify as run

    result = run(_bundle(options.bundle, options.registry), trusted=options.trust_pt2)
    _print_json(result) if options.json else _say(json.dumps(result))
    return 0


def quickstart(arguments: list[str]) -> int:
    """Run the whole product once on embedded real data."""
    parser = _parser("quickstart")
    parser.add_argument("--store", default="runs/quickstart/store", help="directory or s3://…")
    parser.add_argument("--out", default="runs/quickstart")
    options = parser.parse_args(arguments)
    from gan_ray.quickstart import quickstart as run

    summary, evaluation = run(store=options.store, out=options.out, say=_say)
    if options.json:
        _print_json(summary)
    else:
        from gan_ray.report.table import show_evaluation

        show_evaluation(evaluation)
    return 0


VERBS: Mapping[str, tuple[Verb, str]] = {
    "quickstart": (quickstart, "run the whole product once, on embedded real data"),
    "architectures": (_elsewhere("gan_ray.catalogue", "architectures"), "list the systems"),
    "data": (data, "check a data set: gan-ray data check ROOT"),
    "train": (train, "train a system; the same --out resumes"),
    "sweep": (sweep, "search settings with Ray Tune and Optuna; the same --out resumes"),
    "select": (select, "choose the best trial of a sweep without test labels"),
    "heads": (_elsewhere("gan_ray.heads", "heads"), "rank a bundle's scores without labels"),
    "calibrate": (calibrate, "fit the threshold on held-out normals"),
    "evaluate": (evaluate, "open the test split: metrics with intervals"),
    "report": (report, "write one self-contained page"),
    "export": (export, "make a bundle of a run, through the parity gate"),
    "serve": (serve, "serve bundles over HTTP"),
    "score": (score, "score a folder or prefix, exactly once per object"),
    "verify": (verify, "check a bundle"),
    "names": (_elsewhere("gan_ray.linkage", "names"), "list files with their pseudonyms"),
    "doctor": (_elsewhere("gan_ray.doctor", "doctor"), "check a cluster, and say what to mend"),
    "submit": (_elsewhere("gan_ray.submit", "submit"), "run a command as a Ray job: -- COMMAND"),
}


def _usage() -> str:
    verbs = "\n".join(f"  {name:14} {about}" for name, (_, about) in VERBS.items())
    return f"usage: gan-ray VERB …\n\n{verbs}\n\n`gan-ray VERB --help` tells more."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; give the exit code: 0 ok, 1 check, 2 usage, 3 parity, 4 data, 5 cluster."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0 if words else 2
    try:
        if words[0] not in VERBS:
            raise ConfigError(unknown("verb", words[0], VERBS))
        with names.as_before():
            return VERBS[words[0]][0](words[1:])
    except GanRayError as error:
        kind = "" if isinstance(error, CheckFailed) else f"{type(error).__name__}: "
        _say(f"gan-ray: {kind}{error}{names.hint(str(error))}")
        return error.exit_code
    except KeyboardInterrupt:
        _say("gan-ray: interrupted; what is done is kept, the same command goes on.")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
