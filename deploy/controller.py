"""The process beside the robot: owns its limits, its plan buffer, its watchdog and its way home.

    python -m deploy.controller --robot sim --listen 127.0.0.1:7030

The loop may then run elsewhere: `python -m deploy.run --robot tcp://HOST:7030`. Whatever happens to it or to the
network, the face is neutral 1.5 s after the last plan. Ctrl-C, SIGTERM, a terminal that has gone, any key or POST
/estop: home, then let go.
"""

import logging
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.motion.config import MotionConfig
from dyad.config import parse, run_main

if TYPE_CHECKING:
    from deploy.link import LocalLink
    from deploy.motion.heart import Heart
    from deploy.net.server import ControllerServer
    from deploy.robots import Robot
    from deploy.safety.black_box import BlackBox
    from deploy.safety.estop import KeyStop
    from deploy.safety.http import SafetyHttp
    from dyad.clock import Clock


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which robot, and who may reach it from where."""

    robot: str = "sim"
    """Robot by name (a file in deploy/robots), with an address where its wire has one; --robot alone means sim."""
    listen: str = "127.0.0.1:7030"
    """Where the loop connects to; anything but loopback wants a token."""
    http: str = "127.0.0.1:7031"
    """Where /healthz, /metrics, /estop and /arm are; empty: nowhere. Anything but loopback wants a token of its own."""
    http_token_file: Path | None = None
    """File with the token for --http beyond this machine, which travels unencrypted; else RAPPORT_HTTP_TOKEN."""
    token_file: Path | None = None
    """File with the token that the loop must hold; else RAPPORT_TOKEN, else none."""
    calibration: Path | None = None
    """Calibration in place of configs/robots/NAME.yaml."""
    black_box: Path = Path("out/blackbox")
    """Folder for the last minute before a fault."""
    dry_run: bool = False
    """All but the motion: the robot is not even connected."""
    motion: MotionConfig = field(default_factory=MotionConfig)


@dataclass(frozen=True)
class Post:
    """All that runs beside a robot. Its sockets are bound before anything moves."""

    link: "LocalLink"
    server: "ControllerServer"
    http: "SafetyHttp | None"
    keys: "KeyStop"
    box: "BlackBox"

    def serve(self) -> None:
        """Open the doors, once the heart beats."""
        self.box.start()
        self.server.start()
        if self.http is not None:
            self.http.start()
        self.keys.start()

    def give_up(self) -> None:
        """The end when the robot could not be opened."""
        self.server.close()
        if self.http is not None:
            self.http.close()

    @property
    def well(self) -> bool:
        """Whether the threads that matter run; a heart that hangs is a fault, and the end when it hangs for long."""
        heart = self.link.heart
        heart.note_silence()
        return heart.alive and not heart.stuck and self.server.alive

    def end(self, reason: str) -> None:
        """No more plans; home, whatever else fails; what happened written down. Raises what had broken the heart."""
        with ExitStack() as stack:  # from the last to the first
            stack.callback(self.box.close)
            if self.http is not None:
                stack.callback(self.http.close)
            stack.callback(self.keys.close)
            stack.callback(self.link.close, home=True)
            self.box.fault(reason)
            self.server.close()


def main(argv: list[str] | None = None) -> int:
    """Check, bind, open the robot, serve until a signal, home."""
    from deploy.run import with_bare_robot

    arguments = with_bare_robot(sys.argv[1:] if argv is None else argv)
    config = parse(Config, arguments, prog="python -m deploy.controller", description=(__doc__ or "").splitlines()[0])
    from deploy import robots
    from deploy.net.auth import read_http_token, read_token
    from deploy.robots.null import NullRobot
    from deploy.safety.signals import EndSignals
    from dyad.clock import MonotonicClock

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    token, clock = read_token(config.token_file), MonotonicClock()
    robot = robots.load(config.robot, config.calibration)
    robot = NullRobot(robot.calibration) if config.dry_run else robot
    post, where = assemble(config, robot, token, read_http_token(config.http_token_file, token), clock)
    with EndSignals() as signals:
        try:
            post.link.open(clock.now_s())
        except BaseException:
            post.give_up()
            raise
        try:
            post.serve()
            print(f"ready: {where}", flush=True)
            while not signals.wait(0.1) and post.well:
                pass
        finally:
            end(post, signals.name if signals.number else "a thread of the controller ended")
        return 1 if post.link.doubt else signals.exit_status or 1


def end(post: Post, reason: str) -> None:
    """The end of the post; what had broken the heart is an error of ours, not the user's."""
    try:
        post.end(reason)
    except (ValueError, OSError) as error:
        raise RuntimeError("the controller failed; the robot was sent home and let go") from error


def assemble(
    config: Config, robot: "Robot", token: str | None, http_token: str | None, clock: "Clock"
) -> tuple[Post, str]:
    """Everything, bound but not started, and where it listens; ValueError when it may not or cannot."""
    from deploy.link import LocalLink
    from deploy.net.address import listen, shown
    from deploy.net.complaints import Complaints
    from deploy.net.server import ControllerServer
    from deploy.safety.black_box import BlackBox
    from deploy.safety.estop import KeyStop
    from deploy.safety.http import Pages, SafetyHttp

    names, rate_hz = robot.calibration.names, robot.calibration.rate_hz
    name = config.robot.partition("?")[0]  # behind it an address may carry a key
    box = BlackBox(config.black_box, clock, robot=name, channels=names, rate_hz=rate_hz)
    complaints, listener = Complaints(box.note), listen(config.listen, token)
    where = f"tcp://{shown(listener)}"
    link = LocalLink(robot, clock, config.motion, box=box)
    heart = link.heart
    server = ControllerServer(listener, heart, clock, robot=name, token=token, complaints=complaints)
    pages = Pages(lambda: health(heart, server, clock.now_s()), lambda: metrics(heart, server), heart.stop, heart.rearm)
    http = None
    if config.http:
        try:
            http = SafetyHttp(config.http, pages, clock, token=http_token, complaints=complaints)
        except ValueError:
            server.close()
            raise
        where += f", http://{http.address}"
        heart.how_to_arm = f"POST http://{http.address}/arm"
    return Post(link, server, http, KeyStop(heart.stop), box), where


def health(heart: "Heart", server: "ControllerServer", now_s: float) -> tuple[bool, dict[str, Any]]:
    """Whether the robot can be driven now, and why not."""
    from deploy.safety.health import of_heart

    why, words = of_heart(heart)
    more = {"now_s": now_s, "driver": server.report()["driver"]}
    return why is None, {"well": why is None, "why": why} | words | more


def metrics(heart: "Heart", server: "ControllerServer") -> str:
    """The page for Prometheus."""
    from deploy.safety.metrics import Metric, of_network, of_status, of_times, text

    skipped = [({}, float(heart.skipped_ticks))]
    return text(
        [
            *of_status(heart.status()),
            *of_network(server.report()),
            Metric("rapport_skipped_ticks_total", "counter", "Ticks that came too late.", skipped),
            of_times("rapport_stage_seconds", "Recent durations.", "stage", {"tick": heart.tick_ms}),
        ]
    )


if __name__ == "__main__":
    run_main(main)
