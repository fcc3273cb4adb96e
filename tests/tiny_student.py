"""Checkpoints of a student of a few thousand weights, float and quantised, for tests that build engines of them."""

import copy
from pathlib import Path

import numpy as np
import torch

from deploy import parity
from student import calibration, checkpoint
from student.model import Student
from student.spec import StudentSpec

SPEC = StudentSpec(
    crop_px=32,
    backbone="mobilenetv4_conv_small_035",
    d_model=32,
    layers=2,
    heads=2,
    window_frames=8,
    ffn=64,
    mel_bins=32,
)


def batch(steps: int) -> calibration.Inputs:
    """A drawn stream as one batch."""
    stream = parity.recorded_stream(SPEC, steps)
    parts = [torch.from_numpy(np.stack([s[k] for s in stream]))[None] for k in ("frame_u8", "audio", "present")]
    return parts[0], parts[1], parts[2]


def write(folder: Path) -> tuple[Path, Path]:
    """A float checkpoint and its quantised form."""
    torch.manual_seed(0)
    inputs = batch(64)
    model = Student(SPEC).eval()
    model.vision.calibrate(inputs[0][0, ::8])
    torch.nn.init.normal_(model.heads.out.weight, std=0.03)
    checkpoint.save(folder / "float", model, {})
    checkpoint.save(folder / "quantised", calibration.prepare(copy.deepcopy(model), [inputs]), {})
    return folder / "float", folder / "quantised"
