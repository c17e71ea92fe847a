"""Mutated requests against a real endpoint: none may crash it, stall it or make it fail.

`python -m benchmarks.fuzzing BUNDLE [--requests 100000] [--clients 8] [--seed 0] [--only NUMBER]`.

Every operation of the endpoint's own OpenAPI document is a seed, and so is each body it takes.
Request NUMBER follows from (seed, NUMBER) alone, so that one that failed can be sent again. Written
to sockets byte by byte, because HTTP libraries refuse to send much of it.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import random
import socket
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from serve.launch import launch

SLOW_S = 2.0
EXPECTED = {503: "NOT_READY", 504: "DEADLINE"}
"""5xx answers that say what is so; any other is a fault."""
VERBS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "BREW")
WORDS = (
    "", " ", "..", "%2e%2e%2f", "../../etc/passwd", "%00", "\x00", "a" * 5_000, "%", "%zz", "0",
    "-1", "1e999", "NaN", "null", "true", "\u202e", "\ud83d\ude00", "'", '"', "<script>", "{}",
    "[]", "s3://", "file:///etc/passwd", "http://127.0.0.1/", "s3://bucket/../key",
    "${jndi:ldap://x}", "\r\nX-Injected: 1",
)  # fmt: skip
NODES: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**63, 1e308, -0.0, "", [], {}, [[]], [None] * 300, {"": {}}, *WORDS,
)  # fmt: skip
TYPES = (
    "application/json", "image/png", "image/jpeg", "image/tiff", "application/dicom", "text/html",
    "", "application/octet-stream", "multipart/form-data", "multipart/form-data; boundary=b",
    "application/json; charset=utf-16", "*/*", "a" * 3_000,
)  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """A request, as it goes over the wire."""

    verb: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def wire(self) -> bytes:
        """Give its bytes."""
        headers = {"Host": "127.0.0.1", "Content-Length": str(len(self.body)), **self.headers}
        head = [f"{self.verb} {self.target} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join(head).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + self.body


@dataclass(frozen=True)
class Seen:
    """What came of a request."""

    number: int
    status: int
    """0 where the connection ended without an answer."""
    seconds: float
    code: str
    """The answer's own word for a refusal."""


def seeds(url: str) -> list[Sent]:
    """Give a sound request of each operation and each kind of body that the endpoint takes."""
    with urllib.request.urlopen(f"{url}/openapi.json") as answer:
        schema = json.load(answer)
    with urllib.request.urlopen(f"{url}/v2") as answer:
        model = json.load(answer)["models"][0]
    with urllib.request.urlopen(f"{url}/v2/models/{model}") as answer:
        about = json.load(answer)
    _, channels, size, _ = about["inputs"][0]["shape"]
    names = {"{model}": model, "{version}": about["versions"][0]}
    bodies = dict(_bodies(model, channels, size))
    found = []
    for path, operations in schema["paths"].items():
        for verb in operations:
            target = path
            for name, value in names.items():
                target = target.replace(name, value)
            kinds = [kind for kind in bodies if target.endswith(kind)] if verb == "post" else []
            for kind in kinds:
                found += [
                    Sent("POST", target, {"Content-Type": type_}, body)
                    for type_, body in bodies[kind]
                ]
            if not kinds:
                found.append(Sent(verb.upper(), target))
    return found


def _bodies(model: str, channels: int, size: int) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24), np.uint8)
    files = {}
    for kind in ("png", "jpeg", "tiff", "bmp"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        files[f"image/{kind}"] = file.getvalue()
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    form = part + files["image/png"] + b"\r\n--b--\r\n"
    listed = json.dumps({"uris": ["s3://bucket/a.png", "/tmp/a.png"]}).encode()
    yield (
        "/score",
        [
            *files.items(),
            ("multipart/form-data; boundary=b", form),
            ("application/json", listed),
            ("application/octet-stream", files["image/png"]),
        ],
    )
    job = {
        "model": model,
        "source": {"uri": "s3://bucket/in/", "glob": "**/*.png"},
        "sink": {"uri": "s3://bucket/out/"},
        "options": {"maps": False, "max_errors": 0.5},
    }
    yield "/jobs", [("application/json", json.dumps(job).encode())]
    tensor = {"name": "image", "shape": [1, channels, size, size], "datatype": "UINT8"}
    values = [0] * (channels * size * size)
    asked = {"inputs": [{**tensor, "data": values}], "outputs": [{"name": "score"}]}
    yield "/infer", [("application/json", json.dumps(asked).encode())]


def mutated(sent: Sent, draw: random.Random) -> Sent:
    """Change a request in one to four places."""
    for _ in range(draw.randint(1, 4)):
        sent = draw.choice((_verb, _target, _query, _headers, _bytes, _bytes, _json, _json))(
            sent, draw
        )
    return sent


def _verb(sent: Sent, draw: random.Random) -> Sent:
    return replace(sent, verb=draw.choice(VERBS))


def _target(sent: Sent, draw: random.Random) -> Sent:
    parts = sent.target.split("/")
    at = draw.randrange(1, len(parts))
    parts[at] = draw.choice((_word(draw), parts[at] + _word(draw), parts[at].upper()))
    return replace(sent, target="/".join(parts).replace(" ", "%20").replace("\r\n", "%0d%0a"))


def _query(sent: Sent, draw: random.Random) -> Sent:
    name = draw.choice(("map", "reconstruction", "stratum", "x", ""))
    value = draw.choice(("png8", "f16", _word(draw))).replace(" ", "%20").replace("\r\n", "%0d%0a")
    mark = "&" if "?" in sent.target else "?"
    return replace(sent, target=f"{sent.target}{mark}{name}={value}")


def _headers(sent: Sent, draw: random.Random) -> Sent:
    word = _word(draw).replace("\r\n", " ")
    changed = draw.choice(
        (
            {"Content-Type": draw.choice(TYPES)},
            {"Content-Encoding": draw.choice(("gzip", "identity", "br", word))},
            {
                "Content-Length": draw.choice(
                    ("0", "-1", "99999999999", "x", str(len(sent.body) // 2))
                )
            },
            {"Transfer-Encoding": draw.choice(("chunked", word))},
            {"X-Request-ID": word},
            {"Authorization": f"Bearer {word}"},
            {"Host": draw.choice(("localhost", "evil.example", word))},
            {"Expect": "100-continue"},
            {"Range": "bytes=0-1"},
        )
    )
    return replace(sent, headers={**sent.headers, **changed})


def _bytes(sent: Sent, draw: random.Random) -> Sent:
    body = bytearray(sent.body)
    for _ in range(draw.randint(1, 8)):
        at = draw.randrange(len(body) + 1)
        how = draw.randrange(4)
        if how == 0 and at < len(body):
            body[at] ^= 1 << draw.randrange(8)
        elif how == 1:
            body[at:at] = draw.randbytes(draw.choice((1, 4, 64)))
        elif how == 2:
            del body[at : at + draw.choice((1, 16, 10_000))]
        else:
            body[at : at + 4] = draw.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
    return replace(sent, body=bytes(body))


def _json(sent: Sent, draw: random.Random) -> Sent:
    try:
        root: Any = json.loads(sent.body)
    except (ValueError, RecursionError):
        return _bytes(sent, draw)
    if draw.random() < 0.05:
        deep = draw.choice((20, 500, 20_000))
        return replace(sent, body=b'{"uris":' + b"[" * deep + b"]" * deep + b"}")
    box = {"": root}
    node, key = box, ""
    while isinstance(node[key], (dict, list)) and node[key] and draw.random() < 0.8:
        node = node[key]
        key = draw.choice(list(node) if isinstance(node, dict) else range(len(node)))  # type: ignore[arg-type]
    how = draw.randrange(3)
    if how == 0 and node is not box:
        del node[key]
    elif how == 1 and isinstance(node, dict) and node is not box:
        node[_word(draw)] = draw.choice(NODES)
    else:
        node[key] = draw.choice(NODES)
    return replace(sent, body=json.dumps(box[""]).encode("utf-8", "surrogatepass"))


def _word(draw: random.Random) -> str:
    return draw.choice(WORDS)


class Client:
    """One connection, opened again whenever the server ends it."""

    def __init__(self, url: str, patience: float) -> None:
        place = urlsplit(url)
        self._place, self._patience = (str(place.hostname), int(place.port or 80)), patience
        self._socket: socket.socket | None = None

    def send(self, number: int, sent: Sent) -> Seen:
        """Send and wait for the answer; after half a body the sending side is closed."""
        began = time.perf_counter()
        status, code = 0, ""
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self._place, self._patience)
            self._socket.sendall(sent.wire())
            if _is_cut_short(sent):
                self._socket.shutdown(socket.SHUT_WR)
            with closing(http.client.HTTPResponse(self._socket, method=sent.verb)) as answer:
                answer.begin()
                content = answer.read()
            status, code = answer.status, _code(content)
            if answer.will_close or _is_cut_short(sent) or "Transfer-Encoding" in sent.headers:
                self.close()
        except (OSError, http.client.HTTPException):
            self.close()
        return Seen(number, status, time.perf_counter() - began, code)

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None


def _is_cut_short(sent: Sent) -> bool:
    return sent.headers.get("Content-Length", str(len(sent.body))) != str(len(sent.body))


def _code(content: bytes) -> str:
    try:
        return str(json.loads(content)["code"])
    except (ValueError, KeyError, TypeError):
        return ""


def request(seed: int, number: int, sound: Sequence[Sent]) -> Sent:
    """Give request `number`; every hundredth is sound."""
    draw = random.Random(f"{seed}/{number}")
    chosen = draw.choice(list(sound))
    return chosen if number % 100 == 0 else mutated(chosen, draw)


def is_fault(seen: Seen, sent: Sent) -> bool:
    """Tell whether the server should not have done that."""
    if seen.seconds > SLOW_S or (seen.status >= 500 and EXPECTED.get(seen.status) != seen.code):
        return True
    # A head that is no HTTP may end the connection; a whole request gets an answer.
    broken = {"Content-Length", "Transfer-Encoding", "Host"} & sent.headers.keys()
    plain = all(32 < ord(sign) < 127 for sign in sent.target) and sent.verb != "BREW"
    return seen.status == 0 and plain and not broken


def run(url: str, requests: int, clients: int, seed: int) -> dict[str, Any]:
    """Send them all; print each fault as it is met."""
    sound = seeds(url)

    def some(client: int) -> tuple[Counter[str], list[float], list[Seen]]:
        line, counts, times, faults = Client(url, 30.0), Counter[str](), [], []
        for number in range(client, requests, clients):
            sent = request(seed, number, sound)
            seen = line.send(number, sent)
            counts[f"{seen.status} {seen.code}".strip()] += 1
            times.append(seen.seconds)
            if is_fault(seen, sent):
                faults.append(seen)
                print(f"{seen}: {sent.wire()[:400]!r}", flush=True)
        line.close()
        return counts, times, faults

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        parts = list(pool.map(some, range(clients)))
    seconds = time.perf_counter() - began
    counts = sum((part[0] for part in parts), Counter[str]())
    times = np.concatenate([part[1] for part in parts])
    return {
        "requests": requests,
        "seconds": round(seconds, 1),
        "answers": dict(counts.most_common()),
        "ms": {f"p{q}": round(1000 * float(np.percentile(times, q)), 1) for q in (50, 99, 100)},
        "faults": [seen.number for part in parts for seen in part[2]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="send this one alone, and show it")
    options = parser.parse_args()
    with launch([options.bundle], port=0) as endpoint:
        if options.only is None:
            found = run(endpoint.url, options.requests, options.clients, options.seed)
            print(json.dumps({"fuzzing": found}))
            raise SystemExit(1 if found["faults"] else 0)
        sent = request(options.seed, options.only, seeds(endpoint.url))
        print(sent.wire(), Client(endpoint.url, 30.0).send(options.only, sent), sep="\n")


if __name__ == "__main__":
    main()
