"""The speaker's voice: espeak-ng where it is installed, else a formant synthesiser of our own; and laughs.

Sound is mono float32 at 16 kHz, phrases at -22 dBFS. A phrase ends low, flat or rising: what a listener waits for.
"""

import io
import shutil
import subprocess
import wave
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dyad.clock import SAMPLE_RATE_HZ

Sound = NDArray[np.float32]
LEVEL = 10 ** (-22 / 20)
"""Root mean square of a phrase."""

PHRASES: dict[str, tuple[str, ...]] = {
    "neutral": (
        "so we went to the station in the morning",
        "and then I bought some bread and milk",
        "my sister lives near the old bridge",
        "the meeting was moved to next Tuesday",
        "we painted the kitchen over the weekend",
    ),
    "funny": (
        "and the dog ran off with the whole sandwich",
        "he wore two different shoes all day",
        "she waved back at a complete stranger",
    ),
    "sad": (
        "we had to say goodbye to her last week",
        "he never got to see the garden again",
        "I miss those evenings so much",
    ),
    "surprising": (
        "and suddenly the whole street lit up",
        "you will not believe who opened the door",
        "it was twice as big as they had told us",
    ),
    "gross": (
        "there was mould all over the soup",
        "something slimy was stuck to my hand",
        "the milk came out in lumps",
    ),
    "scary": (
        "I heard steps right behind me",
        "the car came straight towards us",
        "the lights went out and something moved",
    ),
    "thoughtful": (
        "I keep asking myself what that meant",
        "perhaps it was never about the money",
        "let me think how to put this",
    ),
    "question": (
        "do you know what I mean",
        "would you have done the same thing",
        "have you ever been there",
    ),
}
"""What is said, by topic."""

_VOWELS = ((730, 1090, 2440), (530, 1840, 2480), (390, 1990, 2550), (570, 840, 2410), (440, 1020, 2240))


class Voice(Protocol):
    """One speaker's voice."""

    def say(self, text: str, ending: str) -> Sound:
        """The phrase; `ending` is "low", "flat" or "rise"."""
        ...

    def laugh(self, bursts: int, rng: np.random.Generator) -> Sound:
        """So many bursts of laughter."""
        ...


def _level(sound: Sound, rms: float = LEVEL) -> Sound:
    """Scale to the root mean square wanted."""
    return (sound * (rms / max(float(np.sqrt(np.mean(sound**2))), 1e-6))).astype(np.float32)


def vowel(f0_hz: NDArray[np.float64], formants: tuple[int, ...], noise: float, rng: np.random.Generator) -> Sound:
    """A voiced sound of the pitch contour `f0_hz` [S]: harmonics weighted by formant resonances, plus breath."""
    phase = 2 * np.pi * np.cumsum(f0_hz) / SAMPLE_RATE_HZ
    top = int(min(4000 / f0_hz.mean(), 36))
    sound = np.zeros(len(f0_hz))
    for k in range(1, top + 1):
        gain = sum(1 / (1 + ((k * f0_hz.mean() - f) / (60 + 0.06 * f)) ** 2) for f in formants) / k**0.5
        sound += gain * np.sin(k * phase)
    return (sound + noise * rng.standard_normal(len(sound))).astype(np.float32)


def laughter(pitch_hz: float, bursts: int, rng: np.random.Generator) -> Sound:
    """Ha ha ha: bursts 0.17 to 0.22 s apart with /a/ formants, falling in pitch and loudness."""
    pieces: list[Sound] = []
    for i in range(bursts):
        length = int(rng.uniform(0.17, 0.22) * SAMPLE_RATE_HZ)
        f0 = pitch_hz * (1.7 - 0.06 * i) * np.linspace(1.08, 0.9, length)
        shape = np.sin(np.pi * np.clip(np.linspace(0, 1.6, length), 0, 1)) ** 1.5
        pieces.append(vowel(f0, (750, 1250, 2600), 0.35, rng) * shape.astype(np.float32) * 0.93**i)
    return _level(np.concatenate(pieces), 1.3 * LEVEL)


@dataclass(frozen=True)
class FormantVoice:
    """Our own voice: syllables of vowels and noise. It carries pitch, rhythm and pauses, not words."""

    pitch_hz: float
    syllables_per_s: float

    def say(self, text: str, ending: str) -> Sound:
        """One syllable per vowel group of the text, on a falling or rising contour."""
        rng = np.random.default_rng([len(text), *text.encode()])
        count = max(sum(a in "aeiouy" and b not in "aeiouy" for a, b in zip(text, text[1:] + " ", strict=True)), 2)
        length = int(SAMPLE_RATE_HZ / self.syllables_per_s)
        end = {"low": 0.68, "flat": 0.92, "rise": 1.55}[ending]
        pieces: list[Sound] = []
        for i in range(count):
            here = 1.0 + (end - 1.0) * max(0.0, (i / max(count - 1, 1) - 0.55) / 0.45)
            f0 = self.pitch_hz * here * (1 + 0.05 * rng.standard_normal()) * np.ones(length)
            shape = np.sin(np.pi * np.linspace(0, 1, length)) ** 0.6
            piece = vowel(f0, _VOWELS[rng.integers(len(_VOWELS))], 0.03, rng) * shape.astype(np.float32)
            onset = int(0.18 * length)
            piece[:onset] += (0.5 * rng.standard_normal(onset) * np.linspace(1, 0, onset)).astype(np.float32)
            pieces.append(piece)
        return _level(np.concatenate(pieces))

    def laugh(self, bursts: int, rng: np.random.Generator) -> Sound:
        """Laughter at the voice's pitch."""
        return laughter(self.pitch_hz, bursts, rng)


class EspeakVoice:
    """espeak-ng with the identity's variant, pitch and rate; phrases are made once and kept."""

    def __init__(self, variant: str, pitch: int, words_per_min: int) -> None:
        self.variant, self.pitch, self.words_per_min = variant, pitch, words_per_min
        self._made: dict[tuple[str, str], Sound] = {}

    def say(self, text: str, ending: str) -> Sound:
        """The phrase in two parts; the last words carry the ending's pitch."""
        if (text, ending) not in self._made:
            words = text.split()
            cut = max(len(words) * 2 // 3, 1)
            shift = {"low": -22, "flat": 0, "rise": 34}[ending]
            body = self._speak(" ".join(words[:cut]), self.pitch)
            tail = self._speak(" ".join(words[cut:]), self.pitch + shift)
            self._made[text, ending] = _level(np.concatenate([body, tail]))
        return self._made[text, ending]

    def _speak(self, text: str, pitch: int) -> Sound:
        command = ["espeak-ng", "-v", self.variant, "-p", str(int(np.clip(pitch, 0, 99)))]
        done = subprocess.run(
            [*command, "-s", str(self.words_per_min), "--stdout", text], capture_output=True, check=True, timeout=30
        )
        with wave.open(io.BytesIO(done.stdout.replace(b"\xff\xff\xff\x7f", b"\x00\x00\x00\x00")), "rb") as file:
            rate = file.getframerate()
        raw = np.frombuffer(done.stdout[44:], "<i2").astype(np.float32) / np.float32(32768)
        return _trim(_to_16k(raw, rate))

    def laugh(self, bursts: int, rng: np.random.Generator) -> Sound:
        """Laughter at about the voice's pitch."""
        return laughter(70 + 2.4 * self.pitch, bursts, rng)


def _to_16k(sound: Sound, rate_hz: int) -> Sound:
    """Resample with a windowed-sinc low-pass before the interpolation."""
    n = np.arange(-24, 25)
    taps = np.sinc(n * 0.9 * SAMPLE_RATE_HZ / rate_hz) * np.hamming(49)
    smooth = np.convolve(sound, taps / taps.sum(), mode="same")
    times = np.arange(int(len(sound) * SAMPLE_RATE_HZ / rate_hz)) * rate_hz / SAMPLE_RATE_HZ
    return np.interp(times, np.arange(len(sound)), smooth).astype(np.float32)


def _trim(sound: Sound) -> Sound:
    """Without the silence at both ends."""
    loud = np.flatnonzero(np.abs(sound) > 0.01)
    return sound[loud[0] : loud[-1] + 1] if len(loud) else sound[:160]


def draw_voice(rng: np.random.Generator, kind: str) -> Voice:
    """A random identity's voice; `kind` is "espeak" or "formant"."""
    low = bool(rng.random() < 0.5)
    pitch, words = int(rng.integers(42, 59)), int(rng.integers(150, 186))
    variant = f"en-us+{'m' if low else 'f'}{rng.integers(1, 5)}"
    formant = FormantVoice(float(rng.uniform(95, 140) if low else rng.uniform(170, 230)), float(rng.uniform(3.6, 5)))
    return EspeakVoice(variant, pitch, words) if kind == "espeak" else formant


def voice_kind(wanted: str) -> str:
    """Resolve "auto" to espeak where it is installed, else formant; refuse an espeak that is not there."""
    installed = shutil.which("espeak-ng") is not None
    if wanted == "espeak" and not installed:
        raise ValueError("espeak-ng is not installed; install it from your system's packages or use --voice formant")
    return ("espeak" if installed else "formant") if wanted == "auto" else wanted
