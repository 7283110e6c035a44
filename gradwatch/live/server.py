"""Serves a followed run on the loopback: a page that holds the report in a frame and replaces it when it has changed.

The report keeps its own strict policy, which lets it request nothing; the page around it asks whether there is news.
Every address begins with a token that nobody can guess, because other users of a machine reach its loopback too. A
request that names another host than this machine's loopback is refused: a web site whose name is made to point here
(DNS rebinding) would be let in by a browser otherwise. The port is not compared, so that it can be forwarded by ssh.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import secrets
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, Final

from gradwatch.errors import GradwatchError
from gradwatch.live.follower import Follower

ADDRESS: Final = "127.0.0.1"
WATCHED_SECONDS: Final = 15.0
"""A page asks every second; a run that nobody has asked for so long is not read again until somebody does. Browsers let
a hidden page ask only once a minute: it is brought up to date when it is seen."""

REQUEST_SECONDS: Final = 10.0
_HOST: Final = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_EVERYWHERE: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Server(ThreadingHTTPServer):
    """Answers for one followed run.

    Args:
        follower: makes the pages; it is read here and moved on elsewhere.
        port: to listen at; 0 lets the system choose.

    Raises:
        GradwatchError: when the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, follower: Follower[bytes], port: int) -> None:
        self.follower = follower
        self.token = secrets.token_urlsafe(16)
        self._asked = time.monotonic()
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise GradwatchError(f"cannot listen at port {port}: {reason}; choose another --port.") from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_address[1]}/{self.token}/"

    @property
    def watched(self) -> bool:
        """Whether a page has asked lately."""
        return time.monotonic() - self._asked < WATCHED_SECONDS

    def page(self, name: str) -> tuple[HTTPStatus, str, bytes, str]:
        """Returns status, content type, body and policy of what has a name below the token."""
        self._asked = time.monotonic()
        follower = self.follower
        if name == "":
            return HTTPStatus.OK, "text/html; charset=utf-8", *_shell()
        if name == "version":
            news: dict[str, Any] = {
                "version": follower.version,
                "open": follower.open,
                "status": follower.status,
            }
            return HTTPStatus.OK, "application/json", json.dumps(news).encode(), "default-src 'none'"
        if name == "report" and follower.made is not None:
            return HTTPStatus.OK, "text/html; charset=utf-8", follower.made, "frame-ancestors 'self'"
        return _refusal(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no event."""


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; the class refuses every other method with 501."""

    server: Server
    timeout = REQUEST_SECONDS
    server_version = "gradwatch"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(*self._page(), with_body=True)

    def do_HEAD(self) -> None:
        self._answer(*self._page(), with_body=False)

    def log_message(self, *_: Any) -> None:
        """Says nothing: the address holds the token."""

    def _page(self) -> tuple[HTTPStatus, str, bytes, str]:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0].strip()):
            return _refusal(HTTPStatus.FORBIDDEN, "This page is only for this machine's loopback.")
        token, slash, name = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not slash or not secrets.compare_digest(token.encode(), self.server.token.encode()):
            return _refusal(HTTPStatus.NOT_FOUND, "There is nothing here.")
        return self.server.page(name)

    def _answer(self, status: HTTPStatus, kind: str, body: bytes, policy: str, *, with_body: bool) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Content-Security-Policy": policy}
        for key, value in {**_EVERYWHERE, **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def _refusal(status: HTTPStatus, sentence: str) -> tuple[HTTPStatus, str, bytes, str]:
    return status, "text/plain; charset=utf-8", f"{sentence}\n".encode(), "default-src 'none'"


@functools.cache
def _shell() -> tuple[bytes, str]:
    """Returns the page around the report, and its policy."""
    assets = files("gradwatch.live")
    script = assets.joinpath("shell.js").read_text(encoding="utf-8")
    page = assets.joinpath("shell.html").read_text(encoding="utf-8").replace("__SCRIPT__", script)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "connect-src 'self'; frame-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    return page.encode(), policy
