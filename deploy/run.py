"""Give the robot a listener's face: watch and hear a speaker, and move the face in time.

    python -m deploy.run --robot

With nothing else said: the packaged student, the packaged clip and the simulated head, in real time; a timing table at
the end and a side-by-side video in out/run.mp4.
"""

import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyad.config import as_dict, parse, run_main

ASSETS = Path(__file__).resolve().parent / "assets"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Robot, engine and source; all have embedded defaults."""

    robot: str = "sim"
    """Robot by name (a file in deploy/robots); --robot alone means the simulated head."""
    engine: Path = ASSETS / "engine"
    """Engine folder of python -m deploy.build_engine."""
    source: Path = ASSETS / "clip.mp4"
    """Video of the speaker, replayed as if live."""
    audio: Path | None = None
    """Sound file, when the video has no sound of its own."""
    save: Path = Path("out/run.mp4")
    """Side-by-side video."""
    video: bool = True
    """Write the video; --no-video skips it."""
    report: Path | None = None
    """JSON report."""
    seconds: float | None = None
    """Stop after so many seconds of the source."""

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


def _stop(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Parse, open, follow the speaker, report."""
    arguments = with_bare_robot(sys.argv[1:] if argv is None else argv)
    config = parse(Config, arguments, prog="python -m deploy.run", description=(__doc__ or "").splitlines()[0])
    from deploy import engines, report, robots, side_by_side
    from deploy.loop import Loop
    from deploy.sources.file import FileSource
    from dyad.action_units import SEED17
    from dyad.clock import FPS, MonotonicClock
    from dyad.provenance import write_json

    robot = robots.load(config.robot)
    engine = engines.load(config.engine)
    max_frames = None if config.seconds is None else round(config.seconds * FPS)
    source = FileSource(config.source, engine.manifest.spec, audio=config.audio, max_frames=max_frames)
    _warm_up(engine)
    shown = config.video and config.robot == "sim"
    for path in [config.save] * shown + ([config.report] if config.report else []):
        path.parent.mkdir(parents=True, exist_ok=True)  # an impossible place is refused before anything moves
    clock = MonotonicClock()
    loop = Loop(engine, robot, clock)
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        robot.open()
        try:
            if live := getattr(robot, "run_live", None):
                live()
            source.wait_until_ready()
            loop.run(source)
        finally:  # whatever happened: the face goes home before the process ends
            robot.neutral(clock.now_s())
    finally:
        source.close()
        robot.close()
        signal.signal(signal.SIGTERM, before)
    summary = report.summarise(loop, source.name, as_dict(config))
    report.print_table(summary)
    if source.note:
        print(source.note)
    if shown:
        side_by_side.write(config.save, config.source, source.sound, loop.trace, SEED17.units)
        print(f"video: {config.save}")
    if config.report is not None:
        write_json(config.report, summary)
        print(f"report: {config.report}")
    return 0


def _warm_up(engine: Any) -> None:
    """A few steps on nothing, so that the first live tick is like the others."""
    import numpy as np

    spec, state = engine.manifest.spec, engine.init_state()
    blank = {
        "frame_u8": np.zeros((spec.crop_px, spec.crop_px, 3), np.uint8),
        "audio": np.zeros(spec.audio_window_samples, np.float32),
        "present": np.zeros(2, np.float32),
    }
    for _ in range(10):
        _, state = engine.step(blank, state)


if __name__ == "__main__":
    run_main(main)
