"""What a plan of nine horizons costs as messages of three kinds; `python -m benchmarks.network` prints it."""

import json
import struct
import timeit
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.network_judge import Script
from deploy.net.wire import decode, encode, from_plan, to_plan


def formats() -> dict[str, dict[str, float]]:
    """What a plan of nine horizons costs as messages of three kinds: bytes, and microseconds to write and to read."""
    plan = Script().plan(5, 1234.5678, 1234.5678)
    line = from_plan(plan).fields
    lists = {k: getattr(plan, k).tolist() for k in ("target_times_s", "au", "confidence")}
    arrays = [plan.target_times_s, plan.au, plan.confidence]
    packed = struct.Struct("<BQdH")
    kinds: dict[str, tuple[Callable[[], bytes], Callable[[bytes], Any]]] = {
        "line and arrays": (lambda: encode(from_plan(plan)), lambda content: to_plan(decode(content))),
        "JSON": (
            lambda: json.dumps(line | lists, separators=(",", ":")).encode(),
            lambda c: [np.array(x, np.float32) for x in json.loads(c).values() if isinstance(x, list)],
        ),
        "packed": (
            lambda: packed.pack(1, 5, plan.captured_at_s, 9) + b"".join(a.tobytes() for a in arrays),
            lambda c: (
                packed.unpack_from(c),
                np.frombuffer(c, "<f8", 9, packed.size),
                np.frombuffer(c, "<f4", 306, 91),
            ),
        ),
    }
    return {name: _cost(write, read) for name, (write, read) in kinds.items()}


def _cost(write: Callable[[], bytes], read: Callable[[bytes], Any]) -> dict[str, float]:
    content, times = write(), {"bytes": float(len(write()))}
    for name, call in (("write_us", write), ("read_us", lambda: read(content))):
        times[name] = round(1e6 * min(timeit.repeat(call, number=500, repeat=5)) / 500, 1)
    return times
