"""Prepare a float student for INT8: equalise channel ranges, watch the activations, switch fake quantisation on.

Equalisation (Nagel et al., "Data-free quantization", 2019): between two convolutions with only a ReLU in between,
scaling a channel down in the first and up in the second changes nothing in float and evens out the ranges that one
INT8 scale per tensor must cover.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from student.model import Student
from student.quantization import ActivationQuantizer, QuantConv2d, QuantLinear, eligible, quantize, weight_scale
from student.vision import PIXEL_STEP

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
    snap_biases(model)
    return model


LAYERS = (nn.Conv2d, nn.Linear, nn.ReLU, nn.ReLU6)


@torch.no_grad()
def _trace(
    model: nn.Module, run: Callable[[], object], kinds: tuple[type[nn.Module], ...] = LAYERS
) -> list[tuple[str, nn.Module, Tensor, Tensor]]:
    """(name, module, input, output) of every module of these kinds, in order of execution."""
    calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls.append((name, module, inputs[0], output))

        return hook

    handles = [m.register_forward_hook(watch(n)) for n, m in model.named_modules() if isinstance(m, kinds)]
    run()
    for handle in handles:
        handle.remove()
    return calls


@torch.no_grad()
def equalise(model: nn.Module, frame_u8: Tensor, rounds: int = 2) -> int:
    """Even out channel ranges between neighbouring convolutions, in place; returns how many pairs there are.

    A pair is kept only if the model's output on `frame_u8` [N, h, w, 3] stays what it was: where a residual sum also
    reads what lies in between, scaling it would change the function.
    """
    for module in model.modules():
        if isinstance(module, nn.ReLU | nn.ReLU6):
            module.inplace = False
    calls = _trace(model, lambda: model(frame_u8))
    made_by = {id(out): (module, source) for _, module, source, out in calls}
    pairs: list[tuple[nn.Conv2d, nn.Conv2d]] = []
    before = model(frame_u8)
    scale = before.abs().max().clamp(min=1e-6)
    for _, module, source, _ in calls:
        maker, earlier = made_by.get(id(source), (None, source))
        if isinstance(maker, nn.ReLU):
            maker = made_by.get(id(earlier), (None, None))[0]
        if not (isinstance(maker, nn.Conv2d) and isinstance(module, nn.Conv2d)):
            continue
        kept = [t.clone() for t in _weights_of(maker, module)]
        for _ in range(rounds):
            _equalise_pair(maker, module)
        if float((model(frame_u8) - before).abs().max() / scale) < 1e-3:
            pairs.append((maker, module))
            continue
        for mine, old in zip(_weights_of(maker, module), kept, strict=True):
            mine.copy_(old)
    return len(pairs)


def _weights_of(first: nn.Conv2d, second: nn.Conv2d) -> list[Tensor]:
    bias = [first.bias] if first.bias is not None else []
    return [first.weight, second.weight, *bias]


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
    """Which layers quantise their input and output, and which residual blocks their sum.

    Every eligible layer takes INT8 input. A convolution whose result no ReLU takes is quantised at its end too, and so
    is the sum of a residual block: only between two Q/DQ pairs do the engines run them in INT8. What is quantised
    where it is made is not quantised again where it is used.
    """
    frames, audio, present = (x[:1, :2] for x in example)
    calls = _trace(model, lambda: model(frames, audio, present, model.init_state(1)), (nn.Module,))
    rectified = {id(source) for _, module, source, _ in calls if isinstance(module, nn.ReLU | nn.ReLU6)}
    wanted = set(eligible(model))
    layout: dict[str, dict[str, bool]] = {}
    made: set[int] = set()
    quantised: set[int] = set()
    for name, module, source, output in calls:  # children come before the block that they are in
        plain = isinstance(module, nn.Conv2d) and id(output) not in rectified
        is_sum = name.startswith("vision.backbone.") and any(module.children()) and id(output) not in made
        if name in wanted:
            layout[name] = {"input": id(source) not in quantised, "output": plain}
        elif is_sum and type(output) is Tensor:
            layout[name] = {"input": False, "output": True}
        made.add(id(output))
        if name in layout and layout[name]["output"]:
            quantised.add(id(output))
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
    stem = next((m for m in model.vision.modules() if isinstance(m, QuantConv2d)), None)
    if stem is not None and isinstance(stem.input_quantizer, ActivationQuantizer):
        stem.input_quantizer.scale.fill_(PIXEL_STEP)  # the grid of the pixels themselves: nothing is rounded


@torch.no_grad()
def snap_biases(model: Student) -> int:
    """Round every bias of a quantised layer to the grid of its INT32 sums, in place; returns how many layers.

    The CPU kernels add an INT32 bias in steps of input scale x weight scale. A bias that lies on that grid already is
    the same number in torch, in the signed graph and on the CPU; else a few sums in a hundred round the other way.
    """
    if not count_quantised(model):
        return 0
    spec, where = model.spec, next(model.parameters()).device
    frame = torch.zeros(1, 1, spec.crop_px, spec.crop_px, 3, dtype=torch.uint8, device=where)
    sound = torch.zeros(1, 1, spec.audio_window_samples, device=where)
    kinds = (QuantConv2d, QuantLinear, ActivationQuantizer)
    state, present = model.init_state(1), torch.ones(1, 1, 2, device=where)
    model.eval()
    scale_of: dict[int, Tensor] = {}
    snapped = 0
    for _, module, source, output in _trace(model, lambda: model(frame, sound, present, state), kinds):
        if isinstance(module, ActivationQuantizer):
            scale_of[id(output)] = module.scale
        elif isinstance(module, QuantConv2d | QuantLinear) and module.bias is not None:
            own = module.input_quantizer
            scale = own.scale if isinstance(own, ActivationQuantizer) else scale_of[id(source)]
            step = scale * weight_scale(module.weight)
            module.bias.copy_(torch.round(module.bias / step) * step)
            snapped += 1
    return snapped


def count_quantised(model: nn.Module) -> int:
    """Layers that run in INT8."""
    return sum(isinstance(m, QuantConv2d | QuantLinear) for m in model.modules())
