"""INT8 the way the engines want it: fake quantisation that exports to explicit Q/DQ pairs.

Per-channel symmetric weights, per-tensor symmetric activations, zero point 0 everywhere: what TensorRT's explicit
quantisation takes as it is, and what `deploy/onnx_flavours.py` re-expresses for ONNX Runtime on a CPU.

What stays float, and why: LayerNorm and softmax (their sums lose too much in 8 bits), the attention products (no gain
at a 64-frame window, measured), the residual stream (errors would add up over the layers), the depth-wise convolution
over time (a handful of multiply-adds per frame), and log-mel (12 decades of power). The heads take INT8 input and
weights, and give float log-odds.
Scales come from calibration and stay fixed while training goes on; gradients pass straight through the rounding.

Shapes: O output channels.  Source of the scheme: Jacob et al., 2018; Nagel et al., "A white paper on neural network
quantization", 2021.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 127


class _Round(torch.autograd.Function):
    """Round to the grid and back; the gradient passes where the value was inside the range."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        steps = x / scale
        ctx.save_for_backward(steps.abs() <= LEVELS + 1)
        return torch.clamp(torch.round(steps), -LEVELS - 1, LEVELS) * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None


def _quantize_dequantize(x: Tensor, scale: Tensor, axis: int | None) -> Tensor:
    """Fake-quantise; under ONNX export, an explicit QuantizeLinear → DequantizeLinear pair."""
    if not torch.onnx.is_in_onnx_export():
        shape = [1] * x.ndim
        if axis is not None:
            shape[axis] = -1
        return _Round.apply(x, scale.reshape(shape) if axis is not None else scale)  # pyright: ignore[reportReturnType]
    zero = torch.zeros(scale.shape, dtype=torch.int8)
    attributes: Any = {} if axis is None else {"axis": axis}
    whole = torch.onnx.ops.symbolic(
        "QuantizeLinear", (x, scale, zero), attributes, dtype=torch.int8, shape=x.shape, version=20
    )
    return torch.onnx.ops.symbolic(
        "DequantizeLinear", (whole, scale, zero), attributes, dtype=torch.float32, shape=x.shape, version=20
    )


class ActivationQuantizer(nn.Module):
    """Per-tensor symmetric INT8 with a fixed scale; watches the largest magnitude while `watching`."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(0.0))
        self.watching = False

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        if self.watching:
            self.scale.copy_(torch.maximum(self.scale, x.detach().abs().amax() / LEVELS).clamp(min=1e-8))
            return x
        return _quantize_dequantize(x, self.scale, None)


def weight_scale(weight: Tensor) -> Tensor:
    """Symmetric scale of each output channel, [O]."""
    return (weight.detach().abs().flatten(1).amax(dim=1) / LEVELS).clamp(min=1e-8)


def _scale_now(layer: Any) -> Tensor:
    """The weight scale: fixed for export, else from the weights as they are."""
    return weight_scale(layer.weight) if layer.fixed_scale is None else layer.fixed_scale


def fix_weight_scales(model: nn.Module) -> None:
    """Make every weight scale a constant, so that an exported graph holds it as one. Not for training."""
    for module in model.modules():
        if isinstance(module, QuantConv2d | QuantLinear):
            module.fixed_scale = weight_scale(module.weight)


class QuantConv2d(nn.Conv2d):
    """Convolution on INT8 weights, with its input and, where nothing rectifies it, its output in INT8."""

    input_quantizer: nn.Module
    output_quantizer: nn.Module
    fixed_scale: Tensor | None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        """As nn.Conv2d."""
        weight = _quantize_dequantize(self.weight, _scale_now(self), 0)
        y = self._conv_forward(self.input_quantizer(input), weight, self.bias)  # pyright: ignore[reportCallIssue]
        return self.output_quantizer(y)


class QuantLinear(nn.Linear):
    """Matrix product on INT8 weights and inputs."""

    input_quantizer: nn.Module
    output_quantizer: nn.Module
    fixed_scale: Tensor | None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        """As nn.Linear."""
        weight = _quantize_dequantize(self.weight, _scale_now(self), 0)
        return self.output_quantizer(F.linear(self.input_quantizer(input), weight, self.bias))


def eligible(model: nn.Module) -> list[str]:
    """Names of the layers that run in INT8: convolutions of the eyes and all linear layers."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def _quantize_result(module: Any, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return module.output_quantizer(output)


def quantize(model: nn.Module, layout: Mapping[str, Mapping[str, bool]]) -> nn.Module:
    """Turn the named layers into quantised ones, in place; `layout[name]` says whether input and output are too.

    A named block (anything but a convolution or linear layer) has its result quantised: the sum of a residual block.
    """
    modules = dict(model.named_modules())
    for name, ends in layout.items():
        module: Any = modules.get(name)
        if module is None:
            raise ValueError(f"quant.json names {name}, which this student does not have; quantise the student again")
        if not isinstance(module, nn.Conv2d | nn.Linear):
            module.output_quantizer = ActivationQuantizer()
            module.register_forward_hook(_quantize_result)
            continue
        kind: type[Any] = QuantConv2d if isinstance(module, nn.Conv2d) else QuantLinear
        module.__class__ = kind
        module.register_buffer("fixed_scale", None, persistent=False)
        module.input_quantizer = ActivationQuantizer() if ends["input"] else nn.Identity()
        module.output_quantizer = ActivationQuantizer() if ends["output"] else nn.Identity()
    return model


def layout_of(model: nn.Module) -> dict[str, dict[str, bool]]:
    """What `quantize` needs to rebuild a quantised model; empty for a float one."""
    return {
        name: {
            end: isinstance(getattr(module, f"{end}_quantizer", None), ActivationQuantizer)
            for end in ("input", "output")
        }
        for name, module in model.named_modules()
        if "output_quantizer" in dict(module.named_children())
    }
