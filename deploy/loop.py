"""The loop: thirty times a second, what was seen and heard becomes the listener's face for the next quarter second.

    source → face → features → student → plan ─▶ link ─▶ controller (deploy.motion) → robot

A tick that comes too late is skipped and counted, never queued. An output that is not finite or outside [0, 1] is
refused whole: no plan is sent, and the controller rides on with the last one. Silence on purpose is announced, so that
any other counts as a fault. Time comes from the clock handed in.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.engines import Engine
from deploy.faces.watcher import Watched, Watcher
from deploy.link import Link
from deploy.plan import AUPlan, is_safe
from deploy.sources import Packet, Source
from deploy.timing import StageTimes
from dyad.action_units import SEED17, positions
from dyad.clock import FPS, FRAME_S, Clock
from student.face import Box
from student.frontend import Frontend

KEEP_FRAMES = 60 * FPS
IDLE_FRAMES = 2 * FPS
"""With nobody seen and nothing heard for so long no plan is sent, and the controller brings the face to neutral."""


@dataclass(frozen=True)
class Tick:
    """One frame, as it went through the loop."""

    frame: int
    captured_at_s: float
    delivered_at_s: float
    """When its plan was handed over, on the loop's clock."""
    plan: AUPlan | None
    """What was handed over; the last one where this frame's answer was refused or nobody was there, None before any."""
    box: Box | None
    flags: tuple[str, ...]


@dataclass
class Trace:
    """What happened: the newest ticks, and counts over the whole run."""

    ticks: deque[Tick] = field(default_factory=lambda: deque(maxlen=KEEP_FRAMES))
    played: int = 0
    """Ticks since the start."""
    faces: int = 0
    """Ticks with a face."""
    missed_ticks: int = 0
    """Frames skipped because their time had passed."""
    late_ticks: int = 0
    """Ticks that ended after the next one was due."""
    refused_frames: int = 0
    """Answers of the engine that were not finite or out of range."""


class Loop:
    """One run over a source; keeps the newest `keep_frames` ticks."""

    def __init__(
        self,
        engine: Engine,
        link: Link,
        clock: Clock,
        *,
        watcher: Watcher | None = None,
        times: StageTimes | None = None,
        keep_frames: int = KEEP_FRAMES,
    ) -> None:
        self.engine, self.link, self.clock = engine, link, clock
        self.watcher = watcher or Watcher()
        self.times, self.trace = times or StageTimes(), Trace(deque(maxlen=keep_frames))
        self._spec = engine.manifest.spec
        self._front = Frontend(self._spec)
        self._ahead_s = (np.array(self._spec.horizons, float) - 0.5) * FRAME_S  # from frame t's end to t + h's middle
        self._state = engine.init_state()
        self._src, self._dst = positions(self._spec.au_names, SEED17.units)  # robots are told the seventeen, by name
        self._plan: AUPlan | None = None
        self._seq = self._idle_frames = 0
        self._refusing = False
        self._ticked_s: float | None = None

    @property
    def silent_s(self) -> float | None:
        """Since the last tick ended; None while it follows no source. Any thread."""
        ticked_s = self._ticked_s
        return None if ticked_s is None else self.clock.now_s() - ticked_s

    def run(self, source: Source) -> Trace:
        """Follow the source to its end."""
        try:
            return self._follow(source)
        finally:
            self._ticked_s = None

    def _follow(self, source: Source) -> Trace:
        source.start(self.clock.now_s() + FRAME_S)
        self._ticked_s, frame = self.clock.now_s(), 0
        while True:
            late = self.clock.now_s() - source.due_s(frame)
            if late > FRAME_S:  # this frame's time has passed: go on with the present one
                skipped = int(late / FRAME_S)
                self.trace.missed_ticks += skipped
                frame += skipped
            self.clock.sleep_until(source.due_s(frame))
            began_s = self.clock.now_s()
            with self.times.stage("capture"):
                packet = source.read(frame)
            if packet is None:
                return self.trace
            self.tick(packet)
            self._ticked_s = self.clock.now_s()
            self.times.add("total", 1000 * (self._ticked_s - began_s))
            frame = packet.frame + 1
            self.trace.late_ticks += self.clock.now_s() > source.due_s(frame)

    def tick(self, packet: Packet) -> None:
        """One frame from senses to plan."""
        with self.times.stage("face"):
            seen = self.watcher.step(packet.picture, packet.audio)
        with self.times.stage("features"):
            inputs = self._front.pack(packet.picture, seen.box, packet.audio)
        with self.times.stage("student"):
            prob = self._think({"frame_u8": inputs.frame, "audio": inputs.audio, "present": inputs.present})
        self._idle_frames = 0 if inputs.present.any() else self._idle_frames + 1
        sent = prob is not None and self._idle_frames <= IDLE_FRAMES
        if prob is not None and sent:
            self._plan = self._planned(prob, packet, seen)
        elif prob is not None:
            self.link.rest("nobody to see or to hear")
        self.link.deliver(self._plan if sent else None)
        flags = (*packet.flags, *seen.flags)
        self.trace.ticks.append(
            Tick(packet.frame, packet.captured_at_s, self.clock.now_s(), self._plan, seen.box, flags)
        )
        self.trace.played += 1
        self.trace.faces += seen.found

    def _think(self, inputs: dict[str, Any]) -> NDArray[np.float32] | None:
        """Probabilities [H, A] of the plan; None when the engine's answer is refused."""
        logits, state = self.engine.step(inputs, self._state)
        with np.errstate(over="ignore"):
            prob = (1 / (1 + np.exp(-logits[..., 0]))).astype(np.float32)
        if not is_safe(prob) or not all(np.isfinite(x).all() for x in (logits, *state.values())):
            self.trace.refused_frames += 1
            if not self._refusing:  # one word for each row of them
                self.link.fault("an answer of the engine is not finite or out of range")
            self._refusing = True
            self._state = self.engine.init_state()  # a poisoned memory would refuse every frame to come
            return None
        self._state, self._refusing = state, False
        return prob

    def _planned(self, prob: NDArray[np.float32], packet: Packet, seen: Watched) -> AUPlan:
        """The plan [H, 17]; row h is the pose for the middle of frame t + h, as the student was taught."""
        told = np.zeros((len(prob), len(SEED17.units)), np.float32)
        told[:, self._dst] = prob[:, self._src]
        self._seq += 1
        return AUPlan(
            seq=self._seq,
            captured_at_s=packet.captured_at_s,
            target_times_s=packet.captured_at_s + self._ahead_s,
            au=told,
            confidence=np.full(told.shape, float(seen.found), np.float32),
            flags=(*packet.flags, *seen.flags),
        )
