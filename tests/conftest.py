"""What every test shares: one thread for torch, no network for the hubs, and where real clips may lie."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

# The same examples for everyone, so that a change is judged by what it changes; `make fuzz` draws new ones.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("new", deadline=None, print_blob=True)
settings.load_profile("fixed")

REPOSITORY = Path(__file__).resolve().parent.parent
REAL_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real clips with a manifest; the test is skipped where there is none."""
    if not (REAL_DATA / "manifest.json").is_file():
        pytest.skip("no folder of real clips beside the checkout")
    return REAL_DATA


@pytest.fixture(autouse=True)
def patient_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulated servos answer late on a busy machine: they are asked more often than real ones."""
    monkeypatch.setattr("deploy.robots._dynamixel_bus.ATTEMPTS", 20)
