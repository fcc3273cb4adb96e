"""Give the robot a listener's face: watch and hear a speaker, and move the face in time.

    python -m deploy.run --robot
    python -m deploy.run --robot --source camera:0 --audio mic:default
    python -m deploy.run --robot tcp://192.168.1.20:7030 --token-file token --source rtsp://192.168.1.30/live

With nothing else said: the packaged student, the packaged clip and the simulated head, in real time; a timing table at
the end and a side-by-side video in out/run.mp4. Ctrl-C, SIGTERM and any fault send the face home first.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from deploy.faces.config import FacesConfig
from deploy.motion.config import MotionConfig
from dyad.config import parse, run_main

ASSETS = Path(__file__).resolve().parent / "assets"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Robot, engine and source; all have embedded defaults."""

    robot: str = "sim"
    """A file in deploy/robots, with an address where it has one (osc:127.0.0.1:39539), or tcp://HOST:PORT of a
    python -m deploy.controller; --robot alone means the simulated head."""
    calibration: Path | None = None
    """Calibration file of the robot; default configs/robots/<robot>.yaml."""
    engine: Path = ASSETS / "engine"
    """Engine folder of python -m deploy.build_engine."""
    source: str = str(ASSETS / "clip.mp4")
    """Where the pictures come from: a video file replayed as if live, camera:0, rtsp://…, webrtc or furhat://HOST."""
    audio: str | None = None
    """Where the sound comes from, when not from the source: a sound file, mic:default, or none."""
    save: Path = Path("out/run.mp4")
    """Side-by-side video."""
    video: bool = True
    """Write the video where there is one to write (a file on the simulated head); --no-video skips it."""
    report: Path | None = None
    """JSON report."""
    seconds: float | None = None
    """Stop after so many seconds of the source."""
    http: str | None = None
    """Serve /healthz, /metrics and POST /estop on this HOST:PORT, such as 127.0.0.1:7031."""
    http_token_file: Path | None = None
    """Secret for an --http beyond this machine, which travels unencrypted; RAPPORT_HTTP_TOKEN does as well."""
    token_file: Path | None = None
    """Secret for a controller beyond this machine; RAPPORT_TOKEN does as well."""
    black_box: Path = Path("out/blackbox")
    """Folder for the last minute before a fault."""
    faces: FacesConfig = field(default_factory=FacesConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot run, before any device is touched."""
        if self.seconds is not None and self.seconds <= 0:
            raise ValueError(f"seconds must be positive, got {self.seconds}")


def with_bare_robot(arguments: list[str]) -> list[str]:
    """`--robot` without a name means the simulated head."""
    out: list[str] = []
    for i, argument in enumerate(arguments):
        out.append(argument)
        if argument == "--robot" and (i + 1 == len(arguments) or arguments[i + 1].startswith("-")):
            out.append("sim")
    return out


def main(argv: list[str] | None = None) -> int:
    """Parse, open, follow the speaker, bring the face home, report."""
    arguments = with_bare_robot(sys.argv[1:] if argv is None else argv)
    config = parse(Config, arguments, prog="python -m deploy.run", description=(__doc__ or "").splitlines()[0])
    from deploy import engines
    from deploy.run_session import RunSession
    from deploy.sources import open_source
    from dyad.clock import FPS, MonotonicClock

    clock = MonotonicClock()
    engine = engines.load(config.engine)
    max_frames = None if config.seconds is None else round(config.seconds * FPS)
    source = open_source(config.source, config.audio, engine.manifest.spec, clock, max_frames)
    try:
        session = RunSession(config, engine, source, clock)
    except BaseException:
        source.close()
        raise
    return session.run()


if __name__ == "__main__":
    run_main(main)
