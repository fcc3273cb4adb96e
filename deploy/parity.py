"""Does the engine say what torch says? Stream the same recorded input through both and compare every output.

Float graphs must agree closely at every step. An INT8 graph may round one sum the other way and drift by an LSB from
there on, so it is compared statistically. What fails is not shipped.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.engines import Engine, Tensors
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


def recorded_stream(spec: StudentSpec, steps: int, seed: int = 0) -> list[Tensors]:
    """A stream with everything in it: a moving pattern, speech-like noise, silence, a face lost, a sound lost."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : spec.crop_px, 0 : spec.crop_px] / spec.crop_px
    x, y, hue = x[:, :, None], y[:, :, None], np.arange(3)
    out: list[Tensors] = []
    for t in range(steps):
        wave = 128 + 90 * np.sin(6 * x + 0.11 * t) * np.cos(5 * y + 0.07 * t + hue)
        frame = np.clip(wave + rng.normal(0, 6, wave.shape), 0, 255).astype(np.uint8)
        loud = 0.1 * abs(np.sin(0.05 * t)) if (t // 60) % 3 else 0.0
        audio = (loud * rng.standard_normal(spec.audio_window_samples)).astype(np.float32)
        present = np.array([t % 97 < 88, loud > 0], np.float32)
        out.append({"frame_u8": frame, "audio": audio, "present": present})
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
