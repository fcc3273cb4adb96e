"""Does the engine say what torch says? Stream the same recorded input through both and compare every output.

Float graphs must agree closely at every step. An INT8 graph may round one sum the other way and drift by an LSB from
there on, so it is compared statistically. What fails is not shipped.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.engines import Engine, Tensors
from student.frontend import Frontend, audio_window
from student.spec import StudentSpec

MEAN_INT8, HIGH_INT8, LARGEST_FLOAT = 0.005, 0.05, 1e-4
"""Bars on the difference of probabilities: mean and 99.9 percentile in INT8, largest in float."""


@dataclass(frozen=True)
class Parity:
    """Differences of probabilities between engine and torch."""

    steps: int
    mean: float
    p999: float
    largest: float

    def to_dict(self) -> dict[str, float]:
        """For the manifest."""
        return {"steps": self.steps, "mean": self.mean, "p999": self.p999, "largest": self.largest}

    def __str__(self) -> str:
        """For the terminal."""
        return f"{self.steps} steps: mean {self.mean:.2g}, 99.9 % {self.p999:.2g}, largest {self.largest:.2g}"


def recorded_stream(spec: StudentSpec, steps: int, seed: int = 0) -> list[Tensors]:
    """A stream as the front end would hand it over: a drawn speaker who talks, laughs and pauses; for a while there is
    no face, for a while no sound.
    """
    from dyad.synthetic.face import FaceArtist
    from dyad.synthetic.identity import Identity
    from dyad.synthetic.script import write_script
    from dyad.synthetic.voice import draw_voice

    rng = np.random.default_rng(seed)
    script = write_script(max(steps, 30), draw_voice(rng, "formant"), rng)
    artist, front = FaceArtist(Identity.draw(rng, 224), rng), Frontend(spec)
    out: list[Tensors] = []
    for t in range(steps):
        window = audio_window(script.sound, t, spec) * np.float32(t % 150 < 135)
        seen = front.step(artist.draw(script.speaker_au[t], script.pose[t], t), window)
        present = seen.present * np.array([t % 97 < 88, 1], np.float32)
        out.append({"frame_u8": seen.frame, "audio": seen.audio, "present": present})
    return out


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def run_engine(engine: Engine, stream: list[Tensors]) -> NDArray[np.float32]:
    """Probabilities [steps, H, A, 2] of an engine over a stream."""
    state, out = engine.init_state(), []
    for inputs in stream:
        logits, state = engine.step(inputs, state)
        out.append(_sigmoid(logits))
    return np.stack(out)


def compare(engine: NDArray[np.float32], torch_says: NDArray[np.float32]) -> Parity:
    """Difference statistics of two runs [steps, H, A, 2]."""
    gap = np.abs(engine - torch_says)
    return Parity(len(gap), float(gap.mean()), float(np.quantile(gap, 0.999)), float(gap.max()))


def refuse_if_apart(parity: Parity, precision: str) -> None:
    """Raise ValueError naming the output and the figure when an engine is above tolerance."""
    if precision == "int8":
        failed = parity.mean > MEAN_INT8 or parity.p999 > HIGH_INT8
        wanted = f"mean ≤ {MEAN_INT8} and 99.9 percentile ≤ {HIGH_INT8}"
    else:
        failed, wanted = parity.largest > LARGEST_FLOAT, f"largest ≤ {LARGEST_FLOAT}"
    if failed or not np.isfinite(parity.largest):
        raise ValueError(
            f"engine output 'logits' differs from torch over {parity.steps} steps: mean {parity.mean:.2g}, "
            f"99.9 percentile {parity.p999:.2g}, largest {parity.largest:.2g}; wanted {wanted}. "
            "Not shipped; try --precision float32"
        )
