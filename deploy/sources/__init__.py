"""Where pictures and sound come from: packets stamped with the loop's monotonic clock."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Packet:
    """What is known of one 30 Hz frame once it has ended."""

    frame: int
    captured_at_s: float
    """When the frame ended, on the loop's clock."""
    picture: NDArray[np.uint8] | None
    """[H, W, 3] RGB; None when the camera gave nothing."""
    audio: NDArray[np.float32]
    """[800] the samples that end with the frame, zeros where there are none."""


class Source(Protocol):
    """A stream of packets."""

    name: str

    def start(self, at_s: float) -> None:
        """Begin: frame 0 starts at `at_s`."""
        ...

    def due_s(self, frame: int) -> float:
        """When `frame` will have ended."""
        ...

    def read(self, frame: int) -> Packet | None:
        """The packet of `frame`, skipping earlier ones; None at the end."""
        ...

    def close(self) -> None:
        """Release devices and threads."""
        ...
