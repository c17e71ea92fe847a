"""`gan-ray serve`: from words on the command line to an endpoint."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def serve(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    """Run the verb until it is interrupted or told to end (SIGTERM); gives the exit code.

    Requests that are in by then are answered first.

    Raises what `launch` raises.
    """
    _declare(parser)
    options = parser.parse_args(arguments)
    import signal
    import threading

    from serve.launch import launch

    try:
        with launch(
            options.bundles,
            host=options.host,
            port=options.port,
            replicas=options.replicas,
            max_replicas=options.max_replicas,
            max_batch=options.max_batch,
            limits={"deadline_s": options.deadline},
            allow=tuple(options.allow),
            allow_sink=tuple(options.allow_sink),
            jobs=options.jobs,
            job_workers=options.job_workers,
            registry=options.registry,
            watch_s=options.watch,
        ) as endpoint:
            _say(f"serving {', '.join(options.bundles)} at {endpoint.url} (Ctrl-C ends it)")
            end = threading.Event()
            signal.signal(signal.SIGTERM, lambda *_: end.set())  # over Ray's own, which exits
            end.wait()
            _say("gan-ray: told to end; answering who is in.")
    except KeyboardInterrupt:
        _say("gan-ray: stopped serving.")
    return 0


def _declare(parser: argparse.ArgumentParser) -> None:
    about = "folder, s3://…, name@version, or name@newest: what is published takes over"
    parser.add_argument("bundles", nargs="+", help=about)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--replicas", type=int, default=1, help="scoring processes per bundle")
    about = "as many of them while much is asked (default: never more than --replicas)"
    parser.add_argument("--max-replicas", type=int, default=0, help=about)
    about = "images that go through the networks together (default: 32, fewer for slow systems)"
    parser.add_argument("--max-batch", type=int, default=None, help=about)
    about = "seconds until a request is given up (default: 30, more for slow systems)"
    parser.add_argument("--deadline", type=float, default=None, help=about)
    parser.add_argument("--allow", action="append", default=[], help="URI prefix to score from")
    about = "URI prefix that jobs may write to; there are no jobs without"
    parser.add_argument("--allow-sink", action="append", default=[], help=about)
    about = "where jobs are written down (default: `jobs` in the first --allow-sink)"
    parser.add_argument("--jobs", default="", metavar="URI", help=about)
    about = "seconds between two looks for versions of name@newest (default: 5)"
    parser.add_argument("--watch", type=float, default=5.0, metavar="SECONDS", help=about)
    parser.add_argument("--job-workers", type=int, default=1, help="processes of a job")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
