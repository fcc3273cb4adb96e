"""Addresses to listen on: loopback freely, anything else only with a token; one sentence for each that cannot be."""

import errno
import ipaddress
import socket


def split(address: str) -> tuple[str, int]:
    """`host:port` → both; brackets around an IPv6 host. ValueError for anything else."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f"wanted HOST:PORT such as 127.0.0.1:7030, got {address!r}")
    try:
        host.encode("idna")  # as every look-up of the name will
    except UnicodeError:
        raise ValueError(f"wanted HOST:PORT, and {host!r} cannot be the name of a host, got {address!r}") from None
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(address: str, token: str | None, flag: str = "--token-file") -> socket.socket:
    """A socket that listens at `host:port`; ValueError when it may not (`flag` is the remedy) or cannot.

    Port 0 takes a free one.
    """
    host, port = split(address)
    if not is_loopback(host) and token is None:
        raise ValueError(
            f"{address} can be reached by others, and a robot is not driven without a token; give {flag} FILE"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((host, port))
        server.listen(8)
    except OSError as error:
        server.close()
        why = f"cannot be bound: {error.strerror}"
        if error.errno == errno.EADDRINUSE:
            why = "is in use; end the other process or give another port"
        raise ValueError(f"{address} {why}") from None
    return server


def shown(server: socket.socket) -> str:
    """Where a socket listens, as `host:port`."""
    host, port = server.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
