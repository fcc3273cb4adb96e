"""The eyes: one face crop at a time through a timm backbone without normalisation layers.

Batch statistics would mix later frames into earlier ones while training, so the backbone has no BatchNorm at all: it
is folded away at construction, and `calibrate` scales every convolution once, from data, so that its output has zero
mean and unit variance per channel (Mishkin & Matas, "All you need is a good init", 2016). What is trained, quantised
and exported are plain convolutions.

Shapes: N = batch x frames, C channels, h x w pixels or cells, D width.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from student.spec import StudentSpec

PIXEL_STEP = 1 / 128
"""Pixels become (x - 128) / 128: the 256 values of a byte are the 256 values of signed INT8 at this scale, exactly."""


def build_backbone(name: str, stride: int) -> tuple[nn.Module, int]:
    """A timm feature extractor with features at `stride` only, and their channel count.

    Raises ValueError naming near backbones, or the strides that this one offers.
    """
    import timm
    from timm.utils.model import reparameterize_model

    if name not in timm.list_models():
        near = timm.list_models(f"*{name.split('_', maxsplit=1)[0]}*")[:6]
        raise ValueError(f"timm has no model {name!r}; near: {', '.join(near) or 'none'}")
    whole: Any = timm.create_model(name, pretrained=False, features_only=True)
    strides = whole.feature_info.reduction()
    if stride not in strides:
        raise ValueError(f"backbone {name} has features at strides {strides}, not at {stride}; set backbone_stride")
    backbone: Any = timm.create_model(
        name, pretrained=False, features_only=True, out_indices=(strides.index(stride),), exportable=True
    )
    channels = backbone.feature_info.channels()[0]
    _cut_after(backbone, backbone.feature_info.module_name()[0])
    return reparameterize_model(backbone.eval()), channels


def _cut_after(backbone: nn.Module, name: str) -> None:
    """Drop the stages behind the wanted one: some extractors run them for nothing."""
    parent, _, last = name.rpartition(".")
    stages = dict(backbone.named_modules()).get(parent)
    if isinstance(stages, nn.Sequential) and last.isdigit():
        backbone.set_submodule(parent, stages[: int(last) + 1])


def _convolution_before(model: nn.Module, example: Tensor) -> dict[str, str]:
    """Norm name → name of the convolution whose output it takes, found by running `example` through."""
    made_by: dict[int, str] = {}
    pairs: dict[str, str] = {}
    kept: list[Tensor] = []  # tensors stay alive, so that their ids stay theirs

    def after_conv(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            kept.append(output)
            made_by[id(output)] = name

        return hook

    def before_norm(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if id(inputs[0]) in made_by:
                pairs[name] = made_by[id(inputs[0])]

        return hook

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(after_conv(name)))
        elif isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(before_norm(name)))
    with torch.no_grad():
        model.eval()(example)
    for handle in handles:
        handle.remove()
    return pairs


def fold_batch_norm(model: nn.Module, example: Tensor) -> nn.Module:
    """Merge every BatchNorm into the convolution before it; exact in evaluation mode. Activations inside are kept."""
    modules = dict(model.named_modules())
    pairs = _convolution_before(model, example)
    for name, module in modules.items():
        if not isinstance(module, nn.BatchNorm2d):
            continue
        if name not in pairs:
            raise ValueError(f"backbone: {name} follows no convolution and cannot be folded; choose another backbone")
        conv: Any = modules[pairs[name]]
        norm: Any = module
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        with torch.no_grad():
            bias = conv.bias if conv.bias is not None else torch.zeros(conv.out_channels)
            conv.weight.mul_(scale[:, None, None, None])
            conv.bias = nn.Parameter((bias - norm.running_mean) * scale + norm.bias)
        parent = model.get_submodule(name.rpartition(".")[0]) if "." in name else model
        setattr(parent, name.rpartition(".")[2], getattr(module, "act", nn.Identity()))
    return model


class Vision(nn.Module):
    """Face crop → vector. Keeps where in the face a feature lies: cells are flattened, not averaged."""

    def __init__(self, spec: StudentSpec) -> None:
        super().__init__()
        self.backbone, channels = build_backbone(spec.backbone, spec.backbone_stride)
        try:
            fold_batch_norm(self.backbone, torch.zeros(1, 3, spec.crop_px, spec.crop_px))
        except AssertionError as error:  # timm's transformers are built for one size
            raise ValueError(f"backbone {spec.backbone} cannot take {spec.crop_px} px crops: {error}") from None
        cells = (spec.crop_px // spec.backbone_stride) ** 2
        self.reduce = nn.Conv2d(channels, spec.visual_channels, 1)
        self.act = nn.ReLU()
        self.project = nn.Linear(spec.visual_channels * cells, spec.d_model)

    def forward(self, frame_u8: Tensor) -> Tensor:
        """Pixels [N, h, w, 3] uint8 → [N, D]; (x - 128)/128 happens here, in the graph."""
        x = frame_u8.to(torch.float32)  # first of all: TensorRT lets nothing but a cast touch a uint8 input
        x = (x - 128.0) * PIXEL_STEP
        x = self.backbone(x.permute(0, 3, 1, 2))[0]
        return self.project(self.act(self.reduce(x)).flatten(1))

    @torch.no_grad()
    def calibrate(self, frame_u8: Tensor) -> None:
        """Scale every convolution, in order, to zero mean and unit variance per channel over `frame_u8` [N, h, w, 3].

        A constant of the training set, fixed before the first step: it carries nothing from a sequence's future.
        """

        def normalise(module: nn.Conv2d, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            mean = output.mean(dim=(0, 2, 3))
            std = output.std(dim=(0, 2, 3)).clamp(min=1e-3)
            module.weight.div_(std[:, None, None, None])
            assert module.bias is not None
            module.bias.sub_(mean).div_(std)
            return (output - mean[:, None, None]) / std[:, None, None]

        handles = [m.register_forward_hook(normalise) for m in self.modules() if isinstance(m, nn.Conv2d)]
        self(frame_u8)
        for handle in handles:
            handle.remove()
