"""One process or several, one student: `accelerate launch --num_processes 4 -m distill.train …`.

Every process draws clips of its own, and gradients are averaged before each step, so the batch grows with the number of
processes. A student has a few million weights: one sum over all of them, after the backward pass, costs less than
wrapping a model whose layers change when quantisation begins. Weights stay equal on all processes, bit for bit; the
first one decodes, validates and writes.
"""

import contextlib
import datetime as dt
import os
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

Precision = Literal["float32", "bfloat16"]


class Crew:
    """Which process this is, on which device, and how it meets the others."""

    def __init__(self, precision: Precision = "float32", device: str = "auto") -> None:
        """`device` auto takes a GPU where there is one. Raises ValueError for a device that is not here."""
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.precision = precision
        chosen = _open(device)
        if self.size > 1:
            from accelerate import Accelerator
            from accelerate.utils import InitProcessGroupKwargs

            patient = InitProcessGroupKwargs(timeout=dt.timedelta(hours=12))  # while the first decodes and validates
            accelerator: Any = Accelerator(cpu=chosen.type == "cpu", kwargs_handlers=[patient])
            self.rank, self.device = int(accelerator.process_index), torch.device(accelerator.device)
            return
        self.rank, self.device = 0, chosen

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def seed(self, *parts: int) -> list[int]:
        """Seed of a draw: differs between processes, and is the plain one where there is one process."""
        return [*parts, self.rank] if self.size > 1 else list(parts)

    def average(self, parameters: Iterable[Tensor]) -> None:
        """Average the gradients of all processes; a weight that some clips do not reach counts as 0 there."""
        if self.size == 1:
            return
        trained = [p for p in parameters if p.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        reached = gradients[0].new_tensor([p.grad is not None for p in trained])
        flat = torch.cat([*(g.flatten() for g in gradients), reached])
        torch.distributed.all_reduce(flat)
        *parts, reached = (flat / self.size).split([*(p.numel() for p in trained), len(trained)])
        for parameter, part, share in zip(trained, parts, reached.tolist(), strict=True):
            parameter.grad = part.reshape(parameter.shape) if share else None

    def total(self, value: Tensor) -> Tensor:
        """Sum of a number over all processes: not finite on any when it is not on one."""
        total = value.detach().clone()
        if self.size > 1:
            torch.distributed.all_reduce(total)
        return total

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            torch.distributed.barrier()

    @contextlib.contextmanager
    def lead_first(self) -> Iterator[None]:
        """The first process goes through alone, then the others: they find its files."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def autocast(self, quantising: bool) -> Any:
        """Mixed precision for the float phase; fake quantisation keeps float32, or its grid would be rounded twice."""
        enabled = self.precision == "bfloat16" and not quantising
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)


def _open(device: str) -> torch.device:
    """The device of this name; raises ValueError when it is not here."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device!r}: torch sees no GPU here; use --device cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch's own words for an unknown name, a missing backend
        raise ValueError(f"device {device!r} is not here ({str(error).splitlines()[0]}); use --device cpu") from None
    return torch.device(device)
