"""Fixtures shared by every room's tests."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real labelled video beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real video not found at {folder}")
    return folder


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from one random state, and leaks none of it to the next."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
