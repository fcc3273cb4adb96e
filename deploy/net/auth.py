"""Who may drive a robot: both ends show that they hold the same token, and neither ever sends it.

The controller sends a random number, the loop answers with its own and a keyed hash of both, the controller answers
likewise: each is proved to the other, and an old exchange replayed proves nothing. From the two numbers follows a key
of this one connection, which then seals every message with its position: nobody between can change, insert or repeat
one. Nothing is encrypted: whoever can listen sees the plans; through foreign networks use a tunnel.
HTTP knows no such proof: its token is sent as it is, and is therefore another one.
Source: HMAC (RFC 2104) with SHA-256, compared in constant time.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from deploy.net.wire import WireError

SHORTEST_TOKEN = 16
VARIABLE, HTTP_VARIABLE = "RAPPORT_TOKEN", "RAPPORT_HTTP_TOKEN"
TAG_BYTES = 16


def read_token(path: Path | None, variable: str = VARIABLE) -> str | None:
    """The token in a file, else the one in the variable, else None; ValueError names a bad file and the remedy."""
    where = str(path) if path else variable
    if path is None:
        text = os.environ.get(variable)
        if text is None:
            return None
    else:
        try:
            text = path.read_text(encoding="utf8")
        except OSError as error:
            raise ValueError(f"{path}: {(error.strerror or 'unreadable').lower()}; {_REMEDY}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path}: a token is one line of text; {_REMEDY}") from None
    token = text.strip()
    if len(token) < SHORTEST_TOKEN or len(token.split()) != 1:
        raise ValueError(f"{where}: a token is one word of {SHORTEST_TOKEN} characters or more; {_REMEDY}")
    return token


def read_http_token(path: Path | None, link_token: str | None) -> str | None:
    """The token of the HTTP pages, likewise; ValueError when it is the link's, which would then be sent in clear."""
    token = read_token(path, HTTP_VARIABLE)
    if token is not None and token == link_token:
        where = str(path) if path else HTTP_VARIABLE
        raise ValueError(f"{where}: that is the token of the link, and over HTTP it could be read; {_REMEDY}")
    return token


_REMEDY = "make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"


def nonce() -> str:
    """A number that was never used before."""
    return secrets.token_hex(16)


def _keyed(token: str | None, *parts: str) -> bytes:
    return hmac.new((token or "").encode(), "\0".join(parts).encode(), hashlib.sha256).digest()


def proof(token: str | None, who: str, controller_nonce: str, loop_nonce: str) -> str:
    """What `who` ("loop" or "controller") sends to show that it holds the token."""
    return _keyed(token, "rapport", who, controller_nonce, loop_nonce).hex()


def is_proof(given: str, token: str | None, who: str, controller_nonce: str, loop_nonce: str) -> bool:
    """Whether `given` is that proof, compared in constant time."""
    return hmac.compare_digest(given, proof(token, who, controller_nonce, loop_nonce))


class Seal:
    """Tags on the messages of one direction of one connection; both ends count."""

    def __init__(self, token: str, sender: str, controller_nonce: str, loop_nonce: str) -> None:
        self._key = _keyed(token, "rapport seal", sender, controller_nonce, loop_nonce)
        self._count = 0

    def _tag(self, content: bytes) -> bytes:
        tag = hmac.new(self._key, self._count.to_bytes(8, "big") + content, hashlib.sha256).digest()[:TAG_BYTES]
        self._count += 1
        return tag

    def close(self, content: bytes) -> bytes:
        """The content with its tag."""
        return content + self._tag(content)

    def open(self, sealed: bytes) -> bytes:
        """The content behind a tag; WireError when it is not the next one of the sender."""
        content, tag = sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(content)):
            raise WireError("a message was changed, inserted or repeated on its way")
        return content
