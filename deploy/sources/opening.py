"""From what the user wrote after `--source` and `--audio` to an open source."""

from pathlib import Path

from deploy.sources.capture import Device
from deploy.sources.file import FileSource
from deploy.sources.live import Join, LiveSource
from deploy.sources.stream import SCHEMES, stream
from dyad.clock import Clock
from dyad.media import MediaError
from student.spec import StudentSpec

NONE = "none"
LIVE = ("camera", "mic", "webrtc", "furhat", *SCHEMES)
KNOWN = "a video file, camera:0, rtsp://… (rtmp, udp, tcp), webrtc, furhat://host or none"


def _kind(source: str) -> str:
    """What `source` is: "none", one of LIVE, or "file"."""
    if source == NONE or Path(source).is_file():
        return source if source == NONE else "file"
    scheme = source.split(":", 1)[0]
    if scheme in LIVE and (":" in source or scheme == "webrtc"):
        return scheme
    if "://" in source:
        raise MediaError(f"{source}: unknown kind of source; known are {KNOWN}")
    return "file"


def is_file(source: str, audio: str | None) -> bool:
    """Whether this is a recording."""
    return _kind(source) == "file" or (source == NONE and audio is not None and _kind(audio) == "file")


def open_file(source: str, audio: str | None, spec: StudentSpec, max_frames: int | None) -> FileSource:
    """A recording, with its own sound, a sound file beside it, or none."""
    kind = "file" if audio is None else _kind(audio)
    if kind not in ("file", NONE):
        raise MediaError(f"{source}: a recording takes its sound from a file, got {audio}; give a file or none")
    sound = _path(audio) if audio is not None and kind == "file" else None
    pictures = None if source == NONE else _path(source)
    return FileSource(pictures, spec, audio=sound, silent=kind == NONE, max_frames=max_frames)


def _path(name: str) -> Path:
    """The file; FFmpeg takes what is before a colon for a protocol unless the path is absolute."""
    path = Path(name).absolute() if ":" in name else Path(name)
    if path.is_dir():
        raise MediaError(f"{path}: is a folder; give a file in it")
    return path


def open_live(
    source: str, audio: str | None, spec: StudentSpec, clock: Clock, max_frames: int | None, wait_s: float
) -> LiveSource:
    """Live senses: what is seen, and what is heard beside it."""
    kind = _kind(source)
    if kind == "mic":
        raise MediaError(f"{source}: a microphone gives no pictures; say --source none --audio {source}")
    if kind == "camera" and audio is None:
        audio = "mic:default"
    eyes = [] if kind == NONE else [_device(kind, source, own_sound=audio is None)]
    ears = [] if audio in (None, NONE) else [_microphone(source, audio)]
    if not eyes and not ears:
        raise MediaError("neither pictures nor sound: --source none wants --audio mic:default or a sound file")
    name = " + ".join(device.name for device in (*eyes, *ears))
    devices, optional = (eyes, ears) if eyes else (ears, [])
    join = Join(wait_s=wait_s)
    return LiveSource(name, devices, spec, clock, optional=optional, max_frames=max_frames, join=join)


def _microphone(source: str, audio: str) -> Device:
    from deploy.sources.microphone import Microphone

    if _kind(audio) != "mic":
        raise MediaError(f"{source}: live pictures take live sound, got {audio}; give mic:default or none")
    return Microphone(audio.partition(":")[2] or "default")


def _device(kind: str, source: str, *, own_sound: bool) -> Device:
    """What sees, and hears too where it can and is wanted to."""
    if kind == "camera":
        from deploy.sources.camera import camera

        return camera(source.partition(":")[2] or "0")
    if kind == "webrtc":
        from deploy.sources.webrtc import WebRtc

        return WebRtc(source, sound=own_sound)
    if kind == "furhat":
        from deploy.sources.furhat import device

        return device(source, sound=own_sound)
    return stream(source, sound=own_sound)
