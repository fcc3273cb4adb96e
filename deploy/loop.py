"""The loop: thirty times a second, what was seen and heard becomes where the motors go.

    source → face → features → student → motion → robot

A tick that comes too late is skipped and counted, never queued. An output that is not finite or outside [0, 1] is
refused whole, and the last safe pose held. Time comes from the clock handed in.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.engines import Engine
from deploy.motion.latency import DelayEstimator, at_look_ahead
from deploy.motion.limits import Limiter
from deploy.motion.smooth import OneEuro
from deploy.plan import AUPlan, is_safe
from deploy.robots import Robot
from deploy.sources import Packet, Source
from deploy.timing import StageTimes
from dyad.action_units import SEED17, positions
from dyad.clock import FRAME_S, Clock
from student.frontend import Frontend


@dataclass
class Trace:
    """What happened, tick by tick; everything the report and the video need."""

    frames: list[int] = field(default_factory=list)
    prob: list[NDArray[np.float32]] = field(default_factory=list)
    sent: list[NDArray[np.float32]] = field(default_factory=list)
    moved_at_s: list[float] = field(default_factory=list)
    """When each row of `sent` was decided, on the loop's clock."""
    joints: list[NDArray[np.float64]] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float] | None] = field(default_factory=list)
    look_ahead_s: list[float] = field(default_factory=list)
    capture_to_send_s: list[float] = field(default_factory=list)
    missed_ticks: int = 0
    """Frames skipped because their time had passed."""
    late_ticks: int = 0
    """Ticks that ended after the next one was due."""
    refused_frames: int = 0


class Loop:
    """One run over a source."""

    def __init__(self, engine: Engine, robot: Robot, clock: Clock) -> None:
        self.engine, self.robot, self.clock = engine, robot, clock
        spec, limits = engine.manifest.spec, robot.calibration
        self.front = Frontend(spec)
        self.horizons = np.array(spec.horizons, float)
        self.delay = DelayEstimator(limits.dead_time_s + 2 * limits.time_constant_s, float(self.horizons[-1]) * FRAME_S)
        self.smooth = OneEuro()
        self.limiter = Limiter(len(spec.au_names), limits.velocity_per_s, limits.acceleration_per_s2)
        self.times, self.trace = StageTimes(), Trace()
        self._state = engine.init_state()
        self._goal = np.zeros(len(spec.au_names), np.float32)
        self._src, self._dst = positions(spec.au_names, SEED17.units)  # robots are told the seventeen, by name
        self._seq = 0
        self._moved_at_s: float | None = None

    def run(self, source: Source) -> Trace:
        """Follow the source to its end."""
        source.start(self.clock.now_s() + FRAME_S)
        frame = 0
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
            self.times.add("total", 1000 * (self.clock.now_s() - began_s))
            frame = packet.frame + 1
            self.trace.late_ticks += self.clock.now_s() > source.due_s(frame)

    def tick(self, packet: Packet) -> None:
        """One frame from senses to motors."""
        with self.times.stage("face"):
            box, found = self.front.look(packet.picture)
        with self.times.stage("features"):
            seen = self.front.pack(packet.picture, box, packet.audio)
        with self.times.stage("student"):
            prob = self._think({"frame_u8": seen.frame, "audio": seen.audio, "present": seen.present})
        with self.times.stage("motion"):
            au, ahead_s = self._move(prob, packet)
        with self.times.stage("send"):
            self._send(au, packet, ahead_s, found)
        self.trace.frames.append(packet.frame)
        self.trace.boxes.append(box)
        self.trace.prob.append(at_look_ahead(prob, self.horizons, ahead_s) if prob is not None else self._goal)
        self.trace.look_ahead_s.append(ahead_s)

    def _think(self, inputs: dict[str, Any]) -> NDArray[np.float32] | None:
        """Probabilities [H, A] of the plan; None when the engine's answer is refused."""
        logits, state = self.engine.step(inputs, self._state)
        with np.errstate(over="ignore"):
            prob = (1 / (1 + np.exp(-logits[..., 0]))).astype(np.float32)
        if not is_safe(prob) or not all(np.isfinite(x).all() for x in (logits, *state.values())):
            self.trace.refused_frames += 1
            self._state = self.engine.init_state()  # a poisoned memory would refuse every frame to come
            return None
        self._state = state
        return prob

    def _move(self, prob: NDArray[np.float32] | None, packet: Packet) -> tuple[NDArray[np.float32], float]:
        """Intensities [A] to command now, and the look-ahead they are for."""
        waited_s = self.clock.now_s() - packet.captured_at_s
        ahead_s = self.delay.update(max(waited_s, 0.0), FRAME_S)
        if prob is not None:
            wanted = self.robot.calibration.intensity(at_look_ahead(prob, self.horizons, ahead_s))
            self._goal = self.smooth.step(wanted, FRAME_S)
        now_s = self.clock.now_s()  # after a late tick the next comes soon: limits hold in seconds, not in ticks
        dt_s = FRAME_S if self._moved_at_s is None else min(max(now_s - self._moved_at_s, 1e-4), FRAME_S)
        self._moved_at_s = now_s
        return self.limiter.step(self._goal, dt_s), ahead_s

    def _send(self, au: NDArray[np.float32], packet: Packet, ahead_s: float, found: bool) -> None:
        now_s = self.clock.now_s()
        told = np.zeros(len(SEED17.units), np.float32)
        told[self._dst] = au[self._src]
        plan = AUPlan(
            seq=self._seq,
            captured_at_s=packet.captured_at_s,
            target_times_s=np.array([packet.captured_at_s + ahead_s]),
            au=told[None],
            confidence=np.full((1, len(told)), float(found), np.float32),
            flags=() if found else ("no_face",),
        )
        self._seq += 1
        sent = self.robot.send(plan, now_s)
        self.trace.sent.append(sent.au[0])
        self.trace.moved_at_s.append(self._moved_at_s or now_s)
        self.trace.capture_to_send_s.append(now_s - packet.captured_at_s)
        feedback = self.robot.feedback(now_s)
        if feedback is not None:
            self.trace.joints.append(feedback.joints)
            self.delay.watch(feedback.commanded, feedback.shares)
