"""How the teacher's windows are cut; apart from the cutting, so that the command line can read it at once."""

from dataclasses import dataclass

from dyad import clock


@dataclass(frozen=True, kw_only=True)
class WindowSpec:
    """How a window is cut: its length (frames at 30 Hz), pictures per second, picture side in pixels."""

    frames: int = 300
    video_fps: int = 5
    size_px: int = 112

    def __post_init__(self) -> None:
        """Refuse windows that the model's grid cannot hold."""
        if self.frames % clock.FPS or clock.FPS % self.video_fps or (self.pictures % 2):
            raise ValueError(
                f"a window wants whole seconds, a picture rate that divides {clock.FPS} and an even picture count; "
                f"got {self.frames} frames at {self.video_fps} pictures per second"
            )
        if self.size_px % 28:
            raise ValueError(f"size_px must be a multiple of 28 (patch 14, merge 2), got {self.size_px}")

    @property
    def pictures(self) -> int:
        """Pictures in a window."""
        return self.frames * self.video_fps // clock.FPS

    @property
    def samples(self) -> int:
        """Samples in a window."""
        return clock.samples_until(self.frames)
