"""A small HTTP proxy before a real server, which answers some requests badly on demand."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
CONFLICT = b"<Error><Code>ConditionalRequestConflict</Code><Message>conflict</Message></Error>"


_TRANSPORT = ("transfer-encoding", "content-length", "expect")


class ChaosProxy(ThreadingHTTPServer):
    """Takes one fault of `faults` per request: "503", "409", "reset", "truncate", "lost" or "".

    "truncate" breaks off in the middle of the answer's body; "lost" carries the request out and
    then hides the answer. Once they are used up, `rate` is the share of requests that fail with
    "503" or "reset", drawn from a seed; each request waits `delay` seconds.
    """

    daemon_threads = True

    def __init__(
        self, upstream: str, host: str = "127.0.0.1", rate: float = 0.0, delay: float = 0.0
    ) -> None:
        super().__init__((host, 0), _Handler)
        self.rate, self.delay, self.random = rate, delay, random.Random(0)
        self.upstream = urlsplit(upstream).netloc
        self.faults: deque[str] = deque()
        self.requests: list[str] = []
        self.busy, self.busiest, self.lock = 0, 0, threading.Lock()

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of the game."""

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host}:{port}"

    def next_fault(self) -> str:
        if self.faults:
            return self.faults.popleft()
        return self.random.choice(["503", "reset"]) if self.random.random() < self.rate else ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChaosProxy

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        body = self._body()
        proxy = self.server
        with proxy.lock:
            fault = proxy.next_fault()
            proxy.requests.append(f"{self.command} {self.path} {fault}".strip())
        time.sleep(proxy.delay)
        if fault == "503":
            return self._answer(503, SLOW_DOWN)
        if fault == "409":
            return self._answer(409, CONFLICT)
        if fault == "reset":
            return self._hang_up()
        upstream = http.client.HTTPConnection(proxy.upstream, timeout=30)
        told = {k: v for k, v in self.headers.items() if k.lower() not in _TRANSPORT}
        upstream.request(self.command, self.path, body, told)
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        if fault == "lost":
            return self._hang_up()
        kept = content[: len(content) // 2] if fault == "truncate" else content
        length = answer.headers.get("Content-Length", str(len(content)))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(kept)
        return self._hang_up() if fault == "truncate" else None

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(parts)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True


@contextmanager
def chaos(
    upstream: str, host: str = "127.0.0.1", rate: float = 0.0, delay: float = 0.0
) -> Iterator[ChaosProxy]:
    """Run the proxy on a free port of `host`."""
    proxy = ChaosProxy(upstream, host, rate, delay)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
