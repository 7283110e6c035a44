"""The server of the live page: this machine's loopback only, three names under a token, reading only."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradwatch.errors import GradwatchError
from gradwatch.live.follower import Follower
from gradwatch.live.server import Server
from gradwatch.testing import example_run
from tests.core.live_run import looked


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    run = example_run(tmp_path / "run", steps=20)
    following = Follower(run.path, lambda run: f"page of {run.path.name}".encode(), every=0.001)
    server = Server(following, 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


Answer = tuple[int, dict[str, str], bytes]


def ask(server: Server, path: str, *, method: str = "GET", host: str | None = "localhost") -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.putrequest(method, path, skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    found = (answer.status, dict(answer.getheaders()), answer.read())
    connection.close()
    return found


def test_it_listens_on_the_loopback_only(served: Server) -> None:
    """The socket is bound to 127.0.0.1 and no other address of the machine."""
    assert served.socket.getsockname()[0] == "127.0.0.1"
    for address in {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}:
        if not str(address).startswith("127."):
            with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
                socket.create_connection((str(address), served.server_address[1]), timeout=1)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "", None, "0.0.0.0"]
)
@pytest.mark.parametrize("name", ["", "report", "version"])
def test_another_host_is_refused(served: Server, host: str | None, name: str) -> None:
    """A name that was made to point here gets nothing, even with the token (DNS rebinding)."""
    looked(served.follower)
    status, _, body = ask(served, f"/{served.token}/{name}", host=host)
    assert status == 403
    assert b"page of" not in body
    assert b"script" not in body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:9"])
def test_a_name_of_the_loopback_is_let_in_at_any_port(served: Server, host: str) -> None:
    """A port that ssh forwards has another number than ours."""
    assert ask(served, f"/{served.token}/version", host=host)[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/version", "/wrong/", "/{}", "/{}/../", "/{}/.", "/{}/run.json", "/{}/report/", "/{}//etc/passwd"],
)
def test_nothing_is_found_without_the_token_or_beside_the_three_names(served: Server, path: str) -> None:
    """No directory is listed, no file is served, and the token does not show."""
    looked(served.follower)
    status, _, body = ask(served, path.format(served.token))
    assert (status, body) == (404, b"There is nothing here.\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT"])
def test_only_reading_is_answered(served: Server, method: str) -> None:
    """Every method but GET and HEAD is refused."""
    assert ask(served, f"/{served.token}/version", method=method)[0] == 501


def test_what_is_served(served: Server) -> None:
    """Before the first reading there is no report; then three answers, each with a policy; HEAD has no body."""
    path = f"/{served.token}/"
    assert ask(served, f"{path}report")[0] == 404
    looked(served.follower)
    status, headers, body = ask(served, f"{path}report?version=1")
    assert (status, body) == (200, b"page of run")
    assert headers["Content-Security-Policy"] == "frame-ancestors 'self'"
    news = json.loads(ask(served, f"{path}version")[2])
    assert news == {"version": 1, "open": False, "status": served.follower.status}
    status, headers, shell = ask(served, path)
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe-inline'; img-src" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(served, path, method="HEAD")[2] == b""
    assert int(ask(served, path, method="HEAD")[1]["Content-Length"]) == len(shell)


def test_two_servers_have_two_tokens(served: Server, tmp_path: Path) -> None:
    """A token has 128 random bits, so an address of one server opens no other; a taken port is one sentence."""
    with pytest.raises(GradwatchError, match=r"cannot listen at port \d+: .*; choose another --port\."):
        Server(served.follower, served.server_address[1])
    other = Server(served.follower, 0)
    other.server_close()
    assert other.token != served.token
    assert len(other.token) >= 22
