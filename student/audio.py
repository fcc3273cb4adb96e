"""The ears: log-mel inside the graph, four columns per video frame, then one vector per frame.

At frame t the front end hands in the 800 samples that end with the frame. Four 400-sample Hann windows end at 400, 267,
133 and 0 samples before that end: on average 133.33 apart, never a sample past the frame. The Fourier transform is a
matrix product, so that the same graph runs in torch, ONNX Runtime and TensorRT.

Shapes: N = batch x frames, S samples, M mel bands, D width.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from student.spec import StudentSpec
from student.streaming import CausalConv

WINDOW_SAMPLES = 400
STARTS = (0, 133, 267, 400)
"""First sample of each column inside the 800-sample window."""
FFT = 512
LOW_HZ, HIGH_HZ = 60.0, 7600.0


def mel_filters(bands: int, fft: int = FFT, rate_hz: int = 16000) -> NDArray[np.float32]:
    """Triangular HTK mel filters on the power spectrum, [fft//2+1, bands]."""

    def mel(hz: float) -> float:
        return 2595.0 * math.log10(1.0 + hz / 700.0)

    edges = 700.0 * (10.0 ** (np.linspace(mel(LOW_HZ), mel(HIGH_HZ), bands + 2) / 2595.0) - 1.0)
    bins = np.linspace(0, rate_hz / 2, fft // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def fourier_basis() -> NDArray[np.float32]:
    """Hann-windowed cosine and sine basis, [400, 2 * 257]."""
    n = np.arange(WINDOW_SAMPLES)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / WINDOW_SAMPLES)[:, None]
    phase = 2 * np.pi * np.outer(n, np.arange(FFT // 2 + 1)) / FFT
    return (np.concatenate([np.cos(phase), -np.sin(phase)], axis=1) * window).astype(np.float32)


class LogMel(nn.Module):
    """800 samples → four log-mel columns, roughly in [-2, 2] for speech at -22 dBFS."""

    basis: Tensor
    filters: Tensor
    columns: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.register_buffer("basis", torch.from_numpy(fourier_basis()), persistent=False)
        columns = torch.tensor(STARTS)[:, None] + torch.arange(WINDOW_SAMPLES)
        self.register_buffer("columns", columns.flatten(), persistent=False)
        self.register_buffer("filters", torch.from_numpy(mel_filters(bands)), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """[N, 800] → [N, 4 * M]."""
        spectrum = torch.index_select(audio, 1, self.columns).reshape(-1, WINDOW_SAMPLES) @ self.basis
        real, imaginary = spectrum[:, : FFT // 2 + 1], spectrum[:, FFT // 2 + 1 :]
        power = (real * real + imaginary * imaginary) @ self.filters
        return (torch.log(power + 1e-5) / 4.0).reshape(audio.shape[0], -1)


class Audio(nn.Module):
    """Sound of the frame → vector, with a short causal memory [B, K-1, D]."""

    def __init__(self, spec: StudentSpec) -> None:
        super().__init__()
        self.mel = LogMel(spec.mel_bins)
        self.project = nn.Linear(4 * spec.mel_bins, spec.d_model)
        self.act = nn.ReLU()
        self.conv = CausalConv(spec.d_model, spec.conv_kernel)
        self.mix = nn.Linear(spec.d_model, spec.d_model)

    def forward(self, audio: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """[B*T, 800] → [B*T, D] and the next memory."""
        x = self.act(self.project(self.mel(audio)))
        inner, memory = self.conv(x, memory)
        return self.mix(self.act(inner)) + x, memory
