"""A tuning run's resume point: whole weights and optimiser state in one file, however many processes hold them.

Only what learns is in it: adapters, read-out and the training-only head. Sharded tensors (FSDP) are gathered when
written and shared out when read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from dyad.provenance import atomic_path

FILE = "resume.pt"


def whole(value: Any) -> Any:
    """A tensor gathered from its shards, on the CPU; anything else as it is. All processes must call it."""
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return value.detach().cpu().clone() if isinstance(value, Tensor) else value


def learning(model: nn.Module) -> dict[str, nn.Parameter]:
    """What learns, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Whole copies of what learns, by name."""
    return {name: whole(p) for name, p in learning(model).items()}


def put_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """The other way round. Raises ValueError where names or shapes are others."""
    mine = learning(model)
    if {n: p.shape for n, p in mine.items()} != {n: w.shape for n, w in weights.items()}:
        raise ValueError("was begun with another model or read-out")
    with torch.no_grad():
        for name, parameter in mine.items():
            parameter.copy_(like(weights[name], parameter))


def like(value: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, shared out as another one is."""
    value = value.to(other.device)
    return distribute_tensor(value, other.device_mesh, other.placements) if isinstance(other, DTensor) else value


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    """Whole copies of the state of every parameter, by its place."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {i: {k: whole(v) for k, v in optimizer.state.get(p, {}).items()} for i, p in enumerate(parameters)}


def put_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[int, Mapping[str, Any]]) -> None:
    """The other way round."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, content in state.items():
        p = parameters[i]
        optimizer.state[p] = {k: like(v, p) if v.shape == p.shape else v.clone() for k, v in content.items()}


def write(folder: Path, content: Mapping[str, Any]) -> None:
    """Write a resume point, all or nothing."""
    with atomic_path(folder / FILE) as part:
        torch.save(dict(content), part)


def read(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The resume point of a run with these settings; None where there is none. Raises ValueError for another run's."""
    path = folder / FILE
    if not path.is_file():
        return None
    content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    differing = [k for k, v in settings.items() if content["settings"].get(k) != v]
    if differing:
        raise ValueError(f"{path}: was begun with another {', '.join(differing)}; give another --out or remove it")
    return content
