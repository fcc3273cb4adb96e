"""Where an artefact came from: run cards, hashes and all-or-nothing writing."""

import contextlib
import datetime as dt
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

_PACKAGES = (
    "rapport",
    "numpy",
    "torch",
    "transformers",
    "peft",
    "timm",
    "onnx",
    "onnxruntime",
    "av",
    "mujoco",
)


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git(*arguments: str) -> str:
    """Output of a git command in this checkout, or "" where there is no git or no checkout."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def machine() -> dict[str, Any]:
    """Processor name, core count and operating system: what a measured figure must be read beside."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return {"processor": name, "cores": os.cpu_count() or 0, "system": platform.platform(terse=True)}


def run_card(*, command: str, config: Mapping[str, Any], inputs: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Commit, configuration, versions, machine, UTC time and input hashes (name → SHA-256) of one run."""
    return {
        "command": command,
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "time_utc": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": _versions(),
        "config": dict(config),
        "inputs": dict(inputs or {}),
    }


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Generator[Path]:
    """Yield a path beside `path` to write (a file or a folder); it takes the name only when the block succeeds.

    An existing target is replaced. After an error or a kill the target is as it was; the left-over `.part` is
    overwritten by the next try.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    _remove(part)
    try:
        yield part
    except BaseException as error:
        _remove(part)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(target)  # a write that fails, as on a full disk, does not say where
        raise
    if part.is_dir() and target.is_dir():
        old = target.with_name(target.name + ".old")
        _remove(old)
        target.rename(old)
        part.rename(target)
        _remove(old)
    else:
        part.replace(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path | str, content: Any) -> None:
    """Write `content` as indented JSON, all or nothing."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf8")


def read_json(path: Path | str) -> Any:
    """Content of a JSON file; raises ValueError that names a missing or broken file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}); restore it or make it again") from None
