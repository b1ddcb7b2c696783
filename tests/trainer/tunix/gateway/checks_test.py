"""The gateway's sources and tests: types, names and layout."""

import subprocess
import sys
from pathlib import Path

from conftest import GATEWAY

HERE = Path(__file__).resolve().parent


def run(*words: str, folder: Path = GATEWAY) -> None:
    done = subprocess.run([sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_types_are_right(tmp_path: Path) -> None:
    run("mypy", "-p", "gateway", "--cache-dir", str(tmp_path))


def test_the_sources_are_tidy() -> None:
    settings = ("--config", str(GATEWAY / "pyproject.toml"), "--no-cache")
    run("ruff", "check", *settings, "gateway")
    run("ruff", "format", "--check", *settings, "gateway")
    run("ruff", "check", *settings, "--ignore", "S,E501", str(HERE))
    run("ruff", "format", "--check", *settings, str(HERE))
