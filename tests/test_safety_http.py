"""Health, metrics, stop and arm over HTTP: open to this machine, closed to web pages, strangers and nonsense."""

import http.client
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_engine
from test_loop import ScriptedSource
from test_net_link import until

from deploy import controller, robots, run
from deploy.link import LocalLink
from deploy.loop import Loop
from deploy.net import auth
from deploy.run_pages import pages
from deploy.safety import metrics
from deploy.safety.http import LARGEST_BODY_BYTES, MOST_AT_ONCE, PATIENCE_S, Pages, SafetyHttp
from deploy.safety.metrics import Metric
from dyad.clock import FakeClock
from student.spec import StudentSpec

TOKEN = "a-token-of-enough-length"


NOTHING = Pages(lambda: (True, {}), str, print, lambda: None)


class Faults:
    """A black box of which only the faults matter."""

    def __init__(self) -> None:
        self.faults = list[str]()

    def fault(self, reason: str, now_s: float | None = None) -> None:
        self.faults.append(reason)

    def watch(self, *_: Any) -> None: ...


class Door:
    """The pages of a robot that only notes what it is told."""

    def __init__(self, address: str = "127.0.0.1:0", token: str | None = None) -> None:
        self.well, self.done, self.clock = True, list[str](), FakeClock()
        health = lambda: (self.well, {"state": "following"})  # noqa: E731
        pages = Pages(health, lambda: "figures 1\n", self.done.append, lambda: self.done.append("arm"))
        self.http = SafetyHttp(address, pages, self.clock, token=token)
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
    with pytest.raises(ValueError, match="give --http-token-file"):
        SafetyHttp("0.0.0.0:0", NOTHING, FakeClock())


def test_the_token_of_the_link_never_opens_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would travel unencrypted, and whoever heard it could drive the robot."""
    for variable in (auth.VARIABLE, auth.HTTP_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    file, own = tmp_path / "link", tmp_path / "pages"
    file.write_text(TOKEN, encoding="utf8")
    own.write_text("another-token-of-that-length", encoding="utf8")
    engine = tiny_engine.write(tmp_path / "engine")
    line = ["--robot", "--no-video", "--engine", str(engine), "--http", "0.0.0.0:0", "--token-file", str(file)]
    with pytest.raises(ValueError, match="give --http-token-file FILE"):
        run.main(line)
    with pytest.raises(ValueError, match="that is the token of the link"):
        run.main([*line, "--http-token-file", str(file)])
    assert auth.read_http_token(own, TOKEN) == "another-token-of-that-length"
    assert auth.read_http_token(None, TOKEN) is None


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
        client.sendall(f"POST /arm HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode("latin-1"))
        assert client.recv(4096).split()[1] == str(status).encode()
    assert door.done == []
    assert door.ask("POST", "/arm", body=b"x" * LARGEST_BODY_BYTES)[0] == 200


@pytest.mark.parametrize(
    "header", [f"Content-Length: {LARGEST_BODY_BYTES + 1}", "Transfer-Encoding: chunked", "Content-Length: 9"]
)
@pytest.mark.parametrize("path", ["/estop", "/estop/", "/estop?why=smoke", "//estop", "/EStop"])
def test_a_stop_waits_for_no_body_and_is_not_turned_away_for_its_spelling(door: Door, path: str, header: str) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as client:
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode())
        assert client.recv(4096).split()[1] == b"200", "answered before its body has come"
    assert door.done == ["POST /estop from 127.0.0.1"]


@pytest.mark.parametrize("path", ["/arm/", "/arm?x", "/ARM"])
def test_arming_is_spelt_as_it_is_or_not_done(door: Door, path: str) -> None:
    assert door.ask("POST", path)[0] == 404
    assert door.done == []


def test_a_monitor_may_ask_for_the_status_alone(door: Door) -> None:
    assert door.ask("HEAD", "/healthz") == (200, "")
    door.well = False
    assert door.ask("HEAD", "/healthz/") == (503, "")
    assert door.ask("HEAD", "/nothing") == (404, "")


@pytest.mark.parametrize("rubbish", [b"\0\1\2\r\n\r\n", b"GET /healthz HTTP/9.9\r\n\r\n", b"GET " + b"x" * 70000])
def test_what_is_not_http_is_refused_and_the_next_one_served(door: Door, rubbish: bytes) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as stranger:
        stranger.sendall(rubbish)
        assert b" 200 " not in stranger.recv(4096)
    assert door.ask("GET", "/healthz")[0] == 200


def test_idle_connections_take_a_bounded_number_of_places_and_keep_nobody_from_the_stop(door: Door) -> None:
    idle = [socket.create_connection(("127.0.0.1", door.port), timeout=3) for _ in range(MOST_AT_ONCE + 4)]
    assert [one.recv(10) for one in idle[:4]] == [b""] * 4, "the oldest are hung up on"
    assert len(door.http._server._began_s) <= MOST_AT_ONCE
    assert door.ask("POST", "/estop")[0] == 200
    for one in idle:
        one.close()


def test_a_request_that_comes_drop_by_drop_has_five_seconds_altogether(door: Door) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=3) as slow:
        slow.sendall(b"POST /estop HTTP/1.1\r\nHost: local")
        until(lambda: door.http._server._began_s, "the request")
        door.clock.advance(PATIENCE_S + 0.1)
        assert slow.recv(10) == b"", "sooner than it would be missed for saying nothing"
    assert door.done == []


def test_a_driver_that_hangs_is_neither_well_nor_silent_about_it() -> None:
    """The heart is alive, and hangs in the robot's wire."""
    clock, box = FakeClock(), Faults()
    link = LocalLink(robots.load("sim"), clock, box=box)  # type: ignore[arg-type]
    loop = Loop(tiny_engine.FakeEngine(lambda *_: tiny_engine.logits(StudentSpec(), 0.5), StudentSpec()), link, clock)
    server: Any = SimpleNamespace(alive=True, report=lambda: {"driver": None})
    post = controller.Post(link, server, None, None, box)  # type: ignore[arg-type]
    health = (pages(link, loop).health, lambda: controller.health(link.heart, server, clock.now_s()))
    link.open(0.0)
    for silence in range(1, 3):
        link.deliver(None)
        assert all(ask()[0] for ask in health)
        clock.advance(0.6)
        assert not any(ask()[0] for ask in health)
        assert health[0]()[1]["beat_age_s"] > 0.5
        assert health[1]()[1]["why"] == "the heart does not beat"
        assert all(post.well for _ in range(3)), "it may come back"
        assert box.faults == ["the heart does not beat: the robot's wire hangs"] * silence, "one for each silence"
    clock.advance(10.0)
    assert not post.well
    link.close(home=True)


def test_a_loop_that_hangs_is_not_well_although_the_heart_beats() -> None:
    clock, seen = FakeClock(), list[tuple[bool, dict[str, Any]]]()

    def think(step: int, _: Any) -> Any:
        if step in (20, 40):
            clock.advance(0.5 if step == 20 else 1.2)
            link.heart.catch_up(clock.now_s())
            seen.append(pages(link, loop).health())
        return tiny_engine.logits(StudentSpec(), 0.5)

    link = LocalLink(robots.load("sim"), clock)
    loop = Loop(tiny_engine.FakeEngine(think), link, clock)
    health = pages(link, loop).health
    link.open(0.0)
    assert health()[0], "it follows nothing yet: whom it waits for may come late"
    loop.run(ScriptedSource(60, clock))  # type: ignore[arg-type]
    (well, _), (hung, words) = seen
    assert well
    assert not hung
    assert (words["well"], words["why"]) == (False, "the loop does not tick")
    assert words["loop_age_s"] > 1.2 > words["beat_age_s"]
    assert health()[1]["loop_age_s"] is None
    link.close(home=True)


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
