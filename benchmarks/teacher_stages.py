"""How `benchmarks/teacher.py` measures: a stopwatch for the stages of labelling, the machine's peak, and turns."""

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.teacher_ways import Plain

STAGES = ("preprocess", "pictures", "sound", "language", "language head", "tokens", "align and blend")


class Stopwatch:
    """Seconds by stage; calls are timed from start to return, with the device waited for at both ends."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.seconds: dict[str, float] = dict.fromkeys((*STAGES, "features"), 0.0)
        self._undo: list[Callable[[], object]] = []

    def wait(self) -> float:
        """The time when the device has done all that it was given."""
        if self.device.type == "cuda":
            import torch

            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def module(self, name: str, module: Any) -> None:
        """Time every call of a module."""
        begun: list[float] = []

        def done(*_: Any) -> None:
            self.seconds[name] += self.wait() - begun.pop()

        before = module.register_forward_pre_hook(lambda *_: begun.append(self.wait()))
        self._undo += [before.remove, module.register_forward_hook(done).remove]

    def method(self, name: str, owner: Any, method: str) -> None:
        """Time every call of an object's method."""
        called = getattr(owner, method)

        def timed(*args: Any, **more: Any) -> Any:
            start = self.wait()
            result = called(*args, **more)
            self.seconds[name] += self.wait() - start
            return result

        vars(owner)[method] = timed
        self._undo.append(lambda: vars(owner).pop(method))

    def close(self) -> None:
        """Watch no longer."""
        for undo in self._undo:
            undo()
        self._undo.clear()


def watch(way: Any, device: Any) -> Stopwatch:
    """A stopwatch on the parts of a back end of `benchmarks.teacher_ways`."""
    seen, plain, teacher = Stopwatch(device), isinstance(way, Plain), way.teacher
    core = way.core if plain else teacher.core
    parts = {"pictures": core.visual, "sound": core.audio_tower, "language": core.model, "language head": core.lm_head}
    for name, part in (parts | {"tokens": way.read_out.tokens}).items():
        seen.module(name, part)
    for owner, method in [(way, "prepare")] if plain else [(teacher, "pack_stretch"), (teacher, "patches")]:
        seen.method("preprocess", owner, method)
    seen.method("features", way, "features")
    return seen


def stages(way: Any, run: Callable[[], object], device: Any, rounds: int) -> dict[str, float]:
    """Median seconds of a run by stage; runs of their own, since waiting for the device costs time too."""
    watched, runs = watch(way, device), []
    for _ in range(rounds):
        watched.seconds = dict.fromkeys(watched.seconds, 0.0)
        start = watched.wait()
        run()
        took = watched.wait() - start
        runs.append(watched.seconds | {"align and blend": took - watched.seconds["features"], "all": took})
    watched.close()
    return {name: statistics.median(r[name] for r in runs) for name in (*STAGES, "all")}


def matmul_peak(sizes: list[tuple[int, int, int]], device: Any, dtype: Any, seconds: float = 0.2) -> float:
    """Operations per second of the best of these matrix products (rows, inner, columns)."""
    import torch

    best, clock = 0.0, Stopwatch(device)
    for rows, inner, columns in sizes:
        x = torch.randn(rows, inner, device=device, dtype=dtype)
        w = torch.randn(columns, inner, device=device, dtype=dtype)
        torch.nn.functional.linear(x, w)
        begun = start = clock.wait()
        while start - begun < seconds:
            for _ in range(10):
                torch.nn.functional.linear(x, w)
            end = clock.wait()
            best, start = max(best, 20.0 * rows * inner * columns / (end - start)), end
    return best


def in_turns(units: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each unit; they take turns, so that a busy moment slows them alike."""
    times: dict[str, list[float]] = {name: [] for name in units}
    for turn in range(rounds):
        for name in list(units)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            units[name]()
            times[name].append(time.perf_counter() - start)
    return times
