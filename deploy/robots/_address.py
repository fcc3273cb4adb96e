"""A robot's address: HOST, HOST:PORT, [IPv6]:PORT, each with ?option=value behind it.

What is not understood is refused by name before anything is opened. Options may hold a key, so an error never repeats
what stands behind the question mark.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

HERE = "127.0.0.1"


@dataclass(frozen=True)
class Address:
    """Where a robot listens, and how it wants to be spoken to."""

    host: str
    port: int
    secure: bool
    """wss:// in front of it."""
    options: Mapping[str, str]

    @property
    def shown(self) -> str:
        """Host and port as people write them, without options."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def options_of(robot: str, query: str, known: tuple[str, ...]) -> dict[str, str]:
    """Options behind the question mark; an unknown one is refused with the nearest."""
    given = dict(parse_qsl(query, keep_blank_values=True))
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(known) or 'none'}"
            raise ValueError(f"robot {robot}: unknown option {name!r} in the address; {hint}")
    return given


def parse(robot: str, text: str, port: int, known: tuple[str, ...] = ()) -> Address:
    """HOST[:PORT][?options]; nothing means this machine and the wire's own port."""
    scheme, _, rest = text.rpartition("://")
    where = rest.partition("?")[0]
    wrong = ValueError(
        f"robot {robot}: wanted an address such as {HERE}:{port} behind `{robot}:`, got {where!r}; "
        "write an IPv6 address in brackets"
    )
    if scheme not in ("", "ws", "wss") or "@" in where or (where.count(":") > 1 and "[" not in where):
        raise wrong
    try:
        parts = urlsplit(f"//{rest}")
        host, given = parts.hostname or HERE, parts.port
        host.encode("idna")  # as every look-up of the name will
    except ValueError:
        raise wrong from None
    if where.endswith(":") or given == 0 or any(c.isspace() for c in host) or parts.path.strip("/"):
        raise wrong
    return Address(host, given or port, scheme == "wss", options_of(robot, parts.query, known))
