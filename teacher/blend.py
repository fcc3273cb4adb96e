"""Many views of the same frame → one label and how much the views disagree.

A frame is seen by every window that covers it, from up to H anchors in each (`teacher.heads`), and by K sub-networks of
the read-out. The label is the tapered mean of the windows and anchors; its uncertainty is the standard deviation of the
probability over all views, so that it is never 0 for want of a second window.
Shapes: T frames of a session, W frames of a window, H horizons, A units, K sub-networks.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teacher.heads import ReadOut
from teacher.layout import Layout

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def taper(frames: int) -> Doubles:
    """Weight of each frame of a window [W]: a raised cosine that never reaches 0, since the ends know less."""
    return 0.05 + 0.95 * np.sin(np.pi * (np.arange(frames) + 0.5) / frames) ** 2


@torch.no_grad()
def answers(read_out: ReadOut, layout: Layout, features: Tensor, masks: Tensor) -> tuple[Doubles, Doubles, Doubles]:
    """Probability, activation log-odds, and the probability's variance over sub-networks `masks`, each [B, W, H, A]."""
    read_out.eval()
    x = read_out.trunk(features, layout)
    logits = read_out.heads(x)
    whole = torch.sigmoid(logits[..., 0])
    total, square = torch.zeros_like(whole), torch.zeros_like(whole)
    for mask in masks:  # deviations from the whole network: small, so that little is lost to rounding
        off = torch.sigmoid(read_out.heads(x * mask)[..., 0]).sub_(whole)
        total += off
        square.addcmul_(off, off)
    count = max(len(masks), 1)
    variance = (square / count - (total / count) ** 2).clamp_(min=0)
    prob = torch.sigmoid(logits[..., 0].double())
    return prob.cpu().numpy(), logits[..., 1].double().cpu().numpy(), variance.double().cpu().numpy()


def blend(
    starts: list[int], prob: Doubles, logit: Doubles, variance: Doubles, n_frames: int
) -> tuple[Floats, Floats, Floats]:
    """Windows' answers [B, W, H, A] at frames `starts` → probability, activation log-odds, uncertainty, each [T, A]."""
    _, frames, horizons, units = prob.shape
    shape = (starts[-1] + frames + horizons, units)
    mean, square, odds, inner, weight = (np.zeros(shape) for _ in range(5))
    w = taper(frames)[:, None]
    for b, start in enumerate(starts):
        for h in range(horizons):
            span, p = slice(start + h, start + h + frames), prob[b, :, h]
            mean[span] += w * p
            square[span] += w * p**2
            odds[span] += w * logit[b, :, h]
            inner[span] += w * variance[b, :, h]
            weight[span] += w
    mean, square, odds, inner = (v[:n_frames] / weight[:n_frames] for v in (mean, square, odds, inner))
    spread = np.sqrt(np.maximum(square - mean**2, 0) + inner)
    return tuple(v.astype(np.float32) for v in (np.clip(mean, 0, 1), odds, spread))  # pyright: ignore[reportReturnType]
