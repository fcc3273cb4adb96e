"""What was taken, what was refused and why: for the terminal and as `report.json`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dyad.prepare.build import Built


def as_json(
    splits: Mapping[str, Sequence[Built]],
    refused: Mapping[str, str],
    unused_files: Sequence[Path],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Plain data: counts, one entry per taken session, one reason per refused pair."""
    unused_units = Counter(unit for group in splits.values() for b in group for unit in b.unused_units)
    taken = [_entry(split, b) for split, group in splits.items() for b in group]
    return {
        "counts": {
            "pairs": len(taken) + len(refused),
            "taken": len(taken),
            "refused": len(refused),
            **{split: len(group) for split, group in splits.items()},
        },
        "taken": sorted(taken, key=lambda e: e["id"]),
        "refused": [{"id": k, "reason": v} for k, v in sorted(refused.items())],
        "unused_units": dict(sorted(unused_units.items())),
        "unused_files": [str(p) for p in unused_files],
        "notes": list(notes),
    }


def _entry(split: str, built: Built) -> dict[str, Any]:
    session = built.session
    unknown = np.isnan(session.prob) & np.isnan(session.act)
    units = [u for a, u in enumerate(session.au_names) if not unknown[:, a].all()]
    return {
        "id": session.id,
        "split": split,
        "duration_s": round(session.duration_s, 3),
        "n_frames": session.n_frames,
        "table_style": built.dialect,
        "units": units,
        "masked_units": [u for u in session.au_names if u not in units],
        "masked_rows": built.masked_rows,
        "notes": list(built.notes),
    }


def as_text(report: Mapping[str, Any]) -> str:
    """The report for a terminal: one line per pair, then the counts."""
    wide = max([24, *(len(e["id"]) for e in (*report["taken"], *report["refused"]))])
    lines = [f"{'pair':{wide}} {'split':6} {'seconds':>8} {'units':>5}  notes"]
    for e in report["taken"]:
        notes = [*e["notes"], *([f"masked: {' '.join(e['masked_units'])}"] if e["masked_units"] else [])]
        lines.append(f"{e['id']:{wide}} {e['split']:6} {e['duration_s']:8.2f} {len(e['units']):5d}  {'; '.join(notes)}")
    lines += [f"{e['id']:{wide}} refused  {e['reason']}" for e in report["refused"]]
    if report["unused_units"]:
        counted = ", ".join(f"{unit} ({n})" for unit, n in report["unused_units"].items())
        lines.append(f"known but unused units: {counted}")
    if report["unused_files"]:
        lines.append(f"tables of speakers, not used: {len(report['unused_files'])}")
    lines += report["notes"]
    counts = report["counts"]
    shares = f"{counts['train']} for training, {counts['val']} for validation"
    if "test" in counts:
        shares += f", {counts['test']} for testing"
    lines.append(f"{counts['pairs']} pairs: {counts['taken']} taken, {counts['refused']} refused; {shares}")
    return "\n".join(lines)
