"""Live senses on the 30 Hz grid: the nearest past picture and the sound up to each frame's end, joined by time.

Everything is stamped with the estimated time of capture (stamps.py), kept in short rings (rings.py), and read a little
after the frame's end, once it has had time to arrive: that lag follows the measured lateness (its 95th percentile) and
is told to the loop through `captured_at_s`, so that the look-ahead makes up for it. What is later still is waited for
`wait_s`, never more than 200 ms behind the frame's end; then the last picture is held, for a second at most, and
missing sound is zeros. A lost sense is flagged and counted; it never stops the stream.

Streams are joined by their clocks and not by dynamic time warping: warping aligns what happens now by what happens
afterwards, so it is not causal, and it would bend the very timing between speaker and listener that is to be learnt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.sources import Counts, Packet
from deploy.sources.capture import Device, Follower, Senses
from dyad import clock as time
from student.spec import StudentSpec

SLACK_S = 0.002
"""A picture that is this much older than a frame is still of the frame: cameras are not that exact."""
SLEW_S = 0.001
"""How much the lag may change from one frame to the next."""
SILENT_S = 0.5
"""A sense that has given nothing for so long is not waited for."""
POLL_S = 0.001
READY_S, READY_PICTURES = 4.0, 10
"""Before the start: so many pictures tell how late they come; no longer than this is waited for them."""


@dataclass(frozen=True, kw_only=True)
class Join:
    """How patient the join is."""

    wait_s: float = 0.010
    """How long after a frame is due its read may wait for what is late; 30 Hz leaves 33 ms for the whole tick."""
    behind_s: float = 0.200
    """How far behind a frame's end it may be read, lag and wait together."""
    hold_s: float = 1.0
    """How long the last picture stands in for new ones."""

    def __post_init__(self) -> None:
        """Refuse what would stall the loop."""
        if not 0 <= self.wait_s < time.FRAME_S:
            raise ValueError(f"wait_s must lie in [0, 0.033) s so that 30 Hz holds, got {self.wait_s}")
        if not self.wait_s <= self.behind_s <= 1 or self.hold_s < 0:
            raise ValueError(f"wanted wait_s ≤ behind_s ≤ 1 and hold_s ≥ 0, got {self.behind_s} and {self.hold_s}")


class LiveSource:
    """The packets of live devices; they are open when the constructor returns."""

    recording: Path | None = None

    def __init__(
        self,
        name: str,
        devices: Sequence[Device],
        spec: StudentSpec,
        clock: time.Clock,
        *,
        optional: Sequence[Device] = (),
        max_frames: int | None = None,
        join: Join | None = None,
    ) -> None:
        """`devices` must open, else MediaError names what does not; `optional` ones are tried again later."""
        self.name, self.senses = name, Senses(clock)
        self.sound: NDArray[np.float32] = np.zeros(0, np.float32)
        self._spec, self._clock, self._max, self._join = spec, clock, max_frames, join or Join()
        self._followers: list[Follower] = []
        try:
            for device in (*devices, *optional):
                self._followers.append(Follower(device, self.senses, required=device in devices))
        except ValueError:
            self.close()
            raise
        missing = [f"{f.trouble}; going on without sound" for f in self._followers if f.trouble]
        self.greeting = "\n".join([*(d.greeting for d in devices if d.greeting), *missing])
        self._start_s, self._lag_s = 0.0, 0.0
        self._picture: tuple[float, NDArray[np.uint8]] | None = None
        self._held = self._blind = self._deaf = 0

    def wait_until_ready(self) -> None:
        """Wait for the first pictures and sound, up to four seconds: how late they come sets the first lag."""
        until_s = self._clock.now_s() + READY_S
        while self._clock.now_s() < until_s and not self._is_ready():
            self._clock.sleep_until(self._clock.now_s() + 10 * POLL_S)

    def _is_ready(self) -> bool:
        open_devices = [f.device for f in self._followers if not f.trouble]
        sees, hears = any(d.sees for d in open_devices), any(d.hears for d in open_devices)
        heard = self.senses.sound.end is not None
        return (not sees or self.senses.pictures.received >= READY_PICTURES) and (not hears or heard)

    def start(self, at_s: float) -> None:
        """Frame 0 starts at `at_s`; counting starts here."""
        self._start_s, self._lag_s = at_s, self._wanted_lag_s()
        self.senses.pictures.restart()
        self.senses.sound.restart()
        self.senses.clock_jumps = self.senses.reconnects = 0

    def _wanted_lag_s(self) -> float:
        """Lateness of what is slower, picture or sound, among the senses that work."""
        senses, now_s = self.senses, self._clock.now_s()
        seen_s = senses.picture_late.seconds if now_s - senses.saw_at_s < SILENT_S else 0.0
        heard_s = senses.sound_late.seconds if now_s - senses.heard_at_s < SILENT_S else 0.0
        return min(max(seen_s, heard_s), self._join.behind_s - self._join.wait_s)

    def _end_s(self, frame: int) -> float:
        return self._start_s + (frame + 1) / time.FPS

    def due_s(self, frame: int) -> float:
        """When `frame` has ended and what belongs to it has had time to arrive."""
        return self._end_s(frame) + self._lag_s

    def read(self, frame: int) -> Packet | None:
        """What was seen and heard by the end of `frame`; waits `wait_s` past its due time at most."""
        if self._max is not None and frame >= self._max:
            return None
        end_s = self._end_s(frame)
        stop = int(self._start_s * time.SAMPLE_RATE_HZ) + time.audio_end(frame)
        self._wait(frame, stop)
        picture, seen = self._look(end_s)
        audio, number = self.senses.sound.window(stop, self._spec.audio_window_samples)
        heard = () if number == len(audio) else ("sound_gap",) if number else ("no_sound",)
        self._deaf += number == 0
        self._lag_s += float(np.clip(self._wanted_lag_s() - self._lag_s, -SLEW_S, SLEW_S))
        return Packet(frame, end_s, picture, audio, seen + heard)

    def _wait(self, frame: int, stop: int) -> None:
        end_s = self._end_s(frame)
        until_s = min(self.due_s(frame) + self._join.wait_s, end_s + self._join.behind_s)
        while (now_s := self._clock.now_s()) < until_s and self._is_awaited(end_s, stop, now_s):
            self._clock.sleep_until(min(now_s + POLL_S, until_s))

    def _is_awaited(self, end_s: float, stop: int, now_s: float) -> bool:
        """Whether a sense that works has not yet given what belongs to the frame."""
        senses = self.senses
        sound_end = senses.sound.end
        unseen = senses.pictures.newest_s < end_s - time.FRAME_S - SLACK_S
        unheard = sound_end is not None and sound_end < stop
        return (unseen and now_s - senses.saw_at_s < SILENT_S) or (unheard and now_s - senses.heard_at_s < SILENT_S)

    def _look(self, end_s: float) -> tuple[NDArray[np.uint8] | None, tuple[str, ...]]:
        """The nearest past picture and its flags."""
        new = self.senses.pictures.take(end_s)
        self._picture = new or self._picture
        if self._picture is None or end_s - self._picture[0] > self._join.hold_s:
            self._blind += 1
            return None, ("no_picture",)
        self._held += new is None
        return self._picture[1], () if new else ("held_picture",)

    @property
    def counts(self) -> Counts:
        """What was received and what was missing since `start`."""
        pictures = self.senses.pictures
        return Counts(
            pictures=pictures.received,
            pictures_held=self._held,
            pictures_dropped=pictures.dropped,
            pictures_duplicated=pictures.duplicated,
            frames_without_picture=self._blind,
            sound_gaps=self.senses.sound.gaps,
            frames_without_sound=self._deaf,
            clock_jumps=self.senses.clock_jumps,
            reconnects=self.senses.reconnects,
        )

    @property
    def note(self) -> str:
        """Which senses were missing at the end, and why; what was greeted with is not said twice."""
        return "\n".join(f.trouble for f in self._followers if f.trouble and f.trouble not in self.greeting)

    def close(self) -> None:
        """Stop the threads and release the devices."""
        for follower in self._followers:
            follower.stop()
        for follower in self._followers:
            follower.close()
