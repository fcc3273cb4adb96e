"""One process or several, one student: `accelerate launch --num_processes 4 -m distill.train …`.

Every process draws clips of its own, and gradients are averaged before each step, so the batch grows with the number of
processes. A student has a few million weights: one sum over all of them, after the backward pass, costs less than
wrapping a model whose layers change when quantisation begins. Weights stay equal on all processes, bit for bit; the
first one decodes, validates and writes.
"""

import contextlib
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
        if self.size > 1:
            from accelerate import Accelerator

            accelerator: Any = Accelerator(cpu=device == "cpu" or not torch.cuda.is_available())
            self.rank, self.device = int(accelerator.process_index), torch.device(accelerator.device)
            return
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"device {device!r}: torch sees no GPU here; use --device cpu")
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.rank, self.device = 0, torch.device(chosen)

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def seed(self, *parts: int) -> list[int]:
        """Seed of a draw: differs between processes, and is the plain one where there is one process."""
        return [*parts, self.rank] if self.size > 1 else list(parts)

    def average(self, parameters: Iterable[Tensor]) -> None:
        """Average the gradients of all processes, in place."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        torch.distributed.all_reduce(flat)
        flat /= self.size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.reshape(gradient.shape))

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
