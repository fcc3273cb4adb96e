"""Health, metrics, stop and arm over HTTP: open to this machine, closed to web pages, strangers and nonsense."""

import http.client
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from deploy import robots
from deploy.link import LocalLink
from deploy.safety import metrics
from deploy.safety.http import LARGEST_BODY_BYTES, MOST_AT_ONCE, Pages, SafetyHttp
from deploy.safety.metrics import Metric
from dyad.clock import FakeClock

TOKEN = "a-token-of-enough-length"


NOTHING = Pages(lambda: (True, {}), str, print, lambda: None)


class Door:
    """The pages of a robot that only notes what it is told."""

    def __init__(self, address: str = "127.0.0.1:0", token: str | None = None) -> None:
        self.well, self.done = True, list[str]()
        health = lambda: (self.well, {"state": "following"})  # noqa: E731
        pages = Pages(health, lambda: "figures 1\n", self.done.append, lambda: self.done.append("arm"))
        self.http = SafetyHttp(address, pages, FakeClock(), token=token)
        self.port = int(self.http.address.rpartition(":")[2])
        self.http.start()

    def ask(self, method: str, path: str, *, body: Any = None, **headers: str) -> tuple[int, str]:
        """Status and text of an answer; underscores in a header's name are dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text


@pytest.fixture
def door() -> Iterator[Door]:
    opened = Door()
    yield opened
    opened.http.close()


@pytest.fixture
def far_door() -> Iterator[Door]:
    opened = Door("0.0.0.0:0", TOKEN)
    yield opened
    opened.http.close()


def test_health_is_503_when_something_is_wrong(door: Door) -> None:
    assert door.ask("GET", "/healthz") == (200, '{"state": "following"}')
    door.well = False
    assert door.ask("GET", "/healthz")[0] == 503


def test_stop_and_arm_are_posts_and_nothing_else_is_there(door: Door) -> None:
    assert door.ask("POST", "/estop", body="smoke")[0] == 200
    assert door.ask("POST", "/arm")[0] == 200
    assert door.done == ["POST /estop from 127.0.0.1", "arm"]
    assert door.ask("GET", "/estop")[0] == 404
    assert door.ask("POST", "/dance")[0] == 404
    assert door.ask("DELETE", "/estop")[0] == 501
    assert len(door.done) == 2


@pytest.mark.parametrize("path", ["/estop", "/arm"])
def test_a_page_of_another_origin_neither_stops_nor_arms(door: Door, path: str) -> None:
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{door.port + 1}"):
        assert door.ask("POST", path, Origin=origin)[0] == 403
    assert door.done == []
    assert door.ask("POST", path, Origin=f"http://127.0.0.1:{door.port}")[0] == 200


def test_a_foreign_name_that_points_here_is_refused(door: Door) -> None:
    assert door.ask("GET", "/healthz", Host="evil.example")[0] == 403
    assert door.ask("POST", "/estop", Host=f"evil.example:{door.port}")[0] == 403
    assert door.ask("GET", "/healthz", Host=f"localhost:{door.port}")[0] == 200
    assert door.ask("GET", "/healthz", Host=f"[::1]:{door.port}")[0] == 200


def test_reachable_from_elsewhere_everything_wants_the_token(far_door: Door) -> None:
    for method, path in (("GET", "/healthz"), ("GET", "/metrics"), ("POST", "/estop"), ("POST", "/arm")):
        assert far_door.ask(method, path)[0] == 401
        assert far_door.ask(method, path, Authorization="Bearer wrong")[0] == 401
        assert far_door.ask(method, path, Authorization=TOKEN)[0] == 401
        assert far_door.ask(method, path, Authorization=f"Bearer {TOKEN}", Host="robot.example")[0] == 200
    assert len(far_door.done) == 2


def test_reachable_from_elsewhere_without_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="give --token-file"):
        SafetyHttp("0.0.0.0:0", NOTHING, FakeClock())


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Content-Length: {LARGEST_BODY_BYTES + 1}", 413),
        ("Content-Length: " + "9" * 400, 413),
        ("Content-Length: 000000000099999999", 413),
        ("Content-Length: -1", 411),
        ("Content-Length: ²", 411),
        ("Transfer-Encoding: chunked", 411),
    ],
)
def test_a_body_that_is_large_or_of_unknown_length_is_refused_unread(door: Door, header: str, status: int) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as client:
        client.sendall(f"POST /estop HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode("latin-1"))
        assert client.recv(4096).split()[1] == str(status).encode()
    assert door.done == []
    assert door.ask("POST", "/estop", body=b"x" * LARGEST_BODY_BYTES)[0] == 200


@pytest.mark.parametrize("rubbish", [b"\0\1\2\r\n\r\n", b"GET /healthz HTTP/9.9\r\n\r\n", b"GET " + b"x" * 70000])
def test_what_is_not_http_is_refused_and_the_next_one_served(door: Door, rubbish: bytes) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as stranger:
        stranger.sendall(rubbish)
        assert b" 200 " not in stranger.recv(4096)
    assert door.ask("GET", "/healthz")[0] == 200


def test_idle_connections_take_a_bounded_number_of_places(door: Door) -> None:
    idle = [socket.create_connection(("127.0.0.1", door.port), timeout=5) for _ in range(MOST_AT_ONCE + 4)]
    refused = [one for one in idle[MOST_AT_ONCE:] if one.recv(10) == b""]
    assert len(refused) == 4
    for one in idle:
        one.close()


def test_a_port_in_use_is_one_sentence(door: Door) -> None:
    with pytest.raises(ValueError, match="is in use"):
        SafetyHttp(door.http.address, NOTHING, FakeClock())


SAMPLE = re.compile(r'^[a-z_]+(\{([a-z_]+="(\\.|[^"\\])*",?)+\})? -?[0-9.e+-]+$')


def test_the_metrics_of_a_controller_are_in_the_format_of_prometheus() -> None:
    link = LocalLink(robots.load("null"), FakeClock())
    link.open(0.0)
    link.stop("smoke")
    text = metrics.text(metrics.of_status(link.status()))
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names)) >= 6
    for line in text.splitlines():
        assert line.startswith(("# HELP ", "# TYPE ")) or SAMPLE.match(line), line
    assert 'rapport_state{state="stopped"} 1' in text
    assert "rapport_stop_latched 1" in text
    assert "rapport_look_ahead_seconds" in [line.split()[0] for line in text.splitlines()]
    assert "rapport_last_plan_age_seconds" not in [line.split()[0] for line in text.splitlines()], "no plan yet"
    link.close(home=True)


def test_labels_are_escaped_and_quantiles_are_those_of_the_values() -> None:
    text = metrics.text(
        [
            Metric("a", "gauge", "x", [({"why": 'say "no"\n\\'}, 1.0)]),
            metrics.of_times("b", "y", "stage", {"tick": [float(k) for k in range(101)], "none": []}),
        ]
    )
    assert 'a{why="say \\"no\\"\\n\\\\"} 1' in text
    assert 'b{stage="tick",quantile="0.5"} 0.05' in text
    assert 'b{stage="tick",quantile="0.99"} 0.099' in text
    assert "none" not in text
