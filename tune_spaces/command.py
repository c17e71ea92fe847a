"""`gan-ray sweep`: from words on the command line to a sweep."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from gan_ray.errors import CheckFailed, ConfigError
from gan_ray.ranges import Choice, Value
from tune_spaces.derive import METHODS, STUDIES, Narrowing


def sweep(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    """Run the verb; gives the exit code.

    Raises:
        ConfigError: a word that is not understood.
        CheckFailed: all trials failed.
    """
    _declare(parser)
    wants_help = {"-h", "--help"} & set(arguments)
    words = [word for word in arguments if word not in ("-h", "--help")]
    if wants_help and (not words or words[0].startswith("-")):
        parser.print_help()
        return 0
    options, rest = parser.parse_known_args(words)
    if wants_help:
        parser.print_help()
        rest = ["--help"]
    content = _score(options, rest) if options.study == "score" else _train(options, rest)
    if options.dry_run:
        return 0
    if options.json:
        print(json.dumps(content, indent=1))
    if content["best"] is None:
        reasons = sorted({trial["reason"] for trial in content["trials"]})
        raise CheckFailed(f"all {len(content['trials'])} trials failed: {' | '.join(reasons)}")
    if not options.json:
        print(f"sweep: {content['selection']['reason']}", file=sys.stderr, flush=True)
    return 0


def _train(options: argparse.Namespace, rest: Sequence[str]) -> dict[str, Any]:
    names = options.architectures.split(",")
    from gan_ray.settings import experiment_settings

    variant, preset = options.variant, options.preset
    base = [experiment_settings(name, variant, preset, rest, "sweep") for name in names]
    out = "" if options.dry_run else _out(options)
    from tune_spaces.budget import parse_bytes
    from tune_spaces.sweep import sweep as run

    with redirect_stdout(sys.stderr):  # where Ray tells of killed workers
        return run(
            base,
            study=options.study,
            samples=options.samples,
            out=out,
            fixes=dict(_fix(text) for text in options.fix),
            ranges=dict(_range(text) for text in options.range),
            method=options.search,
            warm_start=options.warm_start,
            seed=base[0].seed,
            concurrent=options.concurrent,
            objective=options.objective,
            reuse=options.reuse,
            storage=options.storage,
            finalists=options.finalists,
            finalist_seeds=options.finalist_seeds,
            keep_bytes=None if options.keep_bytes is None else parse_bytes(options.keep_bytes),
            progress=_say,
            say=_tell,
            dry_run=options.dry_run,
        )


def _score(options: argparse.Namespace, rest: Sequence[str]) -> dict[str, Any]:
    from gan_ray.settings import data_settings
    from tune_spaces.score import open_trained, score_study

    if options.dry_run or options.warm_start:
        raise ConfigError("the study score trains nothing: leave --dry-run and --warm-start out.")
    trained = open_trained(options.architectures)
    return score_study(
        trained,
        samples=options.samples,
        out=_out(options),
        data=data_settings(rest, "sweep", trained.experiment.data),
        fixes=dict(_fix(text) for text in options.fix),
        ranges=dict(_range(text) for text in options.range),
        method=options.search,
        seed=trained.experiment.seed,
        objective=options.objective,
        progress=_say,
        say=_tell,
    )


def _out(options: argparse.Namespace) -> str:
    if not options.out:
        raise ConfigError("sweep needs a place for its trials: add --out DIR or --out s3://…")
    return str(options.out)


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("architectures", metavar="ARCH[,ARCH…]", help="one or several systems")
    parser.add_argument("--variant", default="", help="member of the family")
    parser.add_argument("--preset", default="default", help="tiny, default or reference")
    parser.add_argument("--out", default="", help="directory or s3://bucket/prefix; resumes")
    parser.add_argument("--study", default="weights",
                        help=f"{' or '.join(STUDIES)}; or score, of a RUN or bundle in the place "
                             "of ARCH, which trains nothing")  # fmt: skip
    parser.add_argument("--search", default="tpe", help=f"{' or '.join(METHODS)}")
    parser.add_argument("--samples", type=_count, default=16,
                        help="trials of each architecture, or of all together in the study "
                        "architecture; a grid ends with its points")  # fmt: skip
    parser.add_argument("--fix", action="append", default=[], metavar="KEY=VALUE",
                        help="pin a setting, such as model.width=32; repeatable")  # fmt: skip
    parser.add_argument("--range", action="append", default=[], metavar="KEY=LOW:HIGH",
                        help="narrow a range, such as model.weights.identity=0.5:20, or list points"
                        " of it: model.encoding=binary,rope; repeatable")  # fmt: skip
    parser.add_argument("--warm-start", action="append", default=[], metavar="SWEEP_DIR",
                        help="learn from an earlier sweep's trials; repeatable")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true",
                        help="print dimensions, trials and estimated cost, and end")  # fmt: skip
    parser.add_argument("--concurrent", type=_count, default=None,
                        help="trials at a time; default: as many as find room")  # fmt: skip
    parser.add_argument("--reuse", action=argparse.BooleanOptionalAction, default=True,
                        help="train stages that trials have in common once")  # fmt: skip
    parser.add_argument("--storage", default="", metavar="URL",
                        help="database of the studies, such as postgresql+psycopg://user@host/name;"
                        " default: a journal in --out")  # fmt: skip
    parser.add_argument("--keep-bytes", default=None, metavar="SIZE",
                        help="room for all checkpoints, such as 20GiB; the worst go")  # fmt: skip
    parser.add_argument("--objective", default="auto", metavar="FIGURE[,COST]",
                        help="val/aucp, val/image_auroc or val/pseudo_auroc, the higher the better;"
                        " auto: the first that the data offer. With ,latency or ,parameters the"
                        " Pareto front is searched")  # fmt: skip
    parser.add_argument("--finalists", type=_count, default=0, metavar="K",
                        help="train the K best again with other seeds: medians decide")  # fmt: skip
    parser.add_argument("--finalist-seeds", type=_count, default=2, metavar="S",
                        help="how many other seeds")  # fmt: skip
    parser.epilog = "All settings of `gan-ray train`, such as --data.root and --train.images, too."


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, not '{text}'")
    return int(text)


def _fix(text: str) -> tuple[str, Value]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ConfigError(f"--fix '{text}': write KEY=VALUE, such as model.width=32.")
    return key, _value(value)


def _value(text: str) -> Value:
    try:
        read: Value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return read


def _range(text: str) -> tuple[str, Narrowing]:
    key, _, ends = text.partition("=")
    low, colon, high = ends.partition(":")
    try:
        if colon:
            return key, (float(low), float(high))
        return key, Choice(*map(_value, ends.split(",")))
    except ValueError:
        raise ConfigError(
            f"--range '{text}': write KEY=LOW:HIGH, such as model.weights.identity=0.5:20, or two "
            "or more points of it, such as model.encoding=binary,rope."
        ) from None


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _say(trial: dict[str, Any]) -> None:
    value = "-" if trial["value"] is None else f"{trial['value']:.4f}"
    settings = "  ".join(
        f"{key.removeprefix('model.')} {setting:.4g}"
        if isinstance(setting, float)
        else f"{key.removeprefix('model.')} {setting}"
        for key, setting in trial["params"].items()
    )
    seed = f" seed {trial['seed']}" if "seed" in trial else ""
    reused = f" ({trial['reused_images']:,} reused)" if trial.get("reused_images") else ""
    line = (
        f"trial {trial['number']}{seed}  {trial['architecture']}  {trial['state']}  {value}  "
        f"{trial['images']:,} images{reused}  {trial['seconds']:.0f} s  {settings}"
    )
    _tell(line + (f"  {trial['reason']}" if trial["reason"] else ""))
