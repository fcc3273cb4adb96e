"""Who runs the thinker: one file per back end, one interface.

A back end gives the narrow views of the media tokens; aligning them in time, the heads and the blending are the same
code for all, in `teacher.labeller`.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from teacher.heads import ReadOut
from teacher.layout import Layout
from teacher.window_spec import WindowSpec
from teacher.windows import SpeakerMedia


class Backend(Protocol):
    """A session's windows in, narrow views of their media tokens out."""

    spec: WindowSpec
    read_out: ReadOut
    layout: Layout

    def features(self, speaker: SpeakerMedia, at: Sequence[int]) -> NDArray[np.float32]:
        """Windows of a session that start at frames `at`, ascending → narrow views [B, M, P], in prompt order."""
        ...
