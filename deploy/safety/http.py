"""Four pages over HTTP: GET /healthz and /metrics, POST /estop and /arm.

On loopback everybody on this machine may ask; reachable from elsewhere, everything wants `Authorization: Bearer TOKEN`,
a token of its own (`--http-token-file`): it travels unencrypted, so whoever can listen there may use it.
A browser's page from another origin is refused, and so is a name that only points at this machine: a web site must not
stop a robot, still less arm it. Whoever is let in is stopped for at the first line: a stop waits for no body, and a
slash, a query or a capital too many does not turn it away. Bodies are read up to 1 kB and ignored. A request has five
seconds altogether, and where there are too many the oldest is hung up on: whoever is slow or idle keeps nobody from the
stop.
"""

import contextlib
import hmac
import json
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from deploy.net.address import is_loopback, listen, shown
from deploy.net.complaints import Complaints
from deploy.safety.metrics import CONTENT_TYPE
from dyad.clock import Clock

LARGEST_BODY_BYTES = 1024
MOST_AT_ONCE = 16
MOST_THREADS = 4 * MOST_AT_ONCE
"""With those that were hung up on and have not noticed yet."""
PATIENCE_S = 5.0
"""For a whole request."""

_LOG = logging.getLogger("deploy")


@dataclass(frozen=True)
class Pages:
    """What the pages show and do."""

    health: Callable[[], tuple[bool, dict[str, Any]]]
    """Whether all is well, and in what words."""
    metrics: Callable[[], str]
    stop: Callable[[str], None]
    arm: Callable[[], None]


class SafetyHttp:
    """Serves the pages at `host:port` from `start` to `close`."""

    def __init__(
        self,
        address: str,
        pages: Pages,
        clock: Clock,
        *,
        token: str | None = None,
        complaints: Complaints | None = None,
    ) -> None:
        listener = listen(address, token, "--http-token-file")
        host = listener.getsockname()[0]
        self.address = shown(listener)
        self._server = _Server(listener, pages, clock, complaints or Complaints(), None if is_loopback(host) else token)
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """No more answers; safe to call twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(timeout=2.0)
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """The standard library's server on a socket that listens already, with a bound on its threads."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, listener: socket.socket, pages: Pages, clock: Clock, complaints: Complaints, token: str | None
    ) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.pages, self.clock, self.complaints, self.token = pages, clock, complaints, token
        self._room = threading.BoundedSemaphore(MOST_THREADS)
        self._began_s: dict[socket.socket, float] = {}
        """Requests that are being served, oldest first."""

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread; where there is no room for one more the oldest goes."""
        crowd = tuple(self._began_s)
        if len(crowd) >= MOST_AT_ONCE:
            self.complain("http_crowded", f"{client_address[0]}: more than {MOST_AT_ONCE} requests at once")
            self._hang_up(crowd[0])
        if self._room.acquire(blocking=False):
            self._began_s[request] = self.clock.now_s()
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One request, and its place free again."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._began_s.pop(request, None)
            self._room.release()

    def service_actions(self) -> None:
        """Between requests, twice a second at least: the time of some is over."""
        late_s = self.clock.now_s() - PATIENCE_S
        for request, began_s in tuple(self._began_s.items()):
            if began_s < late_s:
                self._hang_up(request)

    def _hang_up(self, request: socket.socket) -> None:
        """Its thread finds the line dead and ends; what it was told to do before that is done."""
        self._began_s.pop(request, None)
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken off by the client, mostly; the trace goes to the log, not to the terminal."""
        _LOG.debug("http: %s", client_address, exc_info=True)

    def complain(self, kind: str, text: str) -> None:
        """Say it once in a while."""
        self.complaints.say(kind, text, self.clock.now_s())


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = PATIENCE_S
    server_version, sys_version = "rapport", ""

    def do_HEAD(self) -> None:
        """The same without the page, for monitors that look at the status only."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer with a page."""
        if not self._admitted():
            return
        page = _page(self.path)
        if page == "healthz":
            well, words = self.server.pages.health()
            status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, json.dumps(words), "application/json")
        elif page == "metrics":
            self._answer(HTTPStatus.OK, self.server.pages.metrics(), CONTENT_TYPE)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "GET /healthz or /metrics, POST /estop or /arm\n")

    def do_POST(self) -> None:
        """Stop, at once and however it is spelt; or arm, just as it is spelt."""
        if not self._admitted():
            return
        if _page(self.path) == "estop":
            self.server.pages.stop(f"POST /estop from {self.client_address[0]}")
            self._answer(HTTPStatus.OK, "stopped\n")
            self._read_body()  # or the answer could be lost with what was never read
        elif (wrong := self._read_body()) is not None:
            self._refuse(*wrong)
        elif self.path == "/arm":
            self.server.pages.arm()
            self._answer(HTTPStatus.OK, "armed\n")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "POST /estop or /arm\n")

    def _admitted(self) -> bool:
        """Whether this may come from where it comes."""
        origin, host = self.headers.get("Origin"), self.headers.get("Host", "")
        if origin is not None and origin != f"http://{host}":
            return self._refuse(HTTPStatus.FORBIDDEN, f"a page of {origin[:80]!r} may not ask this")
        token = self.server.token
        if token is None:
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
            if not is_loopback(name.strip("[]")):
                return self._refuse(HTTPStatus.FORBIDDEN, f"ask for 127.0.0.1, not for {host[:80]!r}")
        elif not hmac.compare_digest(self.headers.get("Authorization", "").encode(), f"Bearer {token}".encode()):
            return self._refuse(HTTPStatus.UNAUTHORIZED, "wanted: Authorization: Bearer TOKEN")
        return True

    def _read_body(self) -> tuple[HTTPStatus, str] | None:
        """Take what was sent along, if it is small; else what is wrong with it."""
        length = self.headers.get("Content-Length", "0")
        if self.headers.get("Transfer-Encoding") or not (length.isascii() and length.isdigit()):
            return HTTPStatus.LENGTH_REQUIRED, "a body of known length, please"
        if len(length) > 9 or int(length) > LARGEST_BODY_BYTES:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {LARGEST_BODY_BYTES} bytes of body"
        self.rfile.read(int(length))
        return None

    def _refuse(self, status: HTTPStatus, why: str) -> bool:
        self.server.complain("http_refused", f"{self.client_address[0]} {self.command} {self.path[:80]}: {why}")
        self._answer(status, why + "\n")
        return False

    def _answer(self, status: HTTPStatus, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """To the log, quietly."""
        _LOG.debug("http: %s " + format, self.client_address[0], *args)


def _page(path: str) -> str:
    """The page that a path means, whatever query, slashes or capitals come with it."""
    return path.partition("?")[0].strip("/").lower()
