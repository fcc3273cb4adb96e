"""Cameras, microphones and what the user writes for them: opened by name, refused in a sentence, reopened when lost."""

import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.sources import Source, camera, capture, file, live, microphone, open_source
from deploy.sources.camera import camera as a_camera
from deploy.sources.capture import Follower, Senses
from deploy.sources.microphone import Microphone
from dyad import media
from dyad.clock import SAMPLE_RATE_HZ, FakeClock, MonotonicClock
from dyad.media import MediaError
from student.spec import StudentSpec

SPEC = StudentSpec()
LAVFI = "camera:lavfi:testsrc=size=64x48:rate=30,realtime"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    pictures = (np.full((48, 64, 3), 5 * t, np.uint8) for t in range(15))
    media.write_video(path, pictures, audio=np.full(8000, 0.1, np.float32))
    return path


@pytest.fixture
def mute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without PortAudio."""

    def missing() -> Any:
        raise MediaError("a microphone needs PortAudio (not found); on Debian: apt install libportaudio2")

    monkeypatch.setattr(microphone, "_portaudio", missing)


def opened(source: str, audio: str | None = None, frames: int | None = None) -> Source:
    return open_source(source, audio, SPEC, MonotonicClock(), frames)


def played(source: Source, frames: int) -> list[Any]:
    clock = MonotonicClock()
    source.wait_until_ready()
    source.start(clock.now_s())
    packets = []
    for t in range(frames):
        clock.sleep_until(source.due_s(t))
        packets.append(source.read(t))
    source.close()
    return packets


def test_a_camera_opened_through_ffmpegs_device_layer_is_followed_in_time(mute: None) -> None:
    source = opened(LAVFI)
    packets = played(source, 30)
    assert all(p.picture.shape == (48, 64, 3) for p in packets)
    assert sum("held_picture" in p.flags for p in packets) <= 10
    assert source.counts.pictures >= 20
    assert len({p.picture.tobytes() for p in packets}) > 15, "the pictures move on"


def test_a_microphone_that_is_missing_beside_a_camera_is_said_and_the_pictures_go_on(mute: None) -> None:
    source = opened(LAVFI)
    assert "libportaudio2; going on without sound" in source.greeting
    packets = played(source, 3)
    assert all("no_sound" in p.flags and p.picture is not None for p in packets)
    assert source.note == "", "what was greeted with is not said twice"
    assert opened(LAVFI, "none").greeting == ""


@pytest.mark.parametrize(
    ("source", "audio", "words"),
    [
        (
            "camera:93",
            None,
            r"camera:93: cannot be opened \(No such file or directory\); .*choose with --source camera:N",
        ),
        ("camera:lavfi:nonsense", None, "camera:lavfi:nonsense: cannot be opened"),
        ("none", "mic:default", "a microphone needs PortAudio"),
        ("none", None, "neither pictures nor sound"),
        ("none", "none", "neither pictures nor sound"),
        ("mic:default", None, "a microphone gives no pictures; say --source none --audio mic:default"),
        ("gopher://x", None, "gopher://x: unknown kind of source; known are a video file, camera:0"),
        (LAVFI, "sound.wav", "live pictures take live sound, got sound.wav"),
        ("{clip}", "mic:default", "a recording takes its sound from a file, got mic:default"),
        ("nowhere.mp4", None, "nowhere.mp4: no such file"),
        ("{clip}", "nowhere.wav", "nowhere.wav: no such file"),
        ("webrtc://0.0.0.0", None, "others could look through the robot's eyes"),
    ],
)
def test_what_cannot_be_opened_is_one_sentence(
    clip: Path, mute: None, source: str, audio: str | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        opened(source.replace("{clip}", str(clip)), audio)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "package", "extra"),
    [("furhat://127.0.0.1", "websockets.sync.client", "furhat"), ("webrtc", "aiohttp", "webrtc")],
)
def test_senses_that_miss_a_package_name_it_and_the_command_that_brings_it(
    source: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MediaError, match=rf"{package.partition('.')[0]}; install it with: uv sync --extra {extra}$"):
        opened(source)


def test_a_robots_own_module_feeds_the_same_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    class Robot:
        name, greeting, sees, hears = "furhat://host", "", True, True

        def __init__(self, url: str, *, sound: bool) -> None:
            self.url, self.sound = url, sound

        def open(self) -> None: ...

        def follow(self, senses: Senses, stop: threading.Event) -> None:
            now_s = senses.clock.now_s()
            for i in range(12):
                senses.see(np.full((2, 2, 3), 7, np.uint8), now_s - 1 + i / 30)
            senses.see(np.full((2, 2, 3), 9, np.uint8), now_s)
            senses.hear(np.full(1600, 0.5, np.float32), now_s - 0.1)
            stop.wait()

        def close(self) -> None: ...

    monkeypatch.setitem(sys.modules, "deploy.sources.furhat", SimpleNamespace(device=Robot))
    packet = played(opened("furhat://host"), 1)[0]
    assert packet.picture[0, 0, 0] == 9
    assert packet.audio.max() == 0.5


def test_what_was_written_chooses_the_source(clip: Path, tmp_path: Path, mute: None) -> None:
    media.write_wav(tmp_path / "a.wav", np.full(8000, 0.25, np.float32))
    recording = opened(str(clip), str(tmp_path / "a.wav"))
    assert isinstance(recording, file.FileSource)
    assert recording.recording == clip
    assert recording.sound.max() == pytest.approx(0.25, abs=1e-3)
    silent = opened(str(clip), "none")
    assert not len(silent.sound)
    assert silent.note == ""
    heard = opened("none", str(tmp_path / "a.wav"))
    assert [p.flags for p in played(heard, 15)] == [("no_picture",)] * 15
    assert heard.read(15) is None
    camera_source = opened(LAVFI, "none")
    assert isinstance(camera_source, live.LiveSource)
    assert camera_source.recording is None
    for source in (recording, silent, heard, camera_source):
        source.close()


def test_a_file_named_like_a_device_is_still_a_file(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "camera:0").write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    source = opened("camera:0")
    assert isinstance(source, file.FileSource)
    assert source.name == "camera:0"
    source.close()


@pytest.mark.parametrize(
    ("platform", "address", "driver", "url"),
    [
        ("linux", "0", "v4l2", "/dev/video0"),
        ("linux", "/dev/v4l/by-id/usb-cam", "v4l2", "/dev/v4l/by-id/usb-cam"),
        ("darwin", "0", "avfoundation", "0:none"),
        ("win32", "Integrated Camera", "dshow", "video=Integrated Camera"),
    ],
)
def test_each_system_has_its_own_name_for_a_camera(platform: str, address: str, driver: str, url: str) -> None:
    got, where, options = camera._driver(address, platform)
    assert (got, where) == (driver, url)
    assert options["video_size"] == "640x480"
    assert options["framerate"] == "30"


class Stop:
    """An event on which nobody really waits: it notes how long they would have."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.over = False

    def is_set(self) -> bool:
        return self.over

    def set(self) -> None:
        self.over = True

    def wait(self, pause_s: float) -> bool:
        self.pauses.append(pause_s)
        return self.over


class Flaky:
    """A device that is lost at once and found at the attempts named."""

    name, greeting, sees, hears = "flaky", "", True, False

    def __init__(self, stop: Stop, found: set[int], attempts: int, works_s: float = 0.0) -> None:
        self.stop, self.found, self.last, self.works_s = stop, found, attempts, works_s
        self.attempt = -1
        self.closed = 0

    def open(self) -> None:
        self.attempt += 1
        if self.attempt >= self.last:
            self.stop.set()
        if self.attempt not in self.found:
            raise MediaError("flaky: cannot be opened (gone); plug it in")

    def follow(self, senses: Senses, stop: Any) -> None:
        senses.clock.advance(self.works_s)  # type: ignore[attr-defined]
        raise OSError(19, "No such device")

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    ("found", "works_s", "pauses"),
    [
        ({0}, 0.0, [0.5, 1, 2, 4, 8, 16, 30, 30]),
        ({0, 3, 6}, 60.0, [0.5, 1, 2, 0.5, 1, 2, 0.5, 1]),
        ({0, 3, 6}, 1.0, [0.5, 1, 2, 4, 8, 16, 30, 30]),
    ],
)
def test_a_lost_device_is_tried_again_after_ever_longer_pauses_and_counted_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch, found: set[int], works_s: float, pauses: list[float]
) -> None:
    stop, senses = Stop(), Senses(FakeClock())
    monkeypatch.setattr(capture, "threading", SimpleNamespace(Event=lambda: stop, Thread=threading.Thread))
    device = Flaky(stop, found, attempts=8, works_s=works_s)
    follower = Follower(device, senses)
    follower._thread.join(timeout=5)
    assert stop.pauses == pauses
    assert senses.reconnects == len(found) - 1
    assert device.closed >= len(found)
    assert follower.trouble == "flaky: cannot be opened (gone); plug it in"


def test_the_device_that_must_open_is_refused_and_those_opened_before_it_are_released() -> None:
    good, bad = a_camera("lavfi:testsrc=size=32x32:rate=30,realtime"), a_camera("lavfi:nonsense")
    with pytest.raises(MediaError, match="nonsense"):
        live.LiveSource("two", [good, bad], SPEC, MonotonicClock())
    assert good._container is None


class PortAudio:
    """A stream class of our own, where there is no device: it calls back a whole sound when started."""

    class PortAudioError(Exception):
        """What it raises."""

    def __init__(self, sound: NDArray[np.float32], *, rates: tuple[int, ...] = (SAMPLE_RATE_HZ,), adc: bool = True):
        self.sound, self.rates, self.adc, self.closed = sound, rates, adc, False
        self.overflow_at = -1

    def query_devices(self, device: object, kind: str) -> dict[str, float]:
        if device == "nobody":
            raise ValueError("No input device matching 'nobody'")
        return {"default_samplerate": float(self.rates[0])}

    def InputStream(self, *, samplerate: int, blocksize: int, callback: Any, **options: object) -> "PortAudio":  # noqa: N802
        if samplerate not in self.rates:
            raise self.PortAudioError("Invalid sample rate")
        self.rate_hz, self.block, self.callback = samplerate, blocksize, callback
        return self

    def start(self) -> None:
        for i in range(0, len(self.sound), self.block):
            block = self.sound[i : i + self.block, None]
            age_s = (len(self.sound) - i) / self.rate_hz
            when = SimpleNamespace(currentTime=7.0, inputBufferAdcTime=7.0 - age_s if self.adc else 0.0)
            self.callback(block, len(block), when, SimpleNamespace(input_overflow=i == self.overflow_at))

    def close(self) -> None:
        self.closed = True


def listened(backend: PortAudio, monkeypatch: pytest.MonkeyPatch) -> Senses:
    monkeypatch.setattr(microphone, "SILENT_S", 0.01)
    senses, device = Senses(FakeClock(100.0)), Microphone("default", backend=backend)
    device.open()
    with pytest.raises(MediaError, match="the driver gave nothing"):
        device.follow(senses, threading.Event())
    device.close()
    assert backend.closed
    return senses


def test_a_microphones_samples_lie_where_portaudio_says_they_were_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = np.arange(1, 8001, dtype=np.float32)
    senses = listened(PortAudio(sound), monkeypatch)
    assert senses.sound.end == 100 * SAMPLE_RATE_HZ
    window, heard = senses.sound.window(100 * SAMPLE_RATE_HZ, 8000)
    np.testing.assert_array_equal(window, sound)
    assert (heard, senses.sound.gaps) == (8000, 0)


def test_a_microphone_that_refuses_16_khz_is_resampled_and_keeps_pitch_and_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    t = np.arange(24000) / 48000
    senses = listened(PortAudio(np.sin(2 * np.pi * 440 * t).astype(np.float32), rates=(48000,)), monkeypatch)
    end = senses.sound.end
    assert end is not None
    assert abs(end - 100 * SAMPLE_RATE_HZ) <= 32
    window, _ = senses.sound.window(end, 4000)
    assert np.abs(np.fft.rfft(window)).argmax() * SAMPLE_RATE_HZ / 4000 == pytest.approx(440, abs=4)
    expected = np.sin(2 * np.pi * 440 * (0.5 + (np.arange(end - 4000, end) - 100 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ))
    assert np.corrcoef(window, expected)[0, 1] > 0.99, "in phase with when it was captured"


def test_a_driver_that_states_no_capture_time_is_stamped_by_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    senses = listened(PortAudio(np.ones(160, np.float32), adc=False), monkeypatch)
    assert senses.sound.end == 100 * SAMPLE_RATE_HZ


def test_a_microphone_that_is_not_there_is_one_sentence_with_a_remedy() -> None:
    with pytest.raises(MediaError, match=r"mic:nobody: cannot be opened .*; python -m sounddevice lists"):
        Microphone("nobody", backend=PortAudio(np.zeros(1, np.float32))).open()


def test_the_missing_package_and_the_missing_library_are_named_with_the_command_that_brings_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MediaError, match=r"sounddevice; install it with: uv sync --extra microphone$"):
        Microphone().open()


def test_with_portaudio_a_number_that_is_no_device_is_refused() -> None:
    pytest.importorskip("sounddevice", exc_type=OSError, reason="needs PortAudio")
    with pytest.raises(MediaError, match="mic:9999: cannot be opened"):
        Microphone("9999").open()
