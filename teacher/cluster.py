"""Label with Ray Data: one actor to a GPU, on this machine or on a cluster, over either back end.

Ray starts the actors, feeds them as they become free, holds the rest back and restarts what dies; each actor is the
same `Labeller` that a single process runs, so the labels are the same, byte for byte. The store must lie where all
machines see it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dyad.session import Clip
from teacher.labeller import Labeller, Outcome

if TYPE_CHECKING:
    from teacher.label import Config

CLIPS_AT_A_TIME = 4
"""Sessions handed to an actor at once: enough to decode ahead, few enough to be done again after a fault."""


class Actor:
    """One labelling process on a cluster; see `Labeller`."""

    def __init__(self, config: Config) -> None:
        self.labeller = Labeller(config)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Rows of clips → rows of outcomes."""
        columns = ("id", "video", "audio", "n_frames")
        clips = [
            Clip(id=str(i), speaker_video_path=Path(str(v)), speaker_audio_path=Path(str(a)), n_frames=int(n))
            for i, v, a, n in zip(*(batch[c] for c in columns), strict=True)
        ]
        outcomes = list(self.labeller.run(clips))
        return {"session": [o.session for o in outcomes], "fault": [o.fault for o in outcomes]}


def run(config: Config, clips: list[Clip]) -> Iterator[Outcome]:
    """Label `clips` on all actors; outcomes come as they are ready.

    Raises ValueError when Ray is not installed, or the cluster does not answer.
    """
    if not clips:
        return
    ray = _connect(config.ray_address)
    gpus = int(ray.cluster_resources().get("GPU", 0))
    _require_room(ray, config.threads)
    actors = min(config.actors or max(gpus, 1), gpus or len(clips))
    rows = [
        {"id": c.id, "video": str(c.speaker_video_path.absolute()), "audio": str(c.speaker_audio_path.absolute()),
         "n_frames": c.n_frames}
        for c in clips
    ]  # fmt: skip
    table = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // CLIPS_AT_A_TIME))
    outcomes = table.map_batches(
        Actor,
        fn_constructor_args=(_everywhere(config),),
        batch_size=CLIPS_AT_A_TIME,
        batch_format="numpy",
        concurrency=actors,
        num_cpus=config.threads,
        num_gpus=1 if gpus else 0,
    )
    try:
        for row in outcomes.iter_rows():
            yield Outcome(row["session"], row["fault"])
    except ray.exceptions.RayError as error:
        cause = [line for line in str(error).splitlines() if line.strip()][-1]
        raise ValueError(
            f"--engine ray: an actor failed: {cause.strip()}; what is labelled stays, run it again"
        ) from None


def _require_room(ray: Any, threads: int) -> None:
    """Refuse actors that fit nowhere: Ray would wait for such a machine for ever."""
    widest = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
    if threads > widest:
        raise ValueError(f"--threads {threads}: no machine of the cluster has so many, the largest {widest}; lower it")


def _everywhere(config: Config) -> Config:
    """The same with paths that hold in any working directory."""
    paths: dict[str, Any] = {k: getattr(config, k).absolute() for k in ("teacher", "dataset", "out")}
    if config.base is not None and Path(config.base).is_dir():
        paths["base"] = str(Path(config.base).absolute())
    return replace(config, **paths)


def _connect(address: str | None) -> Any:
    """Ray, joined or started."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise ValueError("--engine ray wants Ray, which is not installed; run: uv sync --extra ray") from None
    try:
        ray.init(address=address or "local", ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"--ray-address {address}: no cluster answers ({str(error).splitlines()[0]})") from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray
