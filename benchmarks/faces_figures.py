"""What the README says of the face stage, from its results file."""

from typing import Any


def told(result: dict[str, Any]) -> str:
    """Cost, steadiness and first box in one table, then whom the robot watches."""
    run, found = result["run"], result["all"]
    machine = run["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores, {run['time_utc'][:10]}"
    source = f"[results](benchmarks/results/faces.json), `python -m benchmarks.faces`, {where}"
    lines = [
        f"Face stage on one thread over {found['frames']} frames of {len(result['clips'])} real clips ({source}):",
        "",
        "| processor time, ms | mean | p50 | p95 | p99 | worst until the first box | jitter, % of the width |",
        "|---|---|---|---|---|---|---|",
    ]
    titles = {
        "the loop's": "the loop's",
        "training's": "training's tracker",
        "every frame": "the cascade on every frame",
    }
    for way, row in found["ways"].items():
        cost = " | ".join(f"{row['processor'][key]:.1f}" for key in ("mean_ms", "p50_ms", "p95_ms", "p99_ms"))
        worst, jitter = row["worst_until_first_box_ms"], 100 * row["jitter"]
        lines.append(f"| {titles[way]} | {cost} | {worst:.1f} | {jitter:.2f} |")
    first, same = max(found["ways"]["the loop's"]["first_box_frames"]), 100 * found["boxes_as_in_training"]
    said = (
        f"{found['ratio']:.1f} × cheaper than the cascade on every frame; the first box comes within {first} frames, "
    )
    said += f"and from then on {same:.0f} % of the boxes are training's to the last digit."
    pairs = result["pairs"]
    if pairs:
        held = pairs["held_out"]["weights"]
        watched, unseen = (100 * share for share in (pairs["talker_watched_share"], held["without_the_two"]))
        said += f" Two talking people side by side ({pairs['pairs']} pairs): the one whose voice it is is watched in "
        said += f"{watched:.0f} % of the time after 1.5 s, with weights chosen on other clips {unseen:.0f} %. "
        said += f"Numbers changed {pairs['numbers_changed']} times in {pairs['frames']} frames."
    return "\n".join([*lines, "", said])
