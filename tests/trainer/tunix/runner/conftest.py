"""Shared by the runner's tests: programs of the build, tiny models made by them, processes of the real runner."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
RUNNER = ROOT / "trainer" / "tunix" / "gateway"
sys.path.insert(0, str(RUNNER))
sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from workspace import Workspace  # noqa: E402  (it needs the paths above)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A tokenizer and rows, once; models are made when they are asked for."""
    return Workspace(tmp_path_factory.mktemp("workspace"))
