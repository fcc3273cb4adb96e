"""The way into a Furhat's Realtime API, shared by its face and its senses: a WebSocket, and a key that opens it.

Every event is a JSON object with a `type`; the robot hears none before `request.auth`. The key is in the address
(`?key=KEY`) or in FURHAT_KEY, and never repeated in an error.
"""

import json
import os
from collections.abc import Callable
from typing import Any

from deploy.robots._address import Address
from deploy.robots._websocket import Line

PORT = 9000
ANSWER_S = 3.0
Event = dict[str, Any]


class RealtimeApi:
    """One connection to one Furhat."""

    def __init__(self, address: Address, hear: Callable[[Event], None] = lambda _: None) -> None:
        """`hear` gets every event but the answer to the key, on the line's own thread."""
        self._key = address.options.get("key") or os.environ.get("FURHAT_KEY", "")
        self._hear_event = hear
        self._access: bool | None = None
        self.line = Line("furhat", f"ws://{address.shown}/v1/events", self._hear)

    def _hear(self, text: str) -> None:
        event: Any = json.loads(text)
        if not isinstance(event, dict):
            return
        if event.get("type") == "response.auth":
            self._access = bool(event.get("access"))
        else:
            self._hear_event(event)

    def open(self, name: str) -> None:
        """Connect and be let in; ValueError, with `name` in front, when the robot does not."""
        self._access = None
        self.line.open()
        self.put("request.auth", request_id="auth", **({"key": self._key} if self._key else {}))
        self.line.wait_for(lambda: self._access is not None, ANSWER_S)
        if not self._access:
            self.line.close()
            said = "does not answer" if self._access is None else "refuses the key"
            raise ValueError(f"{name} {said}; put its Realtime API key behind ?key= or into FURHAT_KEY")

    def put(self, kind: str, slot: str = "", /, **fields: object) -> None:
        """Leave an event for the writer; it replaces one of the same `slot` (else its kind) that has not left yet."""
        self.line.put(slot or kind, json.dumps({"type": kind, **fields}))
