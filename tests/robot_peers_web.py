"""Robots that are not there, behind WebSockets: Furhat's Realtime API and rosbridge, strict where the real ones are."""

import contextlib
import json
import socket
import threading
from typing import Any

from robot_peer import Peer, Values


class WebSocketPeer(Peer):
    """A WebSocket server; `hold` stops it reading, `drop` hangs up."""

    notices_loss = refuses_absence = True

    def start(self) -> None:
        from websockets.sync.server import serve

        self.open_ones: list[Any] = []
        self.may_read = threading.Event()
        self.may_read.set()
        self._server = serve(self._serve, "127.0.0.1", 0, ping_interval=None, close_timeout=0.5, compression=None)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.socket.getsockname()[1]}"

    def _serve(self, connection: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        self.open_ones.append(connection)
        self.begin(connection)
        try:
            while True:
                self.may_read.wait()
                text = connection.recv()
                with self.change:
                    self.hear(connection, json.loads(text))
                    self.change.notify_all()
        except ConnectionClosed:
            pass

    def begin(self, connection: Any) -> None: ...

    def hear(self, connection: Any, said: dict[str, Any]) -> None:
        raise NotImplementedError

    def drop(self) -> None:
        while self.open_ones:
            with contextlib.suppress(OSError):  # it may have hung up itself
                self.open_ones.pop().socket.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self.may_read.set()
        self.drop()
        self._server.shutdown()
        self._thread.join()


class FurhatPeer(WebSocketPeer):
    """The Realtime API as its official client documents it: nothing before a key, parameters hold their value."""

    name = "furhat"
    KEY = "open sesame"

    def begin(self, connection: Any) -> None:
        self.access = False
        self.face: Values = {}
        self.events: list[dict[str, Any]] = []
        self.config = {"microexpressions": True, "blinking": True}

    @property
    def address(self) -> str:
        return f"{super().address}?key={self.KEY.replace(' ', '%20')}"

    def hear(self, connection: Any, said: dict[str, Any]) -> None:
        kind = said.pop("type")
        self.events.append({"type": kind, **said})
        if kind == "request.auth":
            self.access = said.get("key") == self.KEY
            answer = {"type": "response.auth", "access": self.access, "scope": "full" if self.access else ""}
            connection.send(json.dumps(answer | {"request_id": said.get("request_id")}))
        elif not self.access:
            self.complain(f"{kind} before a key")
        elif kind == "request.face.params":
            self.face |= said["params"]
            self.came.append(dict(self.face))
        elif kind == "request.face.reset":
            self.face = {}
        elif kind == "request.face.config":
            self.config |= said
        elif kind == "request.face.headpose":
            assert set(said) >= {"yaw", "pitch", "roll", "relative"}
            self.face |= {f"HEAD_{a.upper()}": said[a] for a in ("yaw", "pitch", "roll")}
        else:
            self.more(connection, kind, said)

    def more(self, connection: Any, kind: str, said: dict[str, Any]) -> None:
        self.complain(f"unknown event {kind}")

    def released(self) -> bool:
        return not self.face and self.config == {"microexpressions": True, "blinking": True}


class RosbridgePeer(WebSocketPeer):
    """rosbridge: a topic is advertised before anything is published to it, and messages have their type's fields."""

    name = "rosbridge"
    pose: dict[str, Any] | None = None
    """What a subscriber is told at once."""

    def begin(self, connection: Any) -> None:
        self.topics: dict[str, str] = {}
        self.subscriptions: dict[str, str] = {}
        self.headers = connection.request.headers

    def hear(self, connection: Any, said: dict[str, Any]) -> None:
        match said["op"]:
            case "advertise":
                self.topics[said["topic"]] = said["type"]
            case "unadvertise":
                del self.topics[said["topic"]]
            case "subscribe":
                self.subscriptions[said["topic"]] = said["type"]
                if self.pose is not None:
                    self.publish(said["topic"], self.pose)
            case "publish":
                self._published(self.topics[said["topic"]], said["msg"])
            case other:
                self.complain(f"unknown operation {other}")

    def _published(self, kind: str, message: dict[str, Any]) -> None:
        assert set(message["header"]) == {"stamp", "frame_id"}
        if kind == "hri_msgs/msg/FacialActionUnits":
            assert len(message["intensity"]) == len(message["confidence"]) == 99
            self.came.append({f"AU{i}": v for i, v in enumerate(message["intensity"]) if message["confidence"][i]})
        else:
            assert kind == "trajectory_msgs/msg/JointTrajectory"
            assert message["points"][0]["time_from_start"]["nanosec"] > 0
            self.came.append(dict(zip(message["joint_names"], message["points"][0]["positions"], strict=True)))

    def publish(self, topic: str, message: dict[str, Any]) -> None:
        self.open_ones[-1].send(json.dumps({"op": "publish", "topic": topic, "msg": message}))

    def released(self) -> bool:
        return not self.topics
