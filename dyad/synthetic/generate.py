"""Write a dataset of synthetic dyads: script, voice, face and listener of every session, and the truth behind them.

ROOT/processed/{train,val}          the product's schema
ROOT/media/<id>_speaker.{mp4,wav}   what the speaker showed and said
ROOT/truth/<id>.npz                 events, drawn speaker units [T, 17], listener movements, persona
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from dyad.action_units import SEED17
from dyad.clock import FPS
from dyad.media import VideoWriter, write_wav
from dyad.provenance import atomic_path
from dyad.session import Session
from dyad.synthetic import listener
from dyad.synthetic.face import SIZE_PX, FaceArtist
from dyad.synthetic.identity import Identity
from dyad.synthetic.script import Script, write_script
from dyad.synthetic.voice import draw_voice

EVENT = np.dtype([("kind", "U16"), ("onset", "i4"), ("known_at", "i4"), ("hold_frames", "i4"), ("amplitude", "f4")])


@dataclass(frozen=True)
class Job:
    """One session to make."""

    id: str
    root: Path
    seed: tuple[int, int]
    n_frames: int
    voice: str
    media: bool


def make_session(job: Job) -> Session:
    """Make one session; the same job gives the same bytes."""
    script_rng, face_rng, listener_rng = (np.random.default_rng([*job.seed, k]) for k in range(3))
    script = write_script(job.n_frames, draw_voice(script_rng, job.voice), script_rng)
    persona = listener.Persona.draw(listener_rng)
    wobble = listener.noise(job.n_frames, listener_rng)
    moves = listener.react(script.events, job.n_frames, persona, listener_rng)
    prob = listener.probability(listener.activation(moves, job.n_frames), persona, wobble)
    media = job.root / "media"
    video, sound = media / f"{job.id}_speaker.mp4", media / f"{job.id}_speaker.wav"
    if job.media:
        _write_media(video, sound, script, face_rng)
    _write_truth(job.root / "truth" / f"{job.id}.npz", script, moves, persona)
    return Session(
        id=job.id,
        speaker_video_path=video,
        speaker_audio_path=sound,
        listener_video_path=None,
        listener_audio_path=None,
        au_names=SEED17.units,
        prob=prob,
        act=listener.hysteresis(prob),
        fps=float(FPS),
        duration_s=job.n_frames / FPS,
        n_frames=job.n_frames,
    )


def _write_media(video: Path, sound: Path, script: Script, rng: np.random.Generator) -> None:
    artist = FaceArtist(Identity.draw(rng, SIZE_PX), rng)
    with atomic_path(video) as part, VideoWriter(part, (SIZE_PX, SIZE_PX), crf=22) as writer:
        for t in range(script.n_frames):
            writer.write(artist.draw(script.speaker_au[t], script.pose[t], t))
    with atomic_path(sound) as part:
        write_wav(part, script.sound)


def _write_truth(path: Path, script: Script, moves: list[listener.Movement], persona: listener.Persona) -> None:
    events = np.array([tuple(asdict(e).values()) for e in script.events], EVENT)
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            events=events,
            speaker_au=script.speaker_au,
            speaker_au_names=np.array(SEED17.units),
            movements=np.array([tuple(asdict(m).values()) for m in moves], np.float32).reshape(-1, 7),
            persona=np.array([persona.reaction, persona.mimicry, persona.backchannel, persona.lag, *persona.bias]),
        )


def make_all(jobs: list[Job], workers: int) -> Iterator[Session]:
    """Make the sessions in order, `workers` at a time; what comes out does not depend on how many."""
    for name in ("media", "truth"):
        (jobs[0].root / name).mkdir(parents=True, exist_ok=True)
    if workers <= 1:
        yield from map(make_session, jobs)
        return
    with ProcessPoolExecutor(max_workers=workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(make_session, jobs)
