"""One TCP connection as messages: never blocks, holds at most what one reader could not take yet.

The same class at both ends. Reads and writes happen when the owner's selector says so; a message that is too large, not
sealed as agreed, or not understood raises WireError, an end of the line ConnectionError.
"""

import socket
import struct
from collections.abc import Iterator

from deploy.net.auth import TAG_BYTES, Seal
from deploy.net.wire import LARGEST_BYTES, Message, WireError, decode, encode

_LENGTH = struct.Struct(">I")
CHUNK_BYTES = 65536


class Connection:
    """A connected socket; the owner registers it with a selector."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connected
        self._seal_out: Seal | None = None
        self._seal_in: Seal | None = None
        self._in, self._out = bytearray(), bytearray()

    def seal(self, outgoing: Seal, incoming: Seal) -> None:
        """From here on every message carries a tag."""
        self._seal_out, self._seal_in = outgoing, incoming

    @property
    def waiting_bytes(self) -> int:
        """What could not be sent yet."""
        return len(self._out)

    def send(self, message: Message) -> None:
        """Send now what the network takes, keep the rest for `flush`; raises ConnectionError."""
        content = encode(message)
        if self._seal_out is not None:
            content = self._seal_out.close(content)
        self._out += _LENGTH.pack(len(content)) + content
        self.flush()

    def flush(self) -> None:
        """Send more of what waits; raises ConnectionError."""
        while self._out:
            try:
                sent = self.socket.send(self._out)
            except BlockingIOError:
                return
            except OSError as error:
                raise ConnectionError(str(error)) from None
            del self._out[:sent]

    def receive(self) -> Iterator[Message]:
        """All messages that are there, one by one, so that a seal agreed on by one counts for the next.

        Raises WireError, and ConnectionError at the end of the line.
        """
        try:
            came = self.socket.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise ConnectionError(str(error)) from None
        if not came:
            raise ConnectionError("the other end closed the connection")
        self._in += came
        while (content := self._take()) is not None:
            yield decode(content)

    def _take(self) -> bytes | None:
        if len(self._in) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._in)
        if length > LARGEST_BYTES:
            raise WireError(f"a message of {length} bytes; at most {LARGEST_BYTES} are taken")
        end = _LENGTH.size + length
        if len(self._in) < end:
            return None
        content = bytes(self._in[_LENGTH.size : end])
        del self._in[:end]
        if self._seal_in is None:
            return content
        if length < TAG_BYTES:
            raise WireError("a message without its seal")
        return self._seal_in.open(content)

    def close(self) -> None:
        """Hang up; safe to call twice."""
        self.socket.close()
