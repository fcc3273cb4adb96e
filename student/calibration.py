"""Prepare a float student for INT8: equalise channel ranges, watch the activations, switch fake quantisation on.

Equalisation (Nagel et al., "Data-free quantization", 2019): between two convolutions with only a ReLU in between,
scaling a channel down in the first and up in the second changes nothing in float and evens out the ranges that one
INT8 scale per tensor must cover.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from student.model import Student
from student.quantization import ActivationQuantizer, QuantConv2d, QuantLinear, eligible, quantize

Inputs = tuple[Tensor, Tensor, Tensor]
"""frame_u8 [B, T, h, w, 3], audio [B, T, 800], present [B, T, 2]."""


def prepare(model: Student, batches: Iterable[Inputs]) -> Student:
    """Turn a float student into a fake-quantised one, in place, calibrated on a few batches."""
    batches = list(batches)
    model.eval()
    frame = batches[0][0][:1, :1].flatten(0, 1)
    equalise(model.vision, frame)
    quantize(model, plan(model, batches[0]))
    calibrate(model, batches)
    return model


@torch.no_grad()
def _trace(model: nn.Module, run: Callable[[], object]) -> list[tuple[str, nn.Module, Tensor, Tensor]]:
    """(name, module, input, output) of every convolution, linear layer and ReLU, in order of execution."""
    calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls.append((name, module, inputs[0], output))

        return hook

    handles = [
        m.register_forward_hook(watch(n))
        for n, m in model.named_modules()
        if isinstance(m, nn.Conv2d | nn.Linear | nn.ReLU | nn.ReLU6)
    ]
    run()
    for handle in handles:
        handle.remove()
    return calls


def equalise(model: nn.Module, frame_u8: Tensor, rounds: int = 2) -> int:
    """Even out channel ranges of conv → ReLU → conv chains, in place; returns how many pairs there are."""
    calls = _trace(model, lambda: model(frame_u8))
    made_by = {id(out): (module, source) for _, module, source, out in calls}
    uses: dict[int, int] = {}
    for _, _, source, _ in calls:
        uses[id(source)] = uses.get(id(source), 0) + 1
    pairs: list[tuple[Any, Any]] = []
    for _, module, source, _ in calls:
        if not isinstance(module, nn.Conv2d) or id(source) not in made_by:
            continue
        before, earlier = made_by[id(source)]
        if isinstance(before, nn.ReLU) and uses[id(source)] == 1:  # an in-place ReLU hands on the same tensor
            before = made_by.get(id(earlier), (None, None))[0] if earlier is not source else None
        if isinstance(before, nn.Conv2d) and uses[id(source)] == 1:
            pairs.append((before, module))
    for _ in range(rounds):
        for first, second in pairs:
            _equalise_pair(first, second)
    return len(pairs)


@torch.no_grad()
def _equalise_pair(first: nn.Conv2d, second: nn.Conv2d) -> None:
    out_range = first.weight.abs().amax(dim=(1, 2, 3)).clamp(min=1e-6)
    depthwise = second.groups > 1
    if depthwise and second.groups != second.in_channels:
        return
    axes = (1, 2, 3) if depthwise else (0, 2, 3)
    in_range = second.weight.abs().amax(dim=axes).clamp(min=1e-6)
    scale = torch.sqrt(out_range * in_range) / out_range
    scale = scale.clamp(0.05, 20.0)
    first.weight.mul_(scale[:, None, None, None])
    if first.bias is not None:
        first.bias.mul_(scale)
    second.weight.div_(scale[:, None, None, None] if depthwise else scale[None, :, None, None])


def plan(model: Student, example: Inputs) -> dict[str, dict[str, bool]]:
    """Which layers quantise their input and output.

    Every eligible layer takes INT8 input. A convolution whose result no ReLU takes is quantised at its end too: only
    between two Q/DQ pairs do the engines run it in INT8.
    """
    frames, audio, present = (x[:1, :2] for x in example)
    calls = _trace(model, lambda: model(frames, audio, present, model.init_state(1)))
    rectified = {id(source) for _, module, source, _ in calls if isinstance(module, nn.ReLU | nn.ReLU6)}
    wanted = set(eligible(model))
    layout: dict[str, dict[str, bool]] = {}
    for name, module, _, output in calls:
        if name in wanted:
            layout[name] = {"input": True, "output": isinstance(module, nn.Conv2d) and id(output) not in rectified}
    return layout


@torch.no_grad()
def calibrate(model: Student, batches: Iterable[Inputs]) -> None:
    """Set every activation scale to the largest magnitude seen."""
    watchers = [m for m in model.modules() if isinstance(m, ActivationQuantizer)]
    for watcher in watchers:
        watcher.scale.zero_()
        watcher.watching = True
    for frames, audio, present in batches:
        model(frames, audio, present, model.init_state(frames.shape[0]))
    for watcher in watchers:
        watcher.watching = False


def count_quantised(model: nn.Module) -> int:
    """Layers that run in INT8."""
    return sum(isinstance(m, QuantConv2d | QuantLinear) for m in model.modules())
