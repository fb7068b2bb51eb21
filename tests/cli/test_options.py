"""Options from the command line and from a config file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastdiff.cli.options import parse


@dataclass
class Options:
    """Options of a test."""

    steps: int = 50
    guidance: float = 1.0
    out: Path = Path("grid.png")
    labels: str | None = None
    sizes: tuple[int, ...] = (1, 2)


def _parse(*arguments: str) -> Options:
    return parse(Options, list(arguments), "test")


def _config(folder: Path, text: str, name: str = "c.json") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_defaults_and_arguments() -> None:
    assert _parse() == Options()
    assert _parse("--steps", "7", "--out", "x.npz", "--labels", "0-9") == Options(
        7, 1.0, Path("x.npz"), "0-9"
    )


@pytest.mark.parametrize("form", ["--config {}", "--config={}"])
def test_a_file_gives_defaults_that_arguments_override(tmp_path: Path, form: str) -> None:
    file = _config(tmp_path, json.dumps({"steps": 9, "guidance": 2.5, "out": "a.png", "sizes": [3]}))
    options = _parse(*form.format(file).split(" "), "--steps", "5")
    assert options == Options(5, 2.5, Path("a.png"), None, (3,))


def test_the_help_keeps_the_examples(capsys: pytest.CaptureFixture[str]) -> None:
    @dataclass
    class Shown:
        """Do a thing.

        It is told
        in one paragraph.

        Examples:
            fastdiff test --steps 3

            fastdiff test
        """

        steps: int = 50

    with pytest.raises(SystemExit):
        parse(Shown, ["--help"], "test")
    shown = capsys.readouterr().out
    assert "It is told in one paragraph." in shown
    assert "Examples:\n  fastdiff test --steps 3\n  fastdiff test\n" in shown


def test_yaml_and_dashes(tmp_path: Path) -> None:
    @dataclass
    class Dashed:
        """Options with a longer name."""

        batch_size: int = 1

    file = _config(tmp_path, "batch-size: 12\n", "c.yaml")
    assert parse(Dashed, ["--config", file], "test") == Dashed(12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"step": 3}', "options must be among steps, guidance, out, labels, sizes, got step"),
        ("[1]", "must hold an object of options, got list"),
        ("{", "must be JSON"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        _parse("--config", _config(tmp_path, text))
    assert "c.json" in str(error.value)


def test_a_missing_file_and_a_missing_name() -> None:
    with pytest.raises(FileNotFoundError):
        _parse("--config", "/nowhere/c.json")
    with pytest.raises(ValueError, match="followed by the name"):
        _parse("--steps", "3", "--config")
