"""Cameras of this machine through PyAV: V4L2 on Linux, AVFoundation on macOS, DirectShow on Windows.

    camera:0    camera:/dev/video2    camera:Integrated Camera (Windows)    camera:lavfi:testsrc=rate=30,realtime

640 x 480 at 30 Hz is asked for. Raw or motion-JPEG pictures become RGB. V4L2 hands out the kernel's monotonic time of
capture, which is believed; elsewhere capture is estimated as `LATENCY_S` before the earliest arrivals. The last form is
a synthetic camera of FFmpeg's filters, to try everything behind the camera without one.
"""

import sys
from pathlib import Path

from deploy.sources.container import AvDevice
from dyad.clock import FPS

SIZE = (640, 480)
LATENCY_S = 1 / FPS
"""Exposure, read-out and transfer of one picture where the driver does not tell: an estimate, one frame."""


def camera(address: str) -> AvDevice:
    """The camera of `camera:<address>`, not yet open."""
    name = f"camera:{address}"
    if address.startswith("lavfi:"):
        graph = address.removeprefix("lavfi:")
        return AvDevice(name, graph, driver="lavfi", remedy="check the filter graph", sound=False)
    driver, url, options = _driver(address, sys.platform)
    return AvDevice(
        name,
        url,
        driver=driver,
        options=options,
        remedy=_remedy(),
        latency_s=LATENCY_S,
        kernel_stamps=driver == "v4l2",
        sound=False,
    )


def _driver(address: str, platform: str) -> tuple[str, str, dict[str, str]]:
    """FFmpeg's input format, its name for the camera, and its options."""
    options = {"video_size": f"{SIZE[0]}x{SIZE[1]}", "framerate": str(FPS)}
    if platform == "darwin":
        return "avfoundation", f"{address}:none", options
    if platform == "win32":
        return "dshow", f"video={address}", options | {"rtbufsize": "32M"}
    return "v4l2", f"/dev/video{address}" if address.isdigit() else address, options


def _remedy() -> str:
    found = sorted(str(p) for p in Path("/dev").glob("video*")) if sys.platform.startswith("linux") else []
    there = f"there are {', '.join(found)}" if found else "no /dev/video* is there" if _is_linux() else "plug it in"
    return f"{there}; choose with --source camera:N, or replay a file"


def _is_linux() -> bool:
    return sys.platform.startswith("linux")
