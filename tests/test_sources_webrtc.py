"""A browser as camera and microphone: what it sends arrives in step; who may not come in stays outside."""

import asyncio
import datetime as dt
import json
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

pytest.importorskip("aiortc", reason="needs the extra webrtc")
import aiohttp
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from aiortc.mediastreams import AudioStreamTrack
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy.sources import browser, opening
from deploy.sources.browser import Address
from deploy.sources.live import LiveSource
from deploy.sources.webrtc import WebRtc
from dyad.clock import MonotonicClock
from dyad.media import MediaError
from student.spec import StudentSpec

TOKEN = "a-token-of-some-length"


class Blinking(VideoStreamTrack):
    """Light and dark by turns of half a second."""

    async def recv(self) -> av.VideoFrame:
        pts, base = await self.next_timestamp()
        shade = 255 if float(pts * base) // 0.5 % 2 else 0
        frame = av.VideoFrame.from_ndarray(np.full((120, 160, 3), shade, np.uint8), format="rgb24")
        frame.pts, frame.time_base = pts, base
        return frame


class Beeping(AudioStreamTrack):
    """A tone while the picture is light."""

    async def recv(self) -> av.AudioFrame:
        quiet = await super().recv()
        t = (quiet.pts + np.arange(quiet.samples)) / quiet.sample_rate
        samples = (16000 * (t // 0.5 % 2) * np.sin(2 * np.pi * 440 * t)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.pts, frame.time_base, frame.sample_rate = quiet.pts, quiet.time_base, quiet.sample_rate
        return frame


class Visitor:
    """What a browser does with the page, in Python."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def offer(self, text: str | None = None, **headers: str) -> tuple[int, str]:
        """POST an offer (a garbage one by default); status and text of the answer."""
        headers = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        body = text if text is not None else json.dumps({"type": "offer", "sdp": "x"})
        async with aiohttp.ClientSession() as web, web.post(self.url + "offer", data=body, headers=headers) as answer:
            return answer.status, await answer.text()

    async def call(self) -> RTCPeerConnection:
        """Connect with camera and microphone."""
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peer.addTrack(Blinking())
        peer.addTrack(Beeping())
        await peer.setLocalDescription(await peer.createOffer())
        said = {"type": peer.localDescription.type, "sdp": peer.localDescription.sdp}
        status, answer = await self.offer(json.dumps(said))
        assert status == 200, answer
        await peer.setRemoteDescription(RTCSessionDescription(**json.loads(answer)))
        return peer


@pytest.fixture
def elsewhere() -> Iterator[Any]:
    """A loop in a thread: the browser's side of the world. Call it with a coroutine."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(timeout=20)

    yield run
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def robot() -> Iterator[tuple[LiveSource, Visitor]]:
    device = WebRtc("webrtc://127.0.0.1:0")
    source = LiveSource("webrtc", [device], StudentSpec(), MonotonicClock())
    yield source, Visitor(device.address.page(device.port))
    source.close()


def test_a_visitor_is_seen_and_heard_in_step_leaves_and_may_come_back(
    robot: tuple[LiveSource, Visitor], elsewhere: Any
) -> None:
    source, visitor = robot
    assert visitor.url in source.greeting
    peer = elsewhere(visitor.call())
    assert elsewhere(visitor.offer())[0] == 409, "one at a time"
    source.wait_until_ready()
    clock = MonotonicClock()
    source.start(clock.now_s())
    packets = []
    for t in range(75):
        clock.sleep_until(source.due_s(t))
        packets.append(source.read(t))
    elsewhere(peer.close())
    light = np.array([p is not None and p.picture is not None and p.picture.mean() > 128 for p in packets[15:]])
    loud = np.array([p is not None and np.abs(p.audio[-400:]).max() > 0.1 for p in packets[15:]])
    assert light.any()
    assert not light.all()
    assert (light == loud).mean() > 0.7
    assert not source.counts.frames_without_picture
    peer = elsewhere(come_back(visitor))
    elsewhere(peer.close())
    assert source.counts.reconnects == 1


async def come_back(visitor: Visitor) -> RTCPeerConnection:
    """Call as soon as the robot has noticed that the last one left."""
    while (await visitor.offer())[0] == 409:
        await asyncio.sleep(0.05)
    return await visitor.call()


def test_the_page_asks_for_the_voice_as_it_is_and_is_served_with_strict_headers(
    robot: tuple[LiveSource, Visitor], elsewhere: Any
) -> None:
    async def get() -> tuple[int, str, str]:
        async with aiohttp.ClientSession() as web, web.get(robot[1].url) as answer:
            return answer.status, await answer.text(), answer.headers["Content-Security-Policy"]

    status, page, policy = elsewhere(get())
    assert status == 200
    for setting in ("echoCancellation: false", "noiseSuppression: false", "autoGainControl: false"):
        assert setting in page
    assert "src=" not in page, "the page loads nothing from elsewhere"
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(
    ("headers", "text", "status"),
    [
        ({"Origin": "https://evil.example"}, None, 403),
        ({"Origin": "null"}, None, 403),
        ({"Host": "evil.example"}, None, 403),
        ({"Content_Type": "text/plain"}, None, 403),
        ({}, "no json", 400),
        ({}, "[]", 400),
        ({}, '{"type": "offer", "sdp": "garbage"}', 400),
        ({}, '{"type": "sideways", "sdp": "v=0"}', 400),
        ({}, '{"type": "answer", "sdp": "v=0"}', 400),
        ({}, "x" * (browser.MAX_OFFER_BYTES + 1), 413),
    ],
)
def test_a_request_that_the_page_would_not_make_is_refused(
    robot: tuple[LiveSource, Visitor], elsewhere: Any, headers: dict[str, str], text: str | None, status: int
) -> None:
    got, _ = elsewhere(robot[1].offer(text, **headers))
    assert got == status
    peer = elsewhere(robot[1].call())  # and the door is still open
    elsewhere(peer.close())


def test_without_the_token_nobody_comes_in_from_outside(tmp_path: Path, elsewhere: Any) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n", encoding="utf8")
    device = WebRtc(f"webrtc://0.0.0.0:0?token_file={tmp_path / 'token'}")
    source = LiveSource("webrtc", [device], StudentSpec(), MonotonicClock())
    visitor = Visitor(f"http://127.0.0.1:{device.port}/")
    assert elsewhere(visitor.offer())[0] == 401
    assert elsewhere(visitor.offer(Authorization="Bearer wrong"))[0] == 401
    assert elsewhere(visitor.offer(Authorization=f"Bearer {TOKEN}"))[0] == 400, "let in, but garbage"
    assert "#<the token>" in source.greeting
    assert "certificate" in source.greeting or "cert" in source.greeting
    assert TOKEN not in source.greeting
    source.close()


def test_with_a_certificate_another_machine_reaches_the_page_over_https(tmp_path: Path, elsewhere: Any) -> None:
    certificate(tmp_path)
    (tmp_path / "token").write_text(TOKEN, encoding="utf8")
    files = f"token_file={tmp_path / 'token'}&cert={tmp_path / 'cert.pem'}&key={tmp_path / 'key.pem'}"
    device = WebRtc(f"webrtc://0.0.0.0:0?{files}")
    source = LiveSource("webrtc", [device], StudentSpec(), MonotonicClock())

    async def get() -> int:
        url = f"https://127.0.0.1:{device.port}/"
        async with aiohttp.ClientSession() as web, web.get(url, ssl=False) as answer:
            return answer.status

    assert elsewhere(get()) == 200
    assert source.greeting.startswith("open https://")
    source.close()


def certificate(folder: Path) -> None:
    """A self-signed one, as people make for a machine of their own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "robot")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


def test_a_door_to_the_world_wants_a_token_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give a file with a token of 16"):
        WebRtc("webrtc://0.0.0.0:8443")
    (tmp_path / "short").write_text("1234", encoding="utf8")
    with pytest.raises(ValueError, match="give a file with a token of 16"):
        WebRtc(f"webrtc://192.168.1.5?token_file={tmp_path / 'short'}")
    with pytest.raises(ValueError, match="unknown 'tokenfile'; known: token_file"):
        WebRtc("webrtc://0.0.0.0?tokenfile=x")


@pytest.mark.parametrize(
    "url",
    ["webrtc://127.0.0.1:abc", "webrtc://127.0.0.1:99999", "webrtc://[::1", "webrtc://::1:9000", "webrtc:x"],
)
def test_an_address_that_is_none_is_refused_by_name_with_one_that_is(url: str) -> None:
    with pytest.raises(ValueError, match=r"wanted an address such as webrtc://127\.0\.0\.1:8443") as caught:
        WebRtc(url)
    assert str(caught.value).startswith(f"{url}: ")


@pytest.mark.parametrize(("cert", "key"), [("cert.pem", "other.pem"), ("garbage", "key.pem"), ("key.pem", "cert.pem")])
def test_a_certificate_that_cannot_be_used_is_refused_by_name(tmp_path: Path, cert: str, key: str) -> None:
    certificate(tmp_path)
    (tmp_path / "key.pem").rename(tmp_path / "other.pem")
    certificate(tmp_path)  # another pair beside the first one's key
    (tmp_path / "garbage").write_text("no certificate", encoding="utf8")
    device = WebRtc(f"webrtc://127.0.0.1:0?cert={tmp_path / cert}&key={tmp_path / key}")
    with pytest.raises(ValueError, match=rf"{cert}: no certificate with its key in {tmp_path / key} \(.+\); give PEM"):
        device.open()


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        WebRtc(f"webrtc://127.0.0.1:0?cert={tmp_path / 'cert.pem'}").open()
    assert caught.value.filename == str(tmp_path / "cert.pem")
    with pytest.raises(ValueError, match="a key wants its certificate, too"):
        WebRtc("webrtc://127.0.0.1:0?key=key.pem")


def test_the_bare_word_means_this_machine_alone() -> None:
    assert Address.parse("webrtc").page() == "http://127.0.0.1:8443/"
    assert Address.parse("webrtc://[::1]:9000").page() == "http://[::1]:9000/"


def test_a_port_that_is_taken_is_one_sentence(robot: tuple[LiveSource, Visitor]) -> None:
    with pytest.raises(MediaError, match=r"cannot listen \(Address already in use\); choose another port"):
        opening.open_live(
            f"webrtc://127.0.0.1:{robot[1].url.split(':')[-1].strip('/')}", None, StudentSpec(), MonotonicClock(), 1, 0
        )
