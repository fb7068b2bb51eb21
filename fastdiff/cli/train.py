"""`fastdiff train`: a training run, or the continuation of a stopped one."""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> int:
    """Run the command; 128 + signal number when SIGTERM or Ctrl-C stopped it (a checkpoint is then written)."""
    from fastdiff.cli.options import parse
    from fastdiff.training import TrainConfig, TrainingStopped, train

    config = parse(TrainConfig, arguments, "train")
    try:
        train(config)
    except TrainingStopped as stopped:
        print(f"fastdiff: {stopped}", file=sys.stderr)
        return 128 + int(stopped.signum)
    except FloatingPointError as error:
        print(f"fastdiff: {error}", file=sys.stderr)
        return 1
    print(f"wrote {config.folder / 'model'}")
    return 0
