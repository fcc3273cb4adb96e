"""Network streams over loopback, by the real protocols: both tracks arrive in step, and come back when lost."""

import math
import select
import socket
import threading
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import pytest

from deploy.sources import Packet
from deploy.sources import stream as streams
from deploy.sources.live import LiveSource
from deploy.sources.stream import SCHEMES, stream, without_password
from dyad.clock import FPS, MonotonicClock
from dyad.media import MediaError
from student.spec import StudentSpec

RATE_HZ, SIZE = 48000, (160, 120)
TONE_HZ = 440.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def grey(frame: int) -> av.VideoFrame:
    shade = 255 if frame // 15 % 2 else 0  # light and dark by turns of half a second
    out = av.VideoFrame.from_ndarray(np.full((SIZE[1], SIZE[0], 3), shade, np.uint8), format="rgb24")
    out.pts, out.time_base = frame, Fraction(1, FPS)
    return out


def tone(first: int, length: int = 960) -> av.AudioFrame:
    """Loud while the picture is light, else silent."""
    t = first + np.arange(length)
    loud = (t * FPS // RATE_HZ) // 15 % 2
    samples = (0.5 * loud * np.sin(2 * math.pi * TONE_HZ * t / RATE_HZ) * 32767).astype(np.int16)
    out = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    out.rate, out.pts, out.time_base = RATE_HZ, first, Fraction(1, RATE_HZ)
    return out


class Sender(threading.Thread):
    """Pushes pictures and sound in real time until told to stop."""

    def __init__(self, targets: dict[str, tuple[str, str]], stop: threading.Event) -> None:
        """`targets`: for "video" and "audio" the address and FFmpeg's name of the format."""
        super().__init__(daemon=True)
        self._targets, self.stop_event = targets, stop

    def run(self) -> None:
        clock = MonotonicClock()
        places = {place: av.open(place[0], "w", format=place[1]) for place in set(self._targets.values())}
        video = places[self._targets["video"]].add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        video.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10"}
        sound = places[self._targets["audio"]].add_stream("mp2" if len(places) == 1 else "pcm_s16be", rate=RATE_HZ)
        began_s, heard, frame = clock.now_s(), 0, 0
        try:
            while not self.stop_event.is_set():
                clock.sleep_until(began_s + frame / FPS)
                places[self._targets["video"]].mux(video.encode(grey(frame)))
                while heard < (frame + 1) * RATE_HZ // FPS:
                    places[self._targets["audio"]].mux(sound.encode(tone(heard)))
                    heard += 960
                frame += 1
        except OSError:
            return  # the receiver hung up
        finally:
            self.stop_event.set()


class RtspServer(threading.Thread):
    """As much of RTSP as a camera speaks: one viewer after another, RTP interleaved into the one connection."""

    SDP = (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\n"
        "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:0\r\n"
        "m=audio 0 RTP/AVP 97\r\na=rtpmap:97 L16/48000/1\r\na=control:1\r\n"
    )

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self.viewers = 0
        self.hang_up = threading.Event()

    def run(self) -> None:
        while True:
            try:
                viewer, _ = self._door.accept()
            except OSError:
                return
            self.viewers += 1
            self.hang_up = threading.Event()
            with viewer:
                self._serve(viewer)

    def _serve(self, viewer: socket.socket) -> None:
        lines = viewer.makefile("rb")
        while request := lines.readline().decode().strip():
            head = {}
            while line := lines.readline().decode().strip():
                key, _, value = line.partition(": ")
                head[key.lower()] = value
            method = request.split(" ")[0]
            extra = {
                "OPTIONS": "Public: DESCRIBE, SETUP, PLAY\r\n",
                "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(self.SDP)}\r\n",
                "SETUP": f"Transport: {head.get('transport', '')}\r\n",
            }.get(method, "")
            body = self.SDP if method == "DESCRIBE" else ""
            answer = f"RTSP/1.0 200 OK\r\nCSeq: {head['cseq']}\r\nSession: 1\r\n{extra}\r\n{body}"
            viewer.sendall(answer.encode())
            if method == "PLAY":
                self._play(viewer)
                return

    def _play(self, viewer: socket.socket) -> None:
        ears = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]  # RTP, RTCP, RTP, RTCP
        for ear in ears:
            ear.bind(("127.0.0.1", 0))
        ports = [ear.getsockname()[1] for ear in ears]
        places = [(f"rtp://127.0.0.1:{ports[i]}?rtcpport={ports[i + 1]}", "rtp") for i in (0, 2)]
        sender = Sender({"video": places[0], "audio": places[1]}, self.hang_up)
        sender.start()
        while not self.hang_up.is_set():
            for ear in select.select(ears, [], [], 0.05)[0]:
                data = ear.recv(65536)
                try:
                    viewer.sendall(b"$" + bytes([ears.index(ear)]) + len(data).to_bytes(2, "big") + data)
                except OSError:  # the viewer has gone
                    self.hang_up.set()
        sender.join()
        for ear in ears:
            ear.close()

    def close(self) -> None:
        self.hang_up.set()
        self._door.close()


@pytest.fixture
def camera() -> Iterator[RtspServer]:
    server = RtspServer()
    server.start()
    yield server
    server.close()


def read(source: LiveSource, frames: int, first: int = 0) -> list[Packet]:
    clock = MonotonicClock()
    packets = []
    for t in range(first, first + frames):
        clock.sleep_until(source.due_s(t))
        packet = source.read(t)
        assert packet is not None
        packets.append(packet)
    return packets


def is_in_step(packets: list[Packet]) -> bool:
    """Light goes with sound and dark with silence in most frames: the two tracks are joined by time."""
    light = np.array([p.picture is not None and p.picture.mean() > 128 for p in packets])
    loud = np.array([np.abs(p.audio[-400:]).max() > 0.1 for p in packets])
    return bool(light.any() and not light.all() and (light == loud).mean() > 0.7)


def opened(device: object) -> LiveSource:
    clock = MonotonicClock()
    source = LiveSource("stream", [device], StudentSpec(), clock)  # type: ignore[list-item]
    source.wait_until_ready()
    source.start(clock.now_s())
    return source


def test_an_rtsp_camera_is_followed_lost_and_found_again(camera: RtspServer) -> None:
    source = opened(stream(f"rtsp://127.0.0.1:{camera.port}/live"))
    packets = read(source, 60)
    assert all(p.picture is not None and p.picture.shape == (120, 160, 3) for p in packets)
    assert is_in_step(packets[5:])
    camera.hang_up.set()
    after = read(source, 60, first=60)
    assert any("held_picture" in p.flags for p in after)
    assert source.counts.reconnects == 1
    assert any(p.flags == () for p in after[-15:])
    assert camera.viewers == 2
    source.close()
    assert source.note == ""


def test_mpeg_ts_over_udp_is_followed_with_both_tracks_in_step() -> None:
    port, stop = free_port(), threading.Event()
    sender = Sender(dict.fromkeys(("video", "audio"), (f"udp://127.0.0.1:{port}?pkt_size=1316", "mpegts")), stop)
    sender.start()
    source = opened(stream(f"udp://127.0.0.1:{port}"))
    packets = read(source, 60)
    source.close()
    stop.set()
    sender.join()
    assert is_in_step(packets[5:])
    assert sum(p.flags == () for p in packets) > 30


def test_a_stream_whose_sound_is_not_wanted_gives_pictures_alone(camera: RtspServer) -> None:
    source = opened(stream(f"rtsp://127.0.0.1:{camera.port}/live", sound=False))
    packets = read(source, 10)
    source.close()
    assert all("no_sound" in p.flags and p.picture is not None for p in packets)


def test_a_stream_that_nobody_sends_is_one_sentence_without_its_password() -> None:
    with pytest.raises(
        MediaError, match=r"^rtsp://127\.0\.0\.1:\d+/x: cannot be opened \(.*refused\); check"
    ) as caught:
        stream(f"rtsp://someone:secret@127.0.0.1:{free_port()}/x").open()
    assert "secret" not in str(caught.value)


def test_a_sender_that_sends_nothing_is_said_in_words_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "OPEN_S", 0.2)
    monkeypatch.setattr(streams, "READ_S", 0.2)
    url = f"udp://127.0.0.1:{free_port()}"
    with pytest.raises(MediaError, match=rf"^{url}: cannot be opened \(nothing came in time\); check the address"):
        stream(url).open()


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://admin:secret@camera.local:554/live", "rtsp://camera.local:554/live"),
        ("rtsp://admin:se/cr@et@camera/live", "rtsp://camera/live"),
        ("rtmp://host/app/name?key=secret", "rtmp://host/app/name"),
        ("rtsp://u:secret@host/live?user=a&password=se@cret", "rtsp://host/live"),
        ("furhat://hal:9000?key=se@cret", "furhat://hal:9000"),
        ("furhat:hal?key=secret", "furhat:hal"),
        ("webrtc://0.0.0.0:8443?token_file=secret", "webrtc://0.0.0.0:8443"),
        *(
            (plain, plain)
            for plain in ("camera:/dev/video0", "mic:default", "none", "talks/who?.mp4", "a/10:30@home.mp4")
        ),
    ],
)
def test_an_address_is_shown_without_user_password_and_query(source: str, shown: str) -> None:
    assert without_password(source) == shown


def test_every_scheme_that_is_promised_is_built_into_the_library() -> None:
    for scheme in SCHEMES:
        device = stream(f"{scheme}://127.0.0.1:{free_port()}/x?timeout=1000")
        if scheme == "udp":  # nothing refuses there; opening waits for a first packet
            continue
        with pytest.raises(MediaError) as caught:
            device.open()
        assert "Protocol not found" not in str(caught.value)
