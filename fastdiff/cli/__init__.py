"""The command `fastdiff`: sample, train, eval, plot, doctor, bench, info.

Each command is a module with a dataclass of its options (read by tyro) and a function `run`. Only the module of the
command that is asked for is imported. A wrong value ends in one line on stderr and exit status 2; `--debug` or
FASTDIFF_DEBUG=1 shows the traceback.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WRONG_INPUT = 2
INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + signal.SIGPIPE


@dataclass(frozen=True)
class Command:
    """Where a command is found, and one line about it."""

    module: str
    summary: str


COMMANDS = {
    "sample": Command("fastdiff.cli.sample", "draw images from a trained model"),
    "train": Command("fastdiff.cli.train", "train a model, or resume a training run"),
    "eval": Command("fastdiff.cli.evaluate", "class accuracy and Frechet distance of a model's images"),
    "plot": Command("fastdiff.cli.plot", "plot solvers: schedule, times, error against evaluations"),
    "doctor": Command(
        "fastdiff.cli.doctor", "check and time every kernel on this machine; store the fastest"
    ),
    "bench": Command("fastdiff.cli.bench", "time fastdiff's ops and the shipped model against plain torch"),
    "info": Command("fastdiff.cli.info", "versions, devices, and which backend runs each op, or why not"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status (0 done, 2 wrong input, 130 interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("FASTDIFF_DEBUG", "") not in ("", "0")
    arguments = [argument for argument in arguments if argument != "--debug"]
    usual, warnings.formatwarning = warnings.formatwarning, _warning_line
    try:
        return _run(arguments)
    except SystemExit as end:  # tyro has printed what is wrong, or the help
        return end.code if isinstance(end.code, int) else WRONG_INPUT
    except KeyboardInterrupt:
        print("fastdiff: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone (`fastdiff ... | head`): print nothing more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        if debug or not _is_expected(error):
            raise
        print(f"fastdiff: {_one_line(error)}", file=sys.stderr)
        return WRONG_INPUT
    finally:
        warnings.formatwarning = usual


def _warning_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of ours in one line; others also show where they come from."""
    ours = Path(filename).is_relative_to(Path(__file__).parents[1])
    return f"fastdiff: {message}\n" if ours else f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _run(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(_overview())
        return 0
    if name == "--version":
        from importlib.metadata import version

        print(version("fastdiff-torch"))
        return 0
    if name not in COMMANDS:
        raise ValueError(f"the command must be one of {', '.join(COMMANDS)}, got {name!r}")
    return int(importlib.import_module(COMMANDS[name].module).main(arguments[1:]))


def _overview() -> str:
    lines = [f"  {name:<8}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fastdiff COMMAND [options]     (fastdiff COMMAND --help lists the options)",
            "",
            *lines,
            "",
            "  --version   print the version",
            "  --debug     show the traceback of an error",
            "  --config F  with a command: read defaults of its options from the JSON file F",
        ]
    )


def _is_expected(error: Exception) -> bool:
    """Whether an error is the user's to fix; a missing module is, unless it is a part of fastdiff."""
    if isinstance(error, ModuleNotFoundError):
        return not (error.name or "").startswith("fastdiff")
    return True


def _one_line(error: Exception) -> str:
    """The message of an error; for a missing optional package, with the command that installs it."""
    if isinstance(error, ModuleNotFoundError):
        extra = "plot" if error.name == "matplotlib" else "cli"
        return f"the package {error.name!r} is missing: pip install 'fastdiff-torch[{extra}]'"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
