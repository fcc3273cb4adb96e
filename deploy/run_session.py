"""One run from first to last: everything that must be given back, whatever ends it, and what is told at the end.

The order is the point: what can be refused is refused before the robot is opened, the face is home before anything
else is closed, and the report and the video are written after a fault as after a good end.
"""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from deploy import report, robots, side_by_side
from deploy.calibration import Calibration
from deploy.engines import Engine
from deploy.faces.watcher import Watcher
from deploy.link import REMOTE, Link, LocalLink, open_link
from deploy.loop import KEEP_FRAMES, Loop
from deploy.motion.states import Status
from deploy.net.auth import read_http_token, read_token
from deploy.recording import Recorder
from deploy.run import Config
from deploy.run_pages import pages
from deploy.safety.black_box import BlackBox
from deploy.safety.estop import KeyStop
from deploy.safety.http import SafetyHttp
from deploy.safety.signals import Ended, EndSignals
from deploy.sources import Source
from deploy.sources.stream import without_password
from deploy.timing import StageTimes
from dyad import media
from dyad.action_units import SEED17
from dyad.clock import FPS, Clock
from dyad.config import as_dict
from dyad.provenance import write_json

FILM_S = 600
"""A film shows the newest ten minutes of a longer run, so that memory does not grow with the file."""


class RunSession:
    """An engine, a source and a robot for one run; `run` once."""

    def __init__(self, config: Config, engine: Engine, source: Source, clock: Clock) -> None:
        self._config, self._source, self._clock = config, source, clock
        self._films = config.video and config.robot == "sim" and source.recording is not None
        for path in [config.save] * self._films + ([config.report] if config.report else []):
            path.parent.mkdir(parents=True, exist_ok=True)  # an impossible place is refused before anything moves
        keep = KEEP_FRAMES
        if self._films and source.recording is not None:
            seconds = min(media.probe(source.recording).video_duration_s + 1, FILM_S)
            keep = max(keep, int(seconds * FPS))
        self._times, self._box = StageTimes(), None
        self._calibration: Calibration | None = None
        self._recorder = Recorder(0)
        self._status: Status | None = None
        self._link = self._make_link(keep)
        self._loop = Loop(engine, self._link, clock, watcher=Watcher(config.faces), times=self._times, keep_frames=keep)
        self._http = self._make_http()
        _warm_up(engine)

    def _make_http(self) -> SafetyHttp | None:
        """Health, metrics and the stop button, where they were asked for; a port in use is refused here."""
        if self._config.http is None:
            return None
        if not isinstance(self._link, LocalLink):
            raise ValueError(f"--http: the robot's pages are served where its controller is, {self._config.robot}")
        token = read_http_token(self._config.http_token_file, read_token(self._config.token_file))
        http = SafetyHttp(self._config.http, pages(self._link, self._loop), self._clock, token=token)
        self._link.heart.how_to_arm = f"POST http://{http.address}/arm"
        return http

    def _make_link(self, keep_frames: int) -> Link:
        """The robot with its recorder and black box here, or the way to a controller elsewhere."""
        config, clock = self._config, self._clock
        if config.robot.startswith(REMOTE):
            token = read_token(config.token_file)
            return open_link(config.robot, config.calibration, clock=clock, motion=config.motion, token=token)
        robot = robots.load(config.robot, config.calibration)
        self._calibration = settings = robot.calibration
        self._recorder = Recorder(round(keep_frames / FPS * settings.rate_hz))
        self._box = BlackBox(
            config.black_box, clock, robot=settings.robot, channels=settings.names, rate_hz=settings.rate_hz
        )
        watch, times = self._recorder.add, self._times.add
        return LocalLink(robot, clock, config.motion, watch=watch, times=times, box=self._box)

    def run(self) -> int:
        """Follow the source to its end; the exit status."""
        ended, fault = "the source ended", None
        with EndSignals() as signals:
            try:
                self._follow(signals)
            except Ended:
                ended = signals.name
            except Exception as error:  # noqa: BLE001  the face is home; what there is to report comes first
                ended, fault = f"{type(error).__name__}: {error}", error
        if fault is None or self._loop.trace.played:  # else nothing has happened yet: there is nothing to report
            self._tell(ended)
        return self._end(fault, signals.exit_status)

    def _end(self, fault: Exception | None, status: int) -> int:
        """The exit status, or the fault; a robot that somebody must look after comes before both."""
        doubt = self._link.doubt
        if fault is not None and doubt is not None:
            raise RuntimeError(doubt) from fault
        if fault is not None:
            raise fault
        if doubt is not None:
            print(f"error: {doubt}", file=sys.stderr)
        return status if doubt is None else 1

    def _follow(self, signals: EndSignals) -> None:
        """Open what moves, run the loop, and give everything back, the face first. Signals cut only the loop short."""
        with ExitStack() as stack:
            stack.callback(self._source.close)
            if self._box is not None:
                self._box.start()
                stack.callback(self._box.close)
            keys = KeyStop(self._link.stop)
            stack.callback(keys.close)
            if self._http is not None:
                stack.callback(self._http.close)
            stack.callback(self._link.close, home=True)
            self._link.open(self._clock.now_s())
            keys.start()
            if self._http is not None:
                self._http.start()
                print(f"health, metrics and stop: http://{self._http.address}/healthz", flush=True)
            if self._source.greeting:
                print(self._source.greeting, flush=True)
            with signals.interruptible():
                self._source.wait_until_ready()
                try:
                    self._loop.run(self._source)
                except Exception as error:
                    self._link.fault(f"{type(error).__name__}: {error}")
                    raise
                finally:  # as it was while it followed, before the way home
                    self._status = self._link.status()

    def _tell(self, ended: str) -> None:
        """Table, notes, video and report."""
        summary = report.summarise(
            self._loop, self._source, self._status, self._recorder, self._calibration,
            ended=ended, config=public(self._config),
        ) | {"doubt": self._link.doubt}  # fmt: skip
        try:  # first: neither a closed pipe nor a film that fails may cost it
            if self._config.report is not None:
                write_json(self._config.report, summary)
        finally:
            report.print_table(summary)
        if self._source.note:
            print(self._source.note)
        if self._config.report is not None:
            print(f"report: {self._config.report}")
        if self._films and self._calibration is not None and summary["ticks"]:
            self._film(summary)

    def _film(self, summary: dict[str, Any]) -> None:
        ticks, save = list(self._loop.trace.ticks), self._config.save
        assert self._calibration is not None
        assert self._source.recording is not None
        asked = side_by_side.asked_for(ticks, self._calibration, summary["compensated_ms"] / 1000)
        side_by_side.write(
            save, Path(self._source.recording), self._source.sound, ticks, self._recorder, (asked, SEED17.units)
        )
        left_out = summary["ticks"] - len(ticks)
        print(f"video: {save}" + (f" (without the first {left_out} ticks of a long run)" if left_out else ""))


def public(config: Config) -> dict[str, Any]:
    """The settings without the secrets that addresses carry: no key of a robot, no password of a camera."""
    heard = None if config.audio is None else without_password(config.audio)
    return as_dict(config) | {
        "robot": config.robot.partition("?")[0],
        "source": without_password(config.source),
        "audio": heard,
    }


def _warm_up(engine: Engine) -> None:
    """A few steps on nothing, so that the first live tick is like the others."""
    spec, state = engine.manifest.spec, engine.init_state()
    blank = {
        "frame_u8": np.zeros((spec.crop_px, spec.crop_px, 3), np.uint8),
        "audio": np.zeros(spec.audio_window_samples, np.float32),
        "present": np.zeros(2, np.float32),
    }
    for _ in range(10):
        _, state = engine.step(blank, state)
