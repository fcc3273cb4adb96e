"""Peers that the student is measured beside: other models of the field, and our own model run the slow ways.

One file, one peer. Each has `make(spec, ...) -> Unit`: the work that a live stream repeats, on resident input, and how
many frames one repetition answers. Weights are random: time does not depend on them. The caller sets the threads.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What is timed: call it; divide by `frames` for the cost of a frame."""

    work: Callable[[], object]
    frames: int
    """Frames of prediction that one call gives."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """What else is worth a column: parameters, multiply-adds, seconds of compilation."""

    def __call__(self) -> object:
        """Do the work once."""
        return self.work()


def parameters(model: nn.Module) -> int:
    """Trainable numbers of a model."""
    return sum(p.numel() for p in model.parameters())


def multiply_adds(work: Callable[[], object]) -> int:
    """Multiply-adds of one call in matrix products, convolutions and attention; norms and activations are left out."""
    import torch
    from torch.backends import mha
    from torch.utils.flop_counter import FlopCounterMode

    fast = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)  # one fused operation otherwise, that the counter does not know
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            work()
    finally:
        mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() // 2
