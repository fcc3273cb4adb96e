"""Packages that only one wire needs: imported when that robot is opened, asked for by name where they are missing."""

import importlib
from typing import Any


def need(robot: str, module: str, package: str, extra: str | None = None) -> Any:
    """The module, or a ValueError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        hint = f"install it with: uv sync --extra {extra or robot}"
        raise ValueError(f"robot {robot} needs {package}; {hint}") from None
