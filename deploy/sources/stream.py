"""Network streams through PyAV: RTSP, RTMP, and MPEG-TS over UDP or TCP, both tracks by one clock.

    rtsp://camera.local/live    rtmp://host/app/name    udp://0.0.0.0:5000    tcp://host:5000

RTSP runs over TCP (no torn pictures), probing is short, buffers are off. A stream that says nothing for `READ_S` is
lost and connected again.
"""

from deploy.sources.container import AvDevice

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "udp", "tcp")
OPEN_S, READ_S = 5.0, 3.0
LATENCY_S = 0.02
"""Encoding and transport of the fastest packets: an estimate; what a network adds to it is measured as lateness."""
_PROBE = {"probesize": "500000", "analyzeduration": "500000", "fflags": "nobuffer", "flags": "low_delay"}


def stream(url: str, *, sound: bool = True, options: dict[str, str] | None = None) -> AvDevice:
    """The stream at `url`, not yet open; `options` are FFmpeg's, over our own."""
    scheme = url.split("://", 1)[0]
    ours = dict(_PROBE)
    if scheme.startswith("rtsp"):
        ours |= {"rtsp_transport": "tcp", "reorder_queue_size": "0"}
    return AvDevice(
        without_password(url),
        url,
        driver="mpegts" if scheme in ("udp", "tcp") else None,
        options=ours | (options or {}),
        timeout_s=(OPEN_S, READ_S),
        remedy="check the address and that the sender runs",
        latency_s=LATENCY_S,
        sound=sound,
    )


def without_password(source: str) -> str:
    """Any `--source` or `--audio` as it may be printed and reported: no user, no password, no query with keys in it.

    What is no address (a file, `none`) stays as it is.
    """
    scheme, colon, rest = source.partition(":")
    if not (colon and scheme.isalpha()):
        return source
    rest = rest.partition("?")[0]
    slashes = "//" if rest.startswith("//") else ""
    return f"{scheme}:{slashes}{rest.removeprefix('//').rpartition('@')[2]}"
