"""A browser as camera and microphone: the loop serves one page, the page sends both over WebRTC.

    webrtc    webrtc://127.0.0.1:8443    webrtc://0.0.0.0:8443?token_file=FILE&cert=FILE&key=FILE

The page asks for the sound without echo cancellation, noise suppression or gain control, which would take the voice's
melody and loudness. Only this machine may open it unless a token is given; browsers hand out the camera to https or
localhost only, so another machine needs a certificate too. No outside server is asked for the way (no STUN or TURN).
"""

import asyncio
import errno
import socket
import ssl
import threading
from typing import Any

from deploy.robots._extras import remedy
from deploy.sources.browser import Address, Door, Peer
from deploy.sources.capture import Senses
from dyad.media import MediaError

POLL_S = 0.05
SHUTDOWN_S = 0.5


class WebRtc:
    """One browser at a time."""

    def __init__(self, url: str, *, sound: bool = True) -> None:
        """`url` as in the module's docstring; ValueError when it would open this machine to others without a token."""
        self.address = Address.parse(url)
        self.name = "webrtc"
        self.sees, self.hears = True, sound
        self._socket: socket.socket | None = None
        self._tls: ssl.SSLContext | None = None

    @property
    def greeting(self) -> str:
        """Where to go with a browser."""
        here = self.address.is_loopback
        ending = "#<the token>" if self.address.token else ""
        hint = "" if here or self.address.cert else " (without cert and key, browsers keep the camera from this page)"
        return f"open {self.address.page(self.port)}{ending} in a browser and press Start{hint}"

    def open(self) -> None:
        """Take the port; MediaError when the extra is missing or the port is taken."""
        try:
            import aiohttp  # noqa: F401
            import aiortc  # noqa: F401
        except ModuleNotFoundError as error:
            raise MediaError(f"webrtc needs the package {error.name}; {remedy('webrtc')}") from None
        self._tls = self.address.tls()
        family = socket.AF_INET6 if ":" in self.address.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((self.address.host, self.address.port))
            self._socket.listen()
        except OSError as error:
            self.close()
            wrong = "port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "host"
            raise MediaError(
                f"{self.address.page()}: cannot listen ({error.strerror}); choose another {wrong}"
            ) from None

    @property
    def port(self) -> int:
        """The port that is listened on: the system's choice where 0 was asked for."""
        return self.address.port if self._socket is None else self._socket.getsockname()[1]

    def follow(self, senses: Senses, stop: threading.Event) -> None:
        """Serve the page and push what the browser sends until told to stop."""
        asyncio.run(self._serve(senses, stop))

    async def _serve(self, senses: Senses, stop: threading.Event) -> None:
        from aiohttp import web

        peer = Peer(senses, sound=self.hears)
        runner = web.AppRunner(Door(self.address, self.port, peer).app(), access_log=None, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        try:
            await web.SockSite(runner, self._bound(), ssl_context=self._tls).start()
            while not stop.is_set():
                await asyncio.sleep(POLL_S)
        finally:
            await peer.leave()
            await runner.cleanup()

    def _bound(self) -> Any:
        assert self._socket is not None
        return self._socket

    def close(self) -> None:
        """Give the port back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
