"""What the speaker does: a semi-Markov script of phrases, pauses, laughs and gestures, as a list of events.

Every event carries `onset`, when it begins, and `known_at`, the first frame whose past reveals it to a watcher; a
causal predictor can use it from then on. Frames are 30 Hz.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dyad.action_units import SEED17
from dyad.clock import FPS, samples_until
from dyad.synthetic.voice import PHRASES, Voice

KINDS = (
    "smile",
    "laugh",
    "pause_low",
    "pause",
    "pitch_rise",
    "brow_raise",
    "frown",
    "funny",
    "sad",
    "surprising",
    "gross",
    "scary",
    "thoughtful",
    "question",
    "long_turn",
)
"""Everything that a listener may react to."""

EXPRESSION: dict[str, dict[str, float]] = {
    "smile": {"AU12": 0.85, "AU6": 0.5},
    "laugh": {"AU12": 1.0, "AU6": 0.9, "AU25": 0.8, "AU26": 0.4},
    "brow_raise": {"AU1": 0.8, "AU2": 0.9},
    "frown": {"AU4": 0.9, "AU7": 0.5},
    "funny": {"AU12": 0.7, "AU6": 0.6, "AU14": 0.3},
    "sad": {"AU1": 0.8, "AU4": 0.5, "AU15": 0.9, "AU17": 0.7},
    "surprising": {"AU1": 0.9, "AU2": 0.9, "AU5": 0.9, "AU25": 0.6, "AU26": 0.5},
    "gross": {"AU9": 0.95, "AU10": 0.9, "AU4": 0.4},
    "scary": {"AU1": 0.6, "AU4": 0.5, "AU5": 0.9, "AU20": 0.95},
    "thoughtful": {"AU4": 0.3, "AU7": 0.8, "AU23": 0.9, "AU14": 0.8},
    "question": {"AU1": 0.4, "AU2": 0.6, "AU18": 0.9},
}
"""What each event looks like on the speaker's face, unit → intensity."""

SEMANTIC = ("funny", "sad", "surprising", "gross", "scary", "thoughtful", "question")
KNOWN_AFTER_S = {"smile": 0.2, "laugh": 0.27, "pause_low": 0.2, "pause": 0.2, "pitch_rise": 0.17, "long_turn": 0.2}
"""How long after its onset an event shows; the others take 0.25 s."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that the speaker did; frames at 30 Hz, `amplitude` in [0, 1.2]."""

    kind: str
    onset: int
    known_at: int
    hold_frames: int
    amplitude: float


@dataclass
class Script:
    """A whole session of a speaker: sound [S] at 16 kHz, drawn action units [T, 17] in [0, 1], pose and events."""

    n_frames: int
    sound: NDArray[np.float32]
    speaker_au: NDArray[np.float32]
    pose: NDArray[np.float32]
    """[T, 6]: yaw, pitch, roll (radians), gaze x, gaze y (-1…1), eyelid closure (0…1)."""
    events: list[Event] = field(default_factory=list)


@dataclass(frozen=True)
class Manner:
    """How a speaker talks: rates per minute and topic weights."""

    smiles_per_min: float
    brows_per_min: float
    topics: NDArray[np.float64]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Manner":
        """A random manner."""
        return cls(rng.uniform(2, 6), rng.uniform(3, 8), rng.dirichlet(np.full(len(SEMANTIC), 2.5)))


def envelope(
    n_frames: int, start: float, attack: float, hold: float, release: float
) -> tuple[slice, NDArray[np.float32]]:
    """Smooth rise, plateau and fall (lengths in frames), as a slice of the session and its values in [0, 1]."""
    first, last = max(int(start), 0), min(int(start + attack + hold + release) + 1, n_frames)
    t = np.arange(first, max(last, first)) - start
    up = np.clip(t / max(attack, 1e-6), 0, 1)
    down = np.clip((attack + hold + release - t) / max(release, 1e-6), 0, 1)
    level = np.minimum(up, down)
    return slice(first, max(last, first)), (level * level * (3 - 2 * level)).astype(np.float32)


class _Writer:
    """Collects events and their looks while the script is written."""

    def __init__(self, n_frames: int, rng: np.random.Generator) -> None:
        self.n_frames, self.rng = n_frames, rng
        self.au = np.zeros((n_frames, len(SEED17.units)), np.float32)
        self.events: list[Event] = []

    def add(self, kind: str, onset: float, hold_s: float, amplitude: float) -> None:
        frame = int(onset)
        if frame >= self.n_frames:
            return
        known = frame + round(KNOWN_AFTER_S.get(kind, 0.25) * FPS)
        self.events.append(
            Event(kind=kind, onset=frame, known_at=known, hold_frames=round(hold_s * FPS), amplitude=amplitude)
        )
        rise, fall = self.rng.uniform(0.12, 0.25) * FPS, self.rng.uniform(0.25, 0.6) * FPS
        span, level = envelope(self.n_frames, onset, rise, hold_s * FPS, fall)
        for unit, intensity in EXPRESSION.get(kind, {}).items():
            column = self.au[span, SEED17.index(unit)]
            np.maximum(column, np.clip(intensity * amplitude, 0, 1) * level, out=column)


def write_script(n_frames: int, voice: Voice, rng: np.random.Generator) -> Script:
    """Write a session of `n_frames`: the same `rng` state and voice give the same script."""
    manner, page = Manner.draw(rng), _Writer(n_frames, rng)
    sound = np.zeros(samples_until(n_frames), np.float32)
    at = rng.uniform(0.2, 0.8) * FPS
    speaking_s = 0.0
    while at < n_frames:
        topic = str(rng.choice(SEMANTIC, p=manner.topics)) if rng.random() < 0.55 else "neutral"
        ending = "rise" if topic == "question" else str(rng.choice(("low", "flat", "rise"), p=(0.5, 0.3, 0.2)))
        phrase = voice.say(str(rng.choice(PHRASES[topic])), ending)
        length = len(phrase) / 16000 * FPS
        _place(sound, phrase, at)
        if topic != "neutral":
            page.add(topic, at + rng.uniform(0.25, 0.5) * length, rng.uniform(0.8, 1.8), rng.uniform(0.75, 1.1))
        if ending == "rise":
            page.add("pitch_rise", at + 0.72 * length, 0.3, 1.0)
        at += length
        speaking_s += length / FPS
        if topic == "funny" and rng.random() < 0.6:
            at = _laugh(page, sound, voice, at, rng)
        at = _pause(page, at, ending, speaking_s, rng)
        if rng.random() < 0.5:
            speaking_s = 0.0
    _gestures(page, manner, rng)
    _speak_with_the_mouth(page.au, sound)
    events = sorted(page.events, key=lambda e: (e.onset, e.kind))
    return Script(n_frames, sound, page.au, _movement(n_frames, rng), events)


def _place(sound: NDArray[np.float32], piece: NDArray[np.float32], at_frame: float) -> None:
    start = int(at_frame / FPS * 16000)
    room = max(len(sound) - start, 0)
    sound[start : start + len(piece)] += piece[:room]


def _laugh(page: _Writer, sound: NDArray[np.float32], voice: Voice, at: float, rng: np.random.Generator) -> float:
    burst = voice.laugh(int(rng.integers(4, 9)), rng)
    page.add("laugh", at, len(burst) / 16000, rng.uniform(0.85, 1.1))
    _place(sound, burst, at)
    return at + len(burst) / 16000 * FPS


def _pause(page: _Writer, at: float, ending: str, speaking_s: float, rng: np.random.Generator) -> float:
    """A silence; after low pitch it invites a backchannel, after a long turn even more."""
    pause_s = float(np.clip(rng.lognormal(np.log(0.75), 0.45), 0.3, 2.5))
    page.add("pause_low" if ending == "low" else "pause", at, pause_s, 1.0)
    if speaking_s > 7.0:
        page.add("long_turn", at, pause_s, 1.0)
    return at + pause_s * FPS


def _gestures(page: _Writer, manner: Manner, rng: np.random.Generator) -> None:
    """Smiles, raised brows and frowns, scattered over the session."""
    minutes = page.n_frames / FPS / 60
    for kind, rate in (
        ("smile", manner.smiles_per_min),
        ("brow_raise", manner.brows_per_min),
        ("frown", 0.6 * manner.brows_per_min),
    ):
        for onset in np.sort(rng.uniform(0, page.n_frames, rng.poisson(rate * minutes))):
            hold_s = rng.uniform(0.9, 2.2) if kind == "smile" else rng.uniform(0.35, 0.9)
            page.add(kind, float(onset), hold_s, rng.uniform(0.7, 1.1))


def _speak_with_the_mouth(au: NDArray[np.float32], sound: NDArray[np.float32]) -> None:
    """Lips part and the jaw drops with the voice."""
    ends = np.array([samples_until(t + 1) for t in range(len(au))])
    power = np.concatenate([[0.0], np.cumsum(sound.astype(np.float64) ** 2)])
    loud = np.sqrt((power[ends] - power[np.maximum(ends - 800, 0)]) / 800)
    opening = np.clip(loud / 0.12, 0, 1).astype(np.float32)
    for unit, gain in (("AU25", 0.9), ("AU26", 0.55)):
        column = au[:, SEED17.index(unit)]
        np.maximum(column, gain * opening, out=column)


def _movement(n_frames: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Head pose, gaze and blinks: slow wandering, glances away, a blink every few seconds."""
    pose = np.zeros((n_frames, 6), np.float32)
    t = np.arange(n_frames) / FPS
    for column, size in ((0, 0.12), (1, 0.07), (2, 0.05)):
        for _ in range(3):
            pose[:, column] += size / 2 * np.sin(2 * np.pi * rng.uniform(0.04, 0.4) * t + rng.uniform(0, 6.3))
    for onset in np.sort(rng.uniform(0, n_frames, rng.poisson(n_frames / FPS / 6))):
        span, level = envelope(n_frames, onset, 2, rng.uniform(8, 30), 3)
        pose[span, 3] += rng.uniform(-0.9, 0.9) * level
        pose[span, 4] += rng.uniform(-0.5, 0.5) * level
    for onset in np.sort(rng.uniform(0, n_frames, rng.poisson(n_frames / FPS / 3.5))):
        span, level = envelope(n_frames, onset, 2, 1, 3)
        pose[span, 5] = np.maximum(pose[span, 5], level)
    return pose
