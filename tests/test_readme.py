"""The README's code runs: Python blocks as they stand, commands through the command line, make targets as dry runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fastdiff import cli

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [line for language, code in BLOCKS if language == "sh" for line in code.splitlines()]
COMMANDS = [shlex.split(line, comments=True) for line in SHELL]


def test_there_is_code_and_every_block_has_a_known_language() -> None:
    assert {language for language, _ in BLOCKS} == {"python", "sh"}
    assert len(PYTHON) >= 3 and TEXT.count("```") == 2 * len(BLOCKS)


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_blocks_run_by_themselves(code: str, tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def _smaller(command: list[str]) -> list[str]:
    """The same command with little work: few images and steps; a training run of one step on small pictures."""
    name = command[1]
    if name == "sample":
        return [*command[1:], "--num", "4", "--steps", "2", "--no-progress"]
    if name == "train":
        network = ["--network.channels", "8", "--network.channel-mults", "1", "--network.groups", "4"]
        systems = {"vqvae": [], "ou-bridge": ["--network.n-channels", "8"]}
        network = systems.get(command[2], [*network, "--network.heads", "1"])
        small = ["--data", "digits", "--size", "8", "--steps", "1", "--batch-size", "2", "--device", "cpu"]
        return [*command[1:], *small, *network, "--no-progress"]
    if name == "doctor":
        return [*command[1:], "--ops", "normal", "--device", "cpu", "--no-store"]
    return [*command[1:], "--num", "10", "--steps", "1"] if name == "eval" else command[1:]


REAL = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.parametrize("command", [c for c in COMMANDS if c and c[0] == "fastdiff"], ids=" ".join)
def test_commands_run(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if command[1] == "eval" and not REAL.is_dir():
        pytest.skip("the real Fashion-MNIST files (Debian: dataset-fashion-mnist) are not here")
    monkeypatch.chdir(tmp_path)
    assert cli.main(_smaller(command)) == 0
    written = [word for flag, word in zip(command, command[1:], strict=False) if flag == "--out"]
    assert all((tmp_path / name).exists() for name in written)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c and c[0] != "fastdiff"], ids=" ".join)
def test_other_commands_are_known(command: list[str]) -> None:
    if command[0] == "make":
        assert subprocess.run([*command, "--dry-run"], cwd=ROOT, capture_output=True).returncode == 0
    else:
        assert command == ["pip", "install", "--no-build-isolation", ".[cli]"]


def test_pictures_and_pages_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert targets and [target for target in targets if not (ROOT / target).exists()] == []


def test_the_first_screen_has_the_picture_the_commands_and_the_python() -> None:
    first = "\n".join(TEXT.splitlines()[:60])
    places = [first.index(what) for what in ("![", "make demo", "import fastdiff", "What runs where")]
    assert places == sorted(places)
