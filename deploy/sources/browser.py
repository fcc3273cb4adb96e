"""What a browser meets at the robot's door: who may come in (Host, Origin, token, size), and one peer at a time.

A page of a foreign site that is open in the same browser can send requests to this machine too: the Host must be ours
and the Origin, where there is one, the same. The token is compared in constant time. Media itself is encrypted by
WebRTC and bound to the keys exchanged through this door.
"""

import asyncio
import hmac
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from deploy.sources.capture import Senses
from deploy.sources.container import Mono, rgb
from dyad.clock import SAMPLE_RATE_HZ

HOST, PORT = "127.0.0.1", 8443
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_OFFER_BYTES = 64 * 1024
"""A browser's offer has some 6 kB."""
CONNECT_S = 15.0
"""A peer that has not connected by then makes room for another."""
LATENCY_S = 0.03
"""Camera to decoded picture for the fastest packets: an estimate for browser and robot on one network."""
HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
PAGE = Path(__file__).with_name("page.html")


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the door is and what opens it."""

    host: str = HOST
    port: int = PORT
    token: str = ""
    cert: Path | None = None
    key: Path | None = None

    @classmethod
    def parse(cls, url: str) -> "Address":
        """From `webrtc[://host[:port][?token_file=…&cert=…&key=…]]`; ValueError says what is missing."""
        parts, port = _split(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        unknown = set(query) - {"token_file", "cert", "key"}
        if unknown:
            raise ValueError(f"{url}: unknown {sorted(unknown)[0]!r}; known: token_file, cert, key")
        address = cls(
            host=parts.hostname or HOST,
            port=PORT if port is None else port,
            token=Path(query["token_file"]).read_text(encoding="utf8").strip() if "token_file" in query else "",
            cert=Path(query["cert"]) if "cert" in query else None,
            key=Path(query["key"]) if "key" in query else None,
        )
        if address.key and not address.cert:
            raise ValueError(f"{url}: a key wants its certificate, too (&cert=FILE)")
        if not address.is_loopback and len(address.token) < 16:
            raise ValueError(
                f"webrtc://{address.host}: others could look through the robot's eyes; give a file with a token of 16 "
                "characters or more (?token_file=FILE), or listen on 127.0.0.1"
            )
        return address

    @property
    def is_loopback(self) -> bool:
        """Reachable from this machine alone."""
        return self.host in LOOPBACK

    def page(self, port: int | None = None) -> str:
        """The page's address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.cert else 'http'}://{host}:{self.port if port is None else port}/"

    def tls(self) -> ssl.SSLContext | None:
        """Certificate and key, where given; OSError names a file that cannot be read, ValueError one that is no use."""
        if self.cert is None:
            return None
        for file in filter(None, (self.cert, self.key)):
            file.read_bytes()  # the library's own error would not name it
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert, self.key)
        except ssl.SSLError as error:
            raise ValueError(
                f"{self.cert}: no certificate with its key in {self.key or 'the same file'} "
                f"({error.reason or error.strerror}); give PEM files of one pair, ?cert=FILE&key=FILE"
            ) from None
        return context


def _split(url: str) -> tuple[SplitResult, int | None]:
    """The address's parts and its port, where it says one; ValueError for what is none."""
    wrong = ValueError(f"{url}: wanted an address such as webrtc://{HOST}:{PORT}; write an IPv6 address in brackets")
    try:
        parts = urlsplit("webrtc://" if url == "webrtc" else url)
        port = parts.port
    except ValueError:
        raise wrong from None
    if url != "webrtc" and not url.startswith("webrtc://"):
        raise wrong
    if parts.netloc.count(":") > 1 and "[" not in parts.netloc:
        raise wrong
    return parts, port


class Peer:
    """The one browser that is let in."""

    def __init__(self, senses: Senses, *, sound: bool = True) -> None:
        self._senses, self._sound = senses, sound
        self._connection: Any = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._visited = False

    @property
    def is_here(self) -> bool:
        """Someone is connected or about to be."""
        return self._connection is not None

    async def enter(self, offer: dict[str, Any]) -> dict[str, str]:
        """Answer an offer; ValueError when it is none."""
        from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
        from aiortc.exceptions import InvalidAccessError, InvalidStateError

        self._connection = connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connection.on("track", self._track)
        connection.on("connectionstatechange", lambda: self._changed(connection))
        try:
            await connection.setRemoteDescription(RTCSessionDescription(offer["sdp"], offer["type"]))
            if not any(t.receiver.track is not None for t in connection.getTransceivers()):
                raise ValueError("it brings neither camera nor microphone")
            await connection.setLocalDescription(await connection.createAnswer())
        except (KeyError, TypeError, ValueError, AssertionError, InvalidAccessError, InvalidStateError) as error:
            await self.leave()
            raise ValueError(f"not an offer ({error})") from None
        self._senses.reconnects += self._visited
        self._visited = True
        self._go(self._expect(connection))
        return {"type": connection.localDescription.type, "sdp": connection.localDescription.sdp}

    def _go(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _expect(self, connection: Any) -> None:
        await asyncio.sleep(CONNECT_S)
        if connection is self._connection and connection.connectionState != "connected":
            await self.leave()

    def _changed(self, connection: Any) -> None:
        if connection is self._connection and connection.connectionState in ("failed", "closed", "disconnected"):
            self._go(self.leave())

    def _track(self, track: Any) -> None:
        if track.kind == "video":
            self._go(self._watch(track))
        elif self._sound:
            self._go(self._listen(track))

    async def _watch(self, track: Any) -> None:
        from aiortc.mediastreams import MediaStreamError

        times = self._senses.time_map(LATENCY_S)
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            captured_s = times.captured_s(frame.time, self._senses.clock.now_s())
            self._senses.see(rgb(frame), captured_s)

    async def _listen(self, track: Any) -> None:
        from aiortc.mediastreams import MediaStreamError

        times, mono = self._senses.time_map(LATENCY_S), Mono()
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            arrived_s = self._senses.clock.now_s()
            for block, end_s in mono.blocks(frame):
                self._senses.hear(block, times.captured_s(end_s, arrived_s) - len(block) / SAMPLE_RATE_HZ)

    async def leave(self) -> None:
        """Close the connection and make room."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


class Door:
    """The two requests there are: the page, and the offer."""

    def __init__(self, address: Address, port: int, peer: Peer) -> None:
        self._address, self._port, self._peer = address, port, peer

    def app(self) -> Any:
        """The aiohttp application."""
        from aiohttp import web

        app = web.Application(client_max_size=MAX_OFFER_BYTES)
        app.router.add_get("/", self._page)
        app.router.add_post("/offer", self._offer)
        return app

    async def _page(self, request: Any) -> Any:
        from aiohttp import web

        if not self._is_ours(request):
            return web.Response(status=403, text="open the page by the address that the robot printed")
        return web.Response(text=PAGE.read_text(encoding="utf8"), content_type="text/html", headers=HEADERS)

    async def _offer(self, request: Any) -> Any:
        from aiohttp import web

        if not self._is_ours(request) or request.content_type != "application/json":
            return web.Response(status=403, text="only the robot's own page may ask")
        if not self._has_token(request):
            return web.Response(status=401, text="wrong token; open the page with #token at the end of its address")
        try:
            offer = json.loads(await request.text())
            if self._peer.is_here:
                return web.Response(status=409, text="the robot is already listening to someone")
            return web.json_response(await self._peer.enter(offer))
        except ValueError as error:
            return web.Response(status=400, text=str(error))

    def _is_ours(self, request: Any) -> bool:
        """The Host is this door's and the Origin, where there is one, the same."""
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            return False
        name = urlsplit(f"//{request.host}")
        return not self._address.is_loopback or (name.hostname in LOOPBACK and name.port == self._port)

    def _has_token(self, request: Any) -> bool:
        if not self._address.token:  # this machine alone
            return True
        said = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(said.encode(), self._address.token.encode())
