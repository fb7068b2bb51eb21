"""`fastdiff train [WHAT]`: start a training run, or resume one."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Training:
    """Where the options and the task of a kind of training are defined.

    Attributes:
        module: the module that holds both.
        config: name of the dataclass of options.
        task: name of the task; see `fastdiff.training.Task`.
    """

    module: str
    config: str
    task: str


#: What stands after `fastdiff train`; without a word, a diffusion network on images is trained.
DEFAULT = "diffusion"
TRAININGS = {
    DEFAULT: Training("fastdiff.training", "TrainConfig", "DenoisingTask"),
    "vqvae": Training("fastdiff.training.vqvae", "VQVAEConfig", "VQVAETask"),
    "hierarchical-vqvae": Training(
        "fastdiff.training.vqvae", "HierarchicalVQVAEConfig", "HierarchicalVQVAETask"
    ),
    "ou-bridge": Training("fastdiff.training.ou_bridge", "OUBridgeConfig", "OUBridgeTask"),
    "pixelcnn": Training("fastdiff.training.pixelcnn", "PixelCNNConfig", "PixelCNNTask"),
}


def main(arguments: list[str]) -> int:
    """Run the command; 128 + signal number when SIGTERM or Ctrl-C stopped it (a checkpoint is then written).

    Raises:
        ValueError: for a word that names no training; the known ones are listed.
    """
    from fastdiff import training
    from fastdiff.cli.options import parse

    name, rest = DEFAULT, arguments
    if arguments and not arguments[0].startswith("-"):
        name, *rest = arguments
    if name not in TRAININGS:
        raise ValueError(f"train: what is trained must be one of {', '.join(TRAININGS)}, got {name!r}")
    if rest is arguments and {"-h", "--help"} & set(arguments):
        known = ", ".join(TRAININGS)
        print(f"fastdiff train [WHAT] [OPTIONS]: WHAT is one of {known};")
        print(f"fastdiff train WHAT --help lists its options. Those of {DEFAULT}, the default:\n")
    what = TRAININGS[name]
    module = importlib.import_module(what.module)
    config = parse(getattr(module, what.config), rest, "train" if rest is arguments else f"train {name}")
    try:
        training.train(config, task=getattr(module, what.task))
    except training.TrainingStopped as stopped:
        print(f"fastdiff: {stopped}", file=sys.stderr)
        return 128 + int(stopped.signum)
    except FloatingPointError as error:
        print(f"fastdiff: {error}", file=sys.stderr)
        return 1
    print(f"wrote {config.folder / 'model'}")
    return 0
