"""Who is speaking: whose mouth moves when there is a voice, and rests when there is none.

Two clues. How much of all the mouths' motion during voice is this one's; and how well its motion follows
the loudness over the last seconds, which alone tells two people apart who both move their mouths. The robot turns to
somebody only when they lead for a while. Causal; the mouth runs ahead of the sound and is compared with later sound.
Learned detectors of active speakers need weights and seconds of context (Tao et al., "TalkNet", 2021), this neither.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.faces.flow import Grey
from dyad.clock import FPS

MOUTH = (0.25, 0.75, 0.62, 0.98)
"""Left, right, top, bottom of what is watched, in shares of the face box; the control region lies above it."""
CONTROL = (0.2, 0.8, 0.2, 0.6)
PATCH = (32, 20)
QUIET_DB, RANGE_DB = -60.0, 40.0
SURE_S = 1.0
"""A person watched for less has less of a say."""
VOICED = 0.2
"""Least voice activity of late for the robot to turn to anybody."""
Changes = tuple[float, float]
"""How much a mouth and the region above it changed since the last picture."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What the clues count, and over which time."""

    agreement: float = 0.5
    """Share of the score that comes from following the loudness; the rest from moving while there is a voice."""
    control: float = 0.5
    """How much of the control region's motion is taken off: light, noise and the head's own motion."""
    smooth_s: float = 0.2
    """Over which a mouth's motion is averaged."""
    memory_s: float = 2.5
    """Over which the clues are."""
    lead_frames: int = 2
    """How far the mouth runs ahead of the sound."""


@dataclass(frozen=True)
class Clues:
    """What one frame brought: voice activity, loudness in dB, and each mouth's changes, None for one just seen."""

    voice: float = 0.0
    level_db: float = QUIET_DB
    mouths: Mapping[int, Changes | None] = field(default_factory=dict)


def patch(grey: Grey, box: NDArray[np.float64], part: tuple[float, float, float, float]) -> NDArray[np.float32]:
    """Part of a face box as an image of fixed size [20, 32] without its mean; sub-pixel exact."""
    left, right, top, bottom = part
    width = max(float(box[2] - box[0]), 1.0)
    kx, ky = PATCH[0] / ((right - left) * width), PATCH[1] / ((bottom - top) * width)
    move = np.array([[kx, 0, -(box[0] + left * width) * kx], [0, ky, -(box[1] + top * width) * ky]])
    cut = cv2.warpAffine(grey, move, PATCH, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    values = np.asarray(cut, np.float32)
    return values - values.mean()


def change(before: NDArray[np.float32], now: NDArray[np.float32]) -> float:
    """Mean change between two patches, in units of their contrast."""
    return float(np.abs(now - before).mean() / (now.std() + 5))


class Mean:
    """Exponential mean over `memory_s`, unbiased from the first value on."""

    def __init__(self, memory_s: float) -> None:
        self._share = 1 / (memory_s * FPS + 1)
        self._sum, self._weight = 0.0, 0.0

    def step(self, value: float) -> float:
        """The mean after the next frame's value."""
        self._sum += self._share * (value - self._sum)
        self._weight += self._share * (1 - self._weight)
        return self.value

    @property
    def value(self) -> float:
        """The mean so far; 0 before any value."""
        return self._sum / self._weight if self._weight else 0.0


class Mouth:
    """One person's mouth over time."""

    def __init__(self, weights: Weights) -> None:
        self._control = weights.control
        self._patches: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self._smooth = Mean(weights.smooth_s)
        self._late = deque([0.0] * (weights.lead_frames + 1), maxlen=weights.lead_frames + 1)
        self._voiced = Mean(weights.memory_s)
        self._means = {name: Mean(weights.memory_s) for name in ("m", "l", "mm", "ll", "ml")}
        self._frames = 0

    def look(self, grey: Grey, box: NDArray[np.float64]) -> Changes | None:
        """What has changed in the next picture, at the detector's scale; None in the first.

        The box must have moved with the face since the last picture, and not otherwise.
        """
        before, self._patches = self._patches, (patch(grey, box, MOUTH), patch(grey, box, CONTROL))
        if before is None:
            return None
        return change(before[0], self._patches[0]), change(before[1], self._patches[1])

    def take(self, changes: Changes, voice: float, loudness: float) -> None:
        """Those changes while `voice` is heard at `loudness`."""
        motion = self._smooth.step(max(changes[0] - self._control * changes[1], 0.0))
        self._voiced.step(motion * voice)
        self._late.append(motion)
        self._correlate(self._late[0], loudness)
        self._frames += 1

    def settle(self, grey: Grey, box: NDArray[np.float64]) -> None:
        """The box was corrected in the picture just looked at: the next one is compared with what is in it now."""
        self._patches = (patch(grey, box, MOUTH), patch(grey, box, CONTROL))

    def _correlate(self, m: float, l: float) -> None:  # noqa: E741
        for name, value in (("m", m), ("l", l), ("mm", m * m), ("ll", l * l), ("ml", m * l)):
            self._means[name].step(value)

    @property
    def voiced_motion(self) -> float:
        """Motion during voice, over the last seconds."""
        return self._voiced.value

    @property
    def agreement(self) -> float:
        """Correlation of motion and loudness over the last seconds, 0 until there is enough to tell."""
        m, l, mm, ll, ml = (self._means[n].value for n in ("m", "l", "mm", "ll", "ml"))  # noqa: E741
        spread = np.sqrt(max(mm - m * m, 1e-5) * max(ll - l * l, 1e-3))
        return float(np.clip((ml - m * l) / spread, -1, 1)) * min(1.0, self._frames / (SURE_S * FPS))


class SpeakerChoice:
    """Scores everybody in view and turns to another person only after they have led for `switch_s`."""

    def __init__(self, switch_s: float, margin: float, weights: Weights | None = None) -> None:
        self._switch_frames, self._margin = round(switch_s * FPS), margin
        self._weights = weights or Weights()
        self._mouths: dict[int, Mouth] = {}
        self._voice, self._loud = Mean(0.05), Mean(0.1)
        self._heard = Mean(0.5)
        self._leader: int | None = None
        self._led_frames = 0
        self.clues = Clues()
        """Of the last frame, for whoever wants to weigh them otherwise."""

    def hear(self, voice: float, level_db: float) -> None:
        """The next frame's sound: voice activity [0, 1] and loudness in dB."""
        self._voice.step(voice)
        self._heard.step(voice)
        self._loud.step(voice * min(max((level_db - QUIET_DB) / RANGE_DB, 0.0), 1.0))
        self.clues = Clues(voice, level_db)

    def watch(self, grey: Grey, boxes: dict[int, NDArray[np.float64]]) -> None:
        """The next picture, and where each person's face is in it; who is not there is forgotten."""
        self._mouths = {n: self._mouths.get(n) or Mouth(self._weights) for n in boxes}
        self.weigh({n: self._mouths[n].look(grey, box) for n, box in boxes.items()})

    def weigh(self, mouths: Mapping[int, Changes | None]) -> None:
        """The same once it is known what has changed; who is not there is forgotten."""
        self.clues = Clues(self.clues.voice, self.clues.level_db, mouths)
        self._mouths = {n: self._mouths.get(n) or Mouth(self._weights) for n in mouths}
        for number, changes in mouths.items():
            if changes is not None:
                self._mouths[number].take(changes, self._voice.value, self._loud.value)

    def settle(self, grey: Grey, boxes: dict[int, NDArray[np.float64]]) -> None:
        """Boxes that a detection has corrected in the picture just watched."""
        for number, box in boxes.items():
            if number in self._mouths:
                self._mouths[number].settle(grey, box)

    def forget(self) -> None:
        """Nothing seen so far compares with what comes: another shot."""
        self._mouths.clear()
        self._leader, self._led_frames = None, 0

    def scores(self) -> dict[int, float]:
        """Person → score, about 0…1."""
        total = sum(m.voiced_motion for m in self._mouths.values()) + 1e-3
        share = self._weights.agreement
        return {n: (1 - share) * m.voiced_motion / total + share * m.agreement for n, m in self._mouths.items()}

    def choose(self, watched: int) -> int:
        """The person to watch from now on, given whom the robot watches; called once per frame."""
        scores = self.scores()
        best = max(scores, key=lambda n: scores[n], default=watched)
        ahead = best != watched and scores[best] > scores.get(watched, 0.0) + self._margin
        if not ahead or self._heard.value < VOICED:
            self._leader, self._led_frames = None, 0
            return watched
        self._led_frames = self._led_frames + 1 if best == self._leader else 1
        self._leader = best
        if self._led_frames < self._switch_frames:
            return watched
        self._leader, self._led_frames = None, 0
        return best
