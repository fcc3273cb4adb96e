"""What one step of the student costs, beside its peers and its own slow forms, in one process where they take turns.

    python benchmarks/student.py    # a quarter of an hour: two presets, one thread and two, an hour's stream

Rows are milliseconds per answered frame. Weights are random: time does not depend on them. Ratios are taken inside this
run; medians, since machines are shared. Writes benchmarks/results/student.json; the last line is one JSON object.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if Path(sys.path[0]).resolve() == ROOT / "benchmarks":
    sys.path[0] = str(ROOT)  # run as a file, this folder would hide the package `student`

import json  # noqa: E402 - after the path
import os  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from typing import Any  # noqa: E402

from benchmarks.step_files import Files, Step, peak_graphs, session  # noqa: E402
from dyad.config import as_dict, parse, run_main  # noqa: E402

SLOW_MS = 5.0
"""From here on a unit is called twice a turn instead of twenty times."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is timed, and how often."""

    preset: str = "small"
    """File in configs/student: the student that is measured."""
    plain: str = "base"
    """The preset with plain convolutions; empty leaves it out."""
    rounds: int = 30
    """Turns of every unit."""
    stream_minutes: float = 60.0
    """Length of the long stream; 0 leaves it out."""
    paced_s: float = 20.0
    """Seconds of the paced run with busy neighbours; 0 leaves it out."""
    peers: bool = True
    """Time torch peers too."""
    compile: bool = True
    """Time torch.compile too: half a minute of compiling."""
    out: Path = ROOT / "benchmarks" / "results" / "student.json"
    """Results file."""


def time_in_turns(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of single calls; the units take turns, so that a busy moment slows them alike."""
    import torch

    times: dict[str, list[float]] = {name: [] for name in steps}
    with torch.no_grad():
        for step in steps.values():
            step()
        for _ in range(rounds):
            for name, step in steps.items():
                calls = 2 if times[name] and min(times[name]) > SLOW_MS else 20
                step()
                for _ in range(calls):
                    start = time.perf_counter()
                    step()
                    times[name].append(1e3 * (time.perf_counter() - start))
    return times


def long_stream(files: Files, minutes: float) -> dict[str, float]:
    """Stream for so long; then the old stream and one of a minute take turns. Also the memory of the process.

    Both sessions are opened at the start: where their weights lie in memory moves a step by some per cent.
    """
    import numpy as np
    import psutil

    me, old, fresh = psutil.Process(), session(files.paths["int8"]), session(files.paths["int8"])
    names = list(files.states)
    wanted = ["logits", *(f"{n}_next" for n in names)]

    def run(opened: Any, state: dict[str, Any]) -> dict[str, Any]:
        _, *new = opened.run(wanted, files.feed | state)
        return dict(zip(names, new, strict=True))

    state, young, minute = dict(files.states), dict(files.states), 1800
    for _ in range(minute):
        state, young = run(old, state), run(fresh, young)
    early = me.memory_info().rss
    for _ in range(int(minutes * minute) - minute):
        state = run(old, state)
    late = me.memory_info().rss
    pairs = []
    for turn in range(100):
        took = []
        for opened, which in ((old, state), (fresh, young))[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            for _ in range(50):
                which = run(opened, which)
            took.append(time.perf_counter() - start)
        pairs.append(took[0] / took[1] if turn % 2 else took[1] / took[0])
    return {
        "minutes": minutes,
        "step_old_vs_young": round(float(np.median(pairs)), 4),
        "memory_after_vs_first_minute": round(late / early, 4),
        "memory_mb": round(late / 1e6, 1),
    }


def paced(files: Files, seconds: float) -> dict[str, float]:
    """The step at 30 Hz while another thread decodes, finds faces and evicts the caches, as the loop's threads do."""
    import threading

    import cv2
    import numpy as np

    from student.face import FaceTracker

    opened, stop = session(files.paths["int8"]), threading.Event()
    feed, names = files.feed | files.states, ["logits", *(f"{n}_next" for n in files.states)]

    def neighbour() -> None:
        rng, tracker = np.random.default_rng(0), FaceTracker()
        picture = rng.integers(0, 256, (720, 1280, 3), dtype=np.uint8)
        jpeg, waste = cv2.imencode(".jpg", picture)[1], np.zeros(1 << 25, np.uint8)
        while not stop.is_set():
            start = time.perf_counter()
            tracker.step(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))
            waste += 1
            stop.wait(max(0.0, 1 / 30 - (time.perf_counter() - start)))

    thread = threading.Thread(target=neighbour, daemon=True)
    thread.start()
    took, due = [], time.perf_counter()
    for _ in range(int(30 * seconds)):
        due += 1 / 30
        time.sleep(max(0.0, due - time.perf_counter()))
        start = time.perf_counter()
        opened.run(names, feed)
        took.append(1e3 * (time.perf_counter() - start))
    stop.set()
    thread.join()
    return {f"p{q}_ms": round(float(np.percentile(took, q)), 3) for q in (50, 90, 99)}


def torch_units(config: Config, spec: Any) -> dict[str, Any]:
    """Name → peer (`benchmarks.peers.Unit`)."""
    from benchmarks.peers import eager, resnet_gru, transvae

    units = {f"torch, {way}": eager.make(spec, way) for way in ("window", "cached_eyes", "step")}
    if config.compile:
        try:
            units["torch, compiled step"] = eager.make(spec, "compiled")
        except eager.NoCompilerError as error:
            print(f"left out: {error}")
    for px in (112, 224):
        units[f"ResNet18 + biGRU, {px} px"] = resnet_gru.make(spec, px)
    units["TransVAE, as published"] = transvae.make("as_published")
    units["TransVAE, new frames only"] = transvae.make("new_frames_only")
    return units


def row(times: list[float], frames: int = 1) -> dict[str, float]:
    """Best, median and 99th percentile, milliseconds per frame."""
    import numpy as np

    t = np.array(times) / frames
    return {
        "best_ms": round(float(t.min()), 4),
        "p50_ms": round(float(np.median(t)), 4),
        "p99_ms": round(float(np.percentile(t, 99)), 4),
        "calls": len(times),
    }


def ratios_of(rows: dict[str, dict[str, float]], presets: list[str]) -> dict[str, float]:
    """What the bars are about; medians of one run."""
    small = presets[0]
    ours = rows[f"{small} int8"]["p50_ms"]
    against = {
        "speedup_vs_eager_window": "torch, window",
        "speedup_vs_eager_cached_eyes": "torch, cached_eyes",
        "speedup_vs_eager_step": "torch, step",
        "speedup_vs_compiled_step": "torch, compiled step",
        "speedup_vs_resnet_gru": "ResNet18 + biGRU, 112 px",
        "speedup_vs_resnet_gru_224": "ResNet18 + biGRU, 224 px",
        "speedup_vs_transvae_published": "TransVAE, as published",
        "speedup_vs_transvae_cached": "TransVAE, new frames only",
        "int8_vs_fp32": f"{small} fp32",
        "cpu_flavour_vs_signed": f"{small} signed",
    }
    found = {name: rows[peer]["p50_ms"] / ours for name, peer in against.items() if peer in rows}
    for preset in presets[1:]:
        found[f"int8_vs_fp32_{preset}"] = rows[f"{preset} fp32"]["p50_ms"] / rows[f"{preset} int8"]["p50_ms"]
        found[f"step_{preset}_vs_{small}"] = rows[f"{preset} int8"]["p50_ms"] / ours
    for name in (f"{small} int8", f"{small} fp32"):
        if f"{name}, 2 threads" in rows:
            found[f"{name.split()[1]}_two_threads"] = rows[name]["p50_ms"] / rows[f"{name}, 2 threads"]["p50_ms"]
    return {k: round(v, 3) for k, v in found.items()}


def main(argv: list[str] | None = None) -> int:
    """Build, time, print the table and the JSON line."""
    config = parse(Config, argv, prog="python benchmarks/student.py", description=(__doc__ or "").splitlines()[0])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    from dyad.provenance import run_card, write_json

    torch.set_num_threads(1)
    presets = [p for p in (config.preset, config.plain) if p]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {preset: Files(preset, folder) for preset in presets}
        units: dict[str, tuple[Step, int]] = {}
        for preset, made in files.items():
            units |= {f"{preset} {kind}": (made.step(kind), 1) for kind in ("int8", "fp32", "signed", "eyes")}
            units |= {f"{preset} {kind}, 2 threads": (made.step(kind, 2), 1) for kind in ("int8", "fp32")}
        peaks = peak_graphs(folder)
        units |= {name: (step, 1) for name, (step, _) in peaks.items()}
        peers = torch_units(config, files[config.preset].spec) if config.peers else {}
        units |= {name: (peer.work, peer.frames) for name, peer in peers.items()}
        times = time_in_turns({name: step for name, (step, _) in units.items()}, config.rounds)
        rows = {name: row(times[name], frames) for name, (_, frames) in units.items()}
        torch.set_num_threads(2)
        again = time_in_turns({name: peer.work for name, peer in peers.items()}, max(config.rounds // 5, 2))
        torch.set_num_threads(1)
        rows |= {f"{name}, 2 threads": row(again[name], peer.frames) for name, peer in peers.items()}
        facts: dict[str, Any] = {"peers": {name: dict(peer.facts) for name, peer in peers.items()}}
        peak = {name: work / rows[name]["best_ms"] / 1e6 for name, (_, work) in peaks.items()}
        conv = max(v for k, v in peak.items() if k.startswith("conv"))
        for preset, made in files.items():
            reached = made.multiply_adds / rows[f"{preset} eyes"]["p50_ms"] / 1e6
            facts[preset] = {
                "eyes_mega_multiply_adds": round(made.multiply_adds / 1e6, 1),
                "eyes_giga_multiply_adds_per_s": round(reached, 1),
                "eyes_share_of_conv_peak": round(reached / conv, 3),
                "megabytes": made.megabytes,
                "kernels": made.kernels,
            }
        if config.stream_minutes:
            facts["long_stream"] = long_stream(files[config.preset], config.stream_minutes)
        if config.paced_s:
            facts["paced_30_hz"] = paced(files[config.preset], config.paced_s)
    print(f"{'unit':34s} {'best':>9s} {'p50':>9s} {'p99':>9s}  ms per frame")
    for unit, r in rows.items():
        print(f"{unit:34s} {r['best_ms']:9.3f} {r['p50_ms']:9.3f} {r['p99_ms']:9.3f}")
    found = ratios_of(rows, presets)
    for key, value in found.items():
        print(f"{key:34s} {value:9.2f} x")
    facts["int8_peak_giga_multiply_adds_per_s"] = {k: round(v) for k, v in peak.items()}
    for key, value in facts.items():
        print(f"{key}: {value}")
    card = run_card(command="benchmarks/student.py", config=as_dict(config) | {"out": config.out.name})
    result = {**found, "facts": facts, "rows": rows, "run": card}
    write_json(config.out, result)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    run_main(main)
