"""Packages that only one wire needs: imported when that robot is opened, asked for by name where they are missing."""

import importlib
from typing import Any


def need(robot: str, module: str, package: str, extra: str | None = None) -> Any:
    """The module, or a ValueError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(f"robot {robot} needs {package}; {remedy(extra or robot)}") from None


def remedy(extra: str) -> str:
    """The end of the sentence about a missing package; senses say it in the same words."""
    return f"install it with: uv sync --extra {extra}"
