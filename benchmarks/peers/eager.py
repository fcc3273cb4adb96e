"""Our own student run the slow ways, in torch and in float: what the exported INT8 step is worth.

window        every frame runs all of the last 64 frames again, pixels included: no memory at all
cached_eyes   pixels once; the temporal layers run over the last 64 frames again
step          the student as it is: one frame and a state
compiled      the same step through `torch.compile`; needs a C++ compiler, and half a minute of its time

The first two forget what lies before their 64 frames, which the state of the others still knows through the layers'
memories: the work is compared, not the numbers.

Shapes: W window frames.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.peers import Unit, multiply_adds, parameters
from student.model import Student
from student.spec import StudentSpec

Way = Literal["window", "cached_eyes", "step", "compiled"]
WAYS: tuple[Way, ...] = ("window", "cached_eyes", "step", "compiled")
Forward = Callable[[Tensor, Tensor, Tensor, Any], tuple[Tensor, Any]]


class NoCompilerError(ValueError):
    """`torch.compile` cannot work on this machine."""


class StudentStream:
    """One of the ways, live: the same random frame again and again, memories moving on."""

    def __init__(self, model: Student, way: Way, forward: Forward | None = None) -> None:
        if way not in WAYS:
            raise ValueError(f"unknown way {way!r}; known: {', '.join(WAYS)}")
        spec = model.spec
        frames = spec.window_frames if way in ("window", "cached_eyes") else 1
        self.model, self.way, self._forward = model, way, model if forward is None else forward
        pixels = spec.window_frames if way == "window" else 1
        self.frames = torch.randint(0, 256, (1, pixels, spec.crop_px, spec.crop_px, 3), dtype=torch.uint8)
        self.audio = 0.1 * torch.randn(1, frames, spec.audio_window_samples)
        self.present = torch.ones(1, frames, 2)
        self._seen = torch.zeros(1, spec.window_frames, spec.d_model)
        self._state = model.init_state(1)

    @torch.no_grad()
    def frame(self) -> Tensor:
        """Answer one frame: logits [1, H, A, 2]."""
        if self.way == "window":
            logits, _ = self.model(self.frames, self.audio, self.present, self._state)
        elif self.way == "cached_eyes":
            self._seen = torch.cat([self._seen, self.model.visual_features(self.frames)], dim=1)[:, 1:]
            logits, _ = self.model.from_features(self._seen, self.audio, self.present, self._state)
        else:
            logits, self._state = self._forward(self.frames, self.audio, self.present, self._state)
        return logits[:, -1]


def compiler() -> str:
    """The C++ compiler that `torch.compile` will call; raises NoCompilerError when there is none."""
    wanted = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    found = shutil.which(wanted)
    if found is None:
        raise NoCompilerError(
            f"torch.compile wants a C++ compiler, looked for {wanted} and found none; "
            "install it, or set CXX to another, or leave the way 'compiled' out"
        )
    return found


def compile_step(model: Student) -> tuple[Forward, float]:
    """The student's step through inductor, compiled by its first two calls, and the seconds that they took."""
    from torch._dynamo.exc import BackendCompilerFailed

    compiler()
    compiled: Any = torch.compile(model)
    stream, start = StudentStream(model, "compiled", compiled), time.perf_counter()
    try:
        for _ in range(2):
            stream.frame()
    except BackendCompilerFailed as error:
        raise NoCompilerError(
            f"torch.compile found {compiler()}, but it failed: {str(error).splitlines()[0]}; "
            "install Python's headers beside it, or leave the way 'compiled' out"
        ) from error
    return compiled, time.perf_counter() - start


def make(spec: StudentSpec, way: Way = "step") -> Unit:
    """One live frame, answered in one of the ways. `compiled` raises NoCompilerError where it cannot be had."""
    torch.manual_seed(0)
    model = Student(spec).eval()
    model.vision.calibrate(torch.randint(0, 256, (16, spec.crop_px, spec.crop_px, 3), dtype=torch.uint8))
    facts: dict[str, float] = {"parameters": parameters(model)}
    if way == "compiled":
        forward, facts["compile_s"] = compile_step(model)
        return Unit(work=StudentStream(model, way, forward).frame, frames=1, facts=facts)
    stream = StudentStream(model, way)
    return Unit(work=stream.frame, frames=1, facts=facts | {"multiply_adds": multiply_adds(stream.frame)})
