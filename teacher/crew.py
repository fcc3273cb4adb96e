"""One process or several, one teacher: `accelerate launch --num_processes 4 -m teacher.tune …`.

Accelerate wraps the model: DDP by default, or FSDP with configs/teacher/fsdp.yaml when a GPU cannot hold it all. Every
process takes its share of a step's forward passes, so two processes tune as one does that accumulates twice as often.
Weights stay equal on all; the first process writes and speaks.
"""

import contextlib
import datetime as dt
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class Crew:
    """Which process this is, on which device, and how it meets the others."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self._accelerator: Any = None
        self.rank, self.device = 0, torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.size > 1:
            from accelerate import Accelerator
            from accelerate.utils import InitProcessGroupKwargs

            patient = InitProcessGroupKwargs(timeout=dt.timedelta(hours=12))  # while the first decodes
            on_cpu = self.device.type == "cpu"
            # mixed precision "no": the base brings its own, and adapters and read-out are float32
            self._accelerator = Accelerator(cpu=on_cpu, mixed_precision="no", kwargs_handlers=[patient])
            self.rank, self.device = int(self._accelerator.process_index), torch.device(self._accelerator.device)

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    @contextlib.contextmanager
    def lead_first(self) -> Iterator[None]:
        """The first process goes through alone, then the others: they find its files."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            torch.distributed.barrier()

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """The model whose forward() meets the other processes, and the optimiser of its parameters."""
        if self._accelerator is None:
            return model.to(self.device), optimizer
        return self._accelerator.prepare(model, optimizer)

    def gather_gradients(self, model: nn.Module, now: bool) -> Any:
        """Context of a backward pass: gradients are averaged over the processes in a step's last one alone."""
        return contextlib.nullcontext() if now or self._accelerator is None else self._accelerator.no_sync(model)

    def total(self, value: Tensor) -> Tensor:
        """Sum over all processes, double precision, on the CPU."""
        total = value.detach().double().to(self.device)
        if self.size > 1:
            torch.distributed.all_reduce(total)
        return total.cpu()

    def close(self) -> None:
        """Leave the others in good order."""
        if self.size > 1:
            self.wait()
            torch.distributed.destroy_process_group()
