"""A loop and a controller over real sockets: one drives, others watch, and nobody is believed without proof."""

import contextlib
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks import network as network_benchmark
from deploy import link as links
from deploy import robots
from deploy.link import LocalLink, open_link
from deploy.net import client
from deploy.net import server as serving
from deploy.net.address import listen, shown
from deploy.net.client import RemoteLink
from deploy.net.complaints import Complaints
from deploy.net.server import ControllerServer
from deploy.net.session import Session, new_sender
from deploy.net.wire import Message, encode, sentence
from deploy.plan import AUPlan
from dyad.clock import FakeClock, MonotonicClock

TOKEN = "a-token-of-enough-length"
AHEAD_S = 5000.0


def until(is_so: Callable[[], Any], what: str) -> None:
    """Wait for other threads, ten seconds at most."""
    for _ in range(2000):
        if is_so():
            return
        threading.Event().wait(0.005)
    pytest.fail(f"never came: {what}")


class AheadClock(MonotonicClock):
    """The clock of another machine."""

    def now_s(self) -> float:
        return super().now_s() + AHEAD_S

    def sleep_until(self, time_s: float) -> None:
        super().sleep_until(time_s - AHEAD_S)


class FakeRobot:
    """What the server drives; a controller on the null robot says how it is."""

    def __init__(self) -> None:
        self.plans: queue.Queue[AUPlan] = queue.Queue()
        self.stops: queue.Queue[str] = queue.Queue()
        self.said: queue.Queue[str] = queue.Queue()
        self._link = LocalLink(robots.load("null"), FakeClock())
        self._link.open(0.0)

    def offer(self, plan: AUPlan) -> None:
        self.plans.put(plan)

    def stop(self, reason: str) -> None:
        self._link.heart.stop(reason)
        self.stops.put(reason)

    def rest(self, why: str) -> None:
        self.said.put(f"rest: {why}")

    def fault(self, reason: str) -> None:
        self.said.put(f"fault: {reason}")

    def rearm(self) -> None:
        self._link.heart.rearm()

    def report(self) -> dict[str, Any]:
        return self._link.heart.report()


def plan(clock: MonotonicClock, seq: int = 0) -> AUPlan:
    now_s = clock.now_s()
    rows = np.full((9, 17), 0.5, np.float32)
    return AUPlan(seq, now_s, now_s + np.arange(9) / 30, rows, rows)


class Place:
    """A served robot and everything that was opened towards it."""

    def __init__(self, token: str | None = None, address: str = "127.0.0.1:0") -> None:
        self.token, self.robot, self.complaints = token, FakeRobot(), Complaints()
        listener = listen(address, token)
        self.address = shown(listener)
        self.clock: Any = MonotonicClock()
        self.server = ControllerServer(
            listener, self.robot, self, robot="null", token=token, complaints=self.complaints
        )
        self._opened: list[Any] = []
        self.server.start()

    def now_s(self) -> float:
        """The server's clock: replaceable while it runs."""
        return self.clock.now_s()

    def sleep_until(self, time_s: float) -> None:
        raise AssertionError("a server never sleeps")

    def link(self, token: str | None = None, patience_s: float = 5.0) -> RemoteLink:
        """A loop's link, not yet open."""
        self._opened.append(RemoteLink(self.address, AheadClock(), token, patience_s=patience_s))
        return self._opened[-1]

    def driver(self) -> RemoteLink:
        """A loop's link, open."""
        link = self.link(self.token)
        link.open(AheadClock().now_s())
        return link

    def session(self, sender: str | None = None) -> Session:
        """One connection without a link around it, admitted."""
        session = Session(self.address, AheadClock(), None, sender or new_sender())
        self._opened.append(session.connection)
        while session.status is None:
            session.beat()
            session.hear()
        return session

    def raw(self) -> socket.socket:
        """A connection without manners."""
        host, _, port = self.address.rpartition(":")
        connected = socket.create_connection((host, int(port)), timeout=5)
        self._opened.append(connected)
        return connected

    def close(self) -> None:
        for opened in self._opened:
            if isinstance(opened, RemoteLink):
                opened.close(home=False)
            else:
                opened.close()
        self.server.close()


@pytest.fixture
def places() -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def make(*arguments: Any, **options: Any) -> Place:
        made.append(Place(*arguments, **options))
        return made[-1]

    yield make
    for place in made:
        place.close()


def hung_up(connected: socket.socket) -> bool:
    """Whether the other end closes the connection, whatever it says before."""
    with contextlib.suppress(ConnectionError):
        while connected.recv(4096):
            pass
    return True


def framed(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


@pytest.mark.parametrize("token", [None, TOKEN])
def test_plans_arrive_on_the_controllers_clock_numbered_from_the_first(places: Any, token: str | None) -> None:
    place = places(token)
    link, clock = place.driver(), AheadClock()
    for k in range(3):
        sent = plan(clock, seq=100 + k)
        link.deliver(sent)
        came = place.robot.plans.get(timeout=5)
        assert came.seq == k
        assert came.captured_at_s == pytest.approx(sent.captured_at_s - AHEAD_S, abs=0.05)
        np.testing.assert_allclose(
            came.target_times_s - came.captured_at_s, sent.target_times_s - sent.captured_at_s, atol=1e-6
        )
        np.testing.assert_array_equal(came.au, sent.au)
    status = link.status()
    assert status is not None
    assert status.state == "waiting"
    assert link.round_trip_s is not None


def test_a_loop_that_comes_back_goes_on_where_its_numbers_were(places: Any) -> None:
    place = places()
    first = place.driver()
    first.deliver(plan(AheadClock()))
    assert place.robot.plans.get(timeout=5).seq == 0
    first.close(home=False)
    until(lambda: place.server.report()["driver"] is None, "a free place")
    place.driver().deliver(plan(AheadClock()))
    assert place.robot.plans.get(timeout=5).seq == 1


def test_a_broken_connection_is_made_anew_without_being_asked(places: Any) -> None:
    place = places()
    link = place.driver()
    link.deliver(plan(AheadClock()))
    place.robot.plans.get(timeout=5)
    place.server.close()
    again = places(address=place.address)
    until(lambda: again.server.report()["driver"], "the reconnection")
    until(lambda: link.counts.connections > 1, "a second connection")
    for _ in range(500):
        link.deliver(plan(AheadClock()))
        with contextlib.suppress(queue.Empty):
            assert again.robot.plans.get(timeout=0.01).seq >= 0
            return
    pytest.fail("no plan after the reconnection")


def test_a_stop_that_was_lost_with_its_connection_is_told_again_and_no_plan_goes_before_it(
    places: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, lost = places(), queue.Queue[str]()
    link = place.driver()
    monkeypatch.setattr(place.robot, "stop", lost.put)  # its bytes went out, and nothing came of them
    link.stop("smoke")
    lost.get(timeout=5)
    link.deliver(plan(AheadClock()))
    place.server.close()
    again = places(address=place.address)
    assert "smoke" in again.robot.stops.get(timeout=5)
    assert place.robot.plans.empty()
    assert again.robot.plans.get(timeout=5).seq == 0, "it goes when the stop is confirmed"
    until(lambda: (status := link.status()) and status.stop_reason, "the confirmation")
    assert again.robot.stops.empty(), "told once in each connection"


def test_a_second_stop_after_the_robot_was_armed_again_is_told_too(places: Any) -> None:
    place = places()
    link = place.driver()
    for why in ("smoke", "more smoke"):
        link.stop(why)
        assert place.robot.stops.get(timeout=5).endswith(why)
        until(lambda: (status := link.status()) and status.stop_reason and link._stop.why is None, "the confirmation")
        place.robot.rearm()
        until(lambda: (status := link.status()) and status.stop_reason is None, "the arming")


def test_a_stop_reaches_a_robot_that_another_loop_drives_by_now(places: Any) -> None:
    place = places()
    place.driver()
    link = place.link(patience_s=0.5)
    link.stop("smoke")
    with pytest.raises(ValueError, match="another client drives the robot"):
        link.open(AheadClock().now_s())
    assert "smoke" in place.robot.stops.get(timeout=5)


def test_a_stop_in_the_last_moment_is_told_until_it_is_confirmed(places: Any) -> None:
    """The controller is away while somebody stops the robot and ends the run; it comes back a little later."""
    place = places()
    link = place.driver()
    place.server.close()
    link.stop("smoke")
    ending = threading.Thread(target=link.close, kwargs={"home": True})
    ending.start()
    assert "NOT confirmed" in str(link.doubt)
    again = places(address=place.address)
    assert "smoke" in again.robot.stops.get(timeout=5)
    ending.join(timeout=10)
    assert link.doubt is None


def test_a_stop_that_nobody_confirms_is_not_waited_for_for_ever_and_said(
    places: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CONFIRM_S", 0.2)
    place = places()
    link = place.driver()
    place.server.close()
    link.stop("smoke")
    link.close(home=True)
    assert link.doubt == f"the emergency stop (smoke) was NOT confirmed by {place.address}; cut the robot's power"


def test_a_stop_for_a_strange_reason_is_a_stop(places: Any) -> None:
    place = places()
    place.driver().stop("key '\x1b'\n" + "x" * 1000)
    assert "key '" in place.robot.stops.get(timeout=5)


def test_a_robot_that_is_stopped_over_there_is_told_here_once(places: Any, caplog: pytest.LogCaptureFixture) -> None:
    place = places()
    place.robot.stop("smoke")
    link = place.driver()
    until(lambda: (status := link.status()) and status.stop_reason, "the status")
    link.close(home=False)
    told = [r.getMessage() for r in caplog.records if r.getMessage().startswith(place.address)]
    assert told == [f"{place.address}: stopped: smoke; to arm it: POST /arm to its HTTP address"]


def test_only_the_driver_announces_its_silence_and_its_faults(places: Any) -> None:
    place = places()
    link, watcher = place.driver(), place.session()
    for kind in ("rest", "fault"):
        watcher.connection.send(sentence(kind, "not yours to say"))
    for _ in range(3):
        link.rest("nobody there")
    link.fault("the engine\nbroke")
    assert place.robot.said.get(timeout=5) == "rest: nobody there"
    assert place.robot.said.get(timeout=5).endswith("the engine broke")
    link.deliver(plan(AheadClock()))
    link.rest("nobody there")
    assert place.robot.said.get(timeout=5) == "rest: nobody there", "after a plan it is news again"
    link.close(home=False)
    assert place.robot.said.get(timeout=5) == "rest: the loop left"
    assert place.robot.said.empty()


def test_a_second_loop_may_watch_and_stop_but_not_drive(places: Any) -> None:
    place = places()
    place.driver()
    session = place.session()
    assert not session.drives
    session.send(plan(AheadClock()))
    until(lambda: place.complaints.counts.get("read_only"), "the complaint")
    assert place.robot.plans.empty()
    session.connection.send(Message("stop", {"why": "smoke"}))
    assert "smoke" in place.robot.stops.get(timeout=5)


def test_a_link_that_may_not_drive_says_so_in_one_sentence(places: Any) -> None:
    place = places()
    place.driver()
    with pytest.raises(ValueError, match=r"another client drives the robot; end it"):
        place.link(patience_s=0.5).open(AheadClock().now_s())


def test_the_same_loop_takes_its_place_back_before_the_old_connection_is_missed(places: Any) -> None:
    place = places()
    sender = new_sender()
    first, second = place.session(sender), place.session(sender)
    assert first.drives
    assert second.drives


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        (TOKEN, "another-token-of-that-length", "the token is not the controller's"),
        (TOKEN, None, "the controller wants a token; give --token-file"),
    ],
)
def test_without_the_token_nobody_comes_in(
    places: Any, theirs: str, ours: str | None, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = places(theirs)
    with pytest.raises(ValueError, match=words):
        place.link(ours).open(AheadClock().now_s())
    assert place.server.report()["driver"] is None
    assert not [r for r in caplog.records if r.getMessage().startswith(place.address)], "said once"


def test_a_false_controller_is_not_believed(places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not hold the token lets everybody in, to hear their plans."""
    place = places("the-token-of-somebody-else")
    monkeypatch.setattr(serving.Guest, "_greet", _welcome_all)
    with pytest.raises(ValueError, match="does not hold the token itself"):
        place.link(TOKEN).open(AheadClock().now_s())
    assert place.server.report()["plans"] == 0


def _welcome_all(guest: Any, message: Message) -> None:
    guest._send("welcome", {"drives": True, "proof": "00", "robot": "null"})


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1\r\nHost: robot\r\n\r\n",
        struct.pack(">I", 10**6),
        framed(b"\x80\x04\x95pickle"),
        framed(encode(Message("ping", {"asked_s": 0.0}))),
        framed(b'{"kind":"hello"}\n'),
    ],
    ids=["another protocol", "oversized", "pickle", "no hello first", "half a hello"],
)
def test_rubbish_closes_its_connection_and_disturbs_nobody(places: Any, rubbish: bytes) -> None:
    place = places()
    link, stranger = place.driver(), place.raw()
    stranger.sendall(rubbish)
    assert hung_up(stranger)
    until(lambda: place.complaints.counts.get("refused"), "the complaint")
    link.deliver(plan(AheadClock()))
    assert place.robot.plans.get(timeout=5) is not None


def test_a_driver_that_sends_rubbish_loses_its_place(places: Any) -> None:
    place = places()
    session = place.session()
    session.connection.socket.sendall(framed(b"rubbish"))
    until(lambda: place.complaints.counts.get("garbage"), "the complaint")
    until(lambda: place.server.report()["driver"] is None, "a free place")


def test_many_failed_visits_lock_an_address_out_for_a_while(places: Any) -> None:
    place = places()
    for _ in range(serving.FAILURES + 3):
        stranger = place.raw()
        with contextlib.suppress(ConnectionError):
            stranger.sendall(framed(b"rubbish"))
        assert hung_up(stranger)
    until(lambda: place.complaints.counts.get("locked_out"), "the lock")


def test_idle_strangers_take_nobodys_place(places: Any) -> None:
    place = places()
    link = place.driver()
    idle = [place.raw() for _ in range(2 * serving.MOST_GUESTS)]
    assert place.session().status is not None
    link.deliver(plan(AheadClock()))
    assert place.robot.plans.get(timeout=5) is not None
    assert len(place.server._guests) <= serving.MOST_GUESTS
    assert hung_up(idle[0])


def test_more_than_120_plans_a_second_are_dropped_and_counted(places: Any) -> None:
    place = places()
    place.clock = still = FakeClock(10.0)
    session = place.session()
    for _ in range(100):
        session.send(plan(AheadClock()))
    until(lambda: place.complaints.counts.get("too_fast", 0) == 70, "the complaints")
    assert place.robot.plans.qsize() == 30
    still.advance(0.125)
    for _ in range(20):
        session.send(plan(AheadClock()))
    until(lambda: place.complaints.counts.get("too_fast", 0) == 75, "more complaints")
    assert place.robot.plans.qsize() == 45


def test_a_silent_driver_has_left_after_two_seconds(places: Any) -> None:
    place = places()
    place.clock = still = FakeClock(10.0)
    place.session()
    still.advance(serving.SILENCE_S + 0.1)
    until(lambda: place.server.report()["driver"] is None, "a free place")


def test_a_flood_of_complaints_is_said_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []
    complaints = Complaints(lambda kind, text: said.append(f"{kind}: {text}"))
    for k in range(1000):
        complaints.say("garbage", "nonsense", 0.001 * k)
    complaints.say("garbage", "nonsense", 60.0)
    assert complaints.counts == {"garbage": 1001}
    assert said == ["garbage: nonsense", "garbage: nonsense (and 999 more like it)"]
    assert len(caplog.records) == 2


def test_of_plans_that_wait_for_the_network_only_the_newest_goes(places: Any) -> None:
    place = places()
    link = place.link()
    for k in range(10):
        link.deliver(plan(AheadClock(), seq=k))
    newest = plan(AheadClock())
    link.deliver(newest)
    link.open(AheadClock().now_s())
    came = place.robot.plans.get(timeout=5)
    assert came.captured_at_s == pytest.approx(newest.captured_at_s - AHEAD_S, abs=0.05)
    assert link.counts.replaced == 10
    assert place.robot.plans.empty()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "[::]", "robot.local"])
def test_what_others_can_reach_is_not_served_without_a_token(host: str) -> None:
    with pytest.raises(ValueError, match="not driven without a token; give --token-file"):
        listen(f"{host}:0", None)


@pytest.mark.parametrize(
    "address", ["7030", "host", "host:", ":7030", "host:x", "host:70300", "a..b:7030", f"{'a' * 64}:7030"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="wanted HOST:PORT"):
        listen(address, None)
    with pytest.raises(ValueError, match="wanted HOST:PORT"):
        open_link(f"tcp://{address}", clock=MonotonicClock())


def test_a_port_in_use_is_one_sentence(places: Any) -> None:
    with pytest.raises(ValueError, match="is in use; end the other process or give another port"):
        listen(places().address, None)


def test_nobody_there_is_one_sentence_with_the_command(places: Any) -> None:
    place = places()
    place.server.close()
    with pytest.raises(ValueError, match=r"no controller answers.*python -m deploy.controller --robot"):
        place.link(patience_s=0.5).open(AheadClock().now_s())


def test_a_robot_by_its_address_is_remote_and_by_its_name_is_here() -> None:
    clock = MonotonicClock()
    assert isinstance(open_link("tcp://127.0.0.1:7030", clock=clock), RemoteLink)
    assert isinstance(open_link("sim", clock=clock), links.LocalLink)
    with pytest.raises(ValueError, match="has its calibration there"):
        open_link("tcp://127.0.0.1:7030", robots.FOLDER / "sim.yaml", clock=clock)
    with pytest.raises(ValueError, match="wanted HOST:PORT"):
        open_link("tcp://nowhere", clock=clock)


@pytest.mark.parametrize("name", ["datagrams", "stream"])
def test_a_bad_network_freezes_nothing_breaks_no_limit_and_replays_nothing(name: str) -> None:
    config = network_benchmark.Config(seconds=4.0)
    figures = network_benchmark.run(name, config)
    assert figures["taken"] > 30
    assert figures["frozen_with_plan"] == 0
    assert figures["replayed_late"] == 0
    assert figures["worst_velocity"] <= 1 + 1e-3
    assert figures["worst_acceleration"] <= 1 + 1e-3
