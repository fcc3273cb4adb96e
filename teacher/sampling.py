"""Which windows a step is tuned on, how long they are, and what they hold.

Windows with rare units come up more often: each gets a weight, 1 plus the summed rarity of the units active in it. All
windows of a step have one length, drawn from those that the picture grid can hold. Every draw depends on the seed and
its place in the run alone, so that a run that goes on equals one that never stopped, on one process or several.
Shapes: T frames of a window, H horizons, A units. What is not annotated, or lies past the end, is NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dyad import augment, clock
from dyad.augment import AugmentConfig
from dyad.session import Session
from teacher import timeline
from teacher.windows import SpeakerMedia, WindowSpec

Floats = NDArray[np.float32]
RAREST = 1e-3
"""Rarer units than this are not sought more."""


@dataclass(frozen=True)
class Dyad:
    """A session with its speaker's media, and the speaker's own units [T, A] where they are known."""

    session: Session
    speaker: SpeakerMedia
    speaker_au: Floats | None


@dataclass(frozen=True)
class Window:
    """Media of a window and its targets: `prob` and `act` [T, H, A] of frame t + h, `speaker_au` [T, A]."""

    pictures: NDArray[np.uint8]
    sound: Floats
    prob: Floats
    act: Floats
    speaker_au: Floats


def lengths(spec: WindowSpec, least_s: float) -> list[int]:
    """Frames of the window lengths from `least_s` to the full one that the model's grid can hold."""
    whole, grid = clock.FPS, timeline.FRAMES_PER_GRID
    fitting = [n for n in range(whole, spec.frames + 1, whole) if n * spec.video_fps // whole % grid == 0]
    return [n for n in fitting if n >= min(round(least_s * whole), spec.frames)]


def grid_frames(spec: WindowSpec) -> int:
    """Frames at 30 Hz of one temporal grid: windows begin on a multiple of it."""
    return timeline.FRAMES_PER_GRID * clock.FPS // spec.video_fps


def known_mean(values: Floats) -> Floats:
    """Mean over time [A] of [T, A] where it is annotated; 0 for a unit that never is."""
    known = ~np.isnan(values)
    return (np.nan_to_num(values).sum(axis=0, dtype=np.float64) / np.maximum(known.sum(axis=0), 1)).astype(np.float32)


def rarity(rates: Floats) -> NDArray[np.float64]:
    """How much rarer each unit [A] is than the most frequent one, on a log scale; 0 for one that is never active."""
    floor = np.maximum(rates.astype(np.float64), RAREST)
    return np.where(rates > 0, 0.2 * np.log(floor.max() / floor), 0.0)


class Sampler:
    """Draws (dyad, start frame) pairs and the length of a step's windows."""

    def __init__(self, dyads: Sequence[Dyad], spec: WindowSpec, least_s: float, strength: float, seed: int) -> None:
        """`strength` 0 draws all windows alike, 1 weighs them by rarity."""
        self.lengths, self._seed = lengths(spec, least_s), seed
        rare = strength * rarity(known_mean(np.concatenate([d.session.act for d in dyads])))
        self._windows = {n: [_starts(d, n, grid_frames(spec)) for d in dyads] for n in self.lengths}
        self._share: dict[int, NDArray[np.float64]] = {}
        for n, starts in self._windows.items():
            weights = [1 + _active(d.session.act, at, n) @ rare for d, at in zip(dyads, starts, strict=True)]
            self._share[n] = np.concatenate(weights) / sum(w.sum() for w in weights)

    def length(self, step: int) -> int:
        """Frames of all windows of a step."""
        return int(np.random.default_rng([self._seed, step, 0]).choice(self.lengths))

    def draw(self, step: int, part: int, count: int) -> list[tuple[int, int]]:
        """`count` windows (index of dyad, start frame) of a step's forward pass `part`."""
        n = self.length(step)
        owner = np.concatenate([np.full(len(at), i) for i, at in enumerate(self._windows[n])])
        start = np.concatenate(self._windows[n])
        picks = np.random.default_rng([self._seed, step, 1, part]).choice(len(start), count, p=self._share[n])
        return [(int(owner[k]), int(start[k])) for k in picks]


def _starts(dyad: Dyad, frames: int, grid: int) -> NDArray[np.int64]:
    """Starts on the grid of the windows inside a session; 0 for one that is shorter than a window."""
    return np.arange(0, max(min(dyad.speaker.n_frames, len(dyad.session.act)) - frames, 0) + 1, grid)


def _active(act: Floats, starts: NDArray[np.int64], frames: int) -> NDArray[np.bool_]:
    """Which units are active at all in the windows at `starts` [N, A]."""
    count = np.concatenate([np.zeros((1, act.shape[1])), np.nan_to_num(act).cumsum(axis=0)])
    return count[np.minimum(starts + frames, len(act))] - count[starts] > 0.5


def targets_at(values: Floats, times: NDArray[np.int64]) -> Floats:
    """Rows of `values` [T, A] at `times` of any shape; NaN past the session's end."""
    rows = values[np.minimum(times, len(values) - 1)]
    return np.where((times < len(values))[..., None], rows, np.float32(np.nan))


def cut_window(
    dyad: Dyad, start: int, spec: WindowSpec, horizons: int, config: AugmentConfig, rng: np.random.Generator
) -> Window:
    """The augmented window at frame `start`; a change of tempo moves pictures, sound and targets together."""
    rate = 1.0 + float(rng.uniform(-config.stretch, config.stretch)) if config.stretch else 1.0
    times = augment.source_times(start, spec.frames, horizons, rate)
    every = clock.FPS // spec.video_fps
    shown = np.minimum(times[: spec.frames : every] // every, len(dyad.speaker.pictures) - 1)
    pictures = augment.light(augment.move_picture(dyad.speaker.pictures[shown], rng, config), rng, config)
    sound = augment.stretch_sound(dyad.speaker.sound, clock.samples_until(start), spec.samples, rate)
    sound = augment.loudness(sound, rng, config)
    sight, hearing = augment.drop_senses(np.ones((1, 2), np.float32), rng, config)[0]
    future = times[np.arange(spec.frames)[:, None] + np.arange(horizons)]
    units = dyad.session.prob.shape[1]
    known = dyad.speaker_au if dyad.speaker_au is not None and sight else np.full((1, units), np.nan, np.float32)
    return Window(
        pictures if sight else np.full_like(pictures, 128),
        sound * np.float32(hearing),
        targets_at(dyad.session.prob, future),
        targets_at(dyad.session.act, future),
        targets_at(known, times[: spec.frames]),
    )


def mask_spectrum(mel: Floats, rng: np.random.Generator, bands: int, columns: int) -> None:
    """SpecAugment (Park et al., 2019) in place on log-mel [B, bands, columns]: one stripe of each kind per window.

    Stripes are at most `bands` and `columns` wide and take the window's mean.
    """
    for window in mel:
        mean = window.mean()
        for axis, widest in enumerate((bands, columns)):
            width = int(rng.integers(0, widest + 1))
            first = int(rng.integers(0, window.shape[axis] - width + 1))
            window[(slice(None),) * axis + (slice(first, first + width),)] = mean
