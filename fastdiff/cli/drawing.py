"""What `fastdiff sample` draws with: a diffusion model by the rows of a solver, or a PixelCNN code by code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from fastdiff.cli.chain import Chain
    from fastdiff.cli.sample import SampleOptions
    from fastdiff.model import Model
    from fastdiff.systems.pixelcnn import LatentPixelCNN

#: Options that say how a diffusion model is drawn from.
_OF_SOLVERS = (
    *("steps", "solver", "spacing", "eta", "guidance", "rescale", "interval", "dynamic", "start"),
    *("trajectory", "batch_invariant", "dtype"),
)


@dataclass(frozen=True)
class Wanted:
    """The images of a call: their seeds, and for each a label, an initial image and a mask (or None)."""

    seeds: list[int]
    labels: list[int] | None
    x_init: Tensor | None = None
    mask: Tensor | None = None

    def only(self, kept: Sequence[int]) -> Wanted:
        """Some of them, by their places; every image keeps its label and where it starts."""
        labels = None if self.labels is None else [self.labels[i] for i in kept]
        x_init, mask = (None if given is None else given[list(kept)] for given in (self.x_init, self.mask))
        return Wanted([self.seeds[i] for i in kept], labels, x_init, mask)

    def without(self, done: set[int]) -> Wanted:
        """The same without some seeds."""
        return self.only([i for i, seed in enumerate(self.seeds) if seed not in done])

    def arguments(self) -> dict[str, Any]:
        """What a drawing call gets of it."""
        return {"seeds": self.seeds, "labels": self.labels, "x_init": self.x_init, "mask": self.mask}


class Drawing(Protocol):
    """A model and how it is drawn from."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image."""

    @property
    def num_classes(self) -> int:
        """Number of labels."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Their names, or none."""

    def cost(self, wanted: Wanted) -> tuple[int, int]:
        """Steps and evaluations of each image, after a check of every option that has not been checked yet."""

    def batches(self, wanted: Wanted, chain: Chain | None) -> Iterator[tuple[list[int], Tensor]]:
        """Batches of (seeds, images); the first goes through `chain` when the trajectory is wanted."""


def drawing_of(options: SampleOptions) -> Drawing:
    """What --model names.

    Raises:
        ValueError: for something that nothing can be drawn from, or options that do not go with it.
    """
    from fastdiff.model import load
    from fastdiff.systems import kind_of

    if kind_of(options.model) == "LatentPixelCNN":
        return CodeDrawing.of(options)
    return StepDrawing(load(options.model), options)


@dataclass(frozen=True)
class StepDrawing:
    """A diffusion model, drawn from by the rows of a solver."""

    model: Model
    options: SampleOptions

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image."""
        return self.model.shape

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        return self.model.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Their names, or none."""
        return self.model.class_names

    def cost(self, wanted: Wanted) -> tuple[int, int]:
        """Steps asked for, and outputs of the network for each image."""
        from fastdiff.sampling import step_table

        options = self.options
        table = step_table(self.model, options.steps, **wanted.arguments(), **self._arguments())
        alone = options.init is not None and options.start is None and options.mask is None
        if alone and table.start[1] != 0:
            raise ValueError(
                "sample: --init must go with --start or --mask, or --solver ddim_inverse, got it alone"
            )
        return options.steps, table.branches

    def batches(self, wanted: Wanted, chain: Chain | None) -> Iterator[tuple[list[int], Tensor]]:
        """Batches of (seeds, images)."""
        from fastdiff.sampling import sample, sample_batches

        steps, size, more = self.options.steps, self.options.batch, self._arguments()
        if chain is not None:
            first = wanted.only(range(min(size, len(wanted.seeds))))
            wanted = wanted.only(range(len(first.seeds), len(wanted.seeds)))
            states = sample(self.model, steps, trajectory=True, **first.arguments(), **more)
            chain.keep(states)
            yield first.seeds, states[-1]
        if wanted.seeds:
            yield from sample_batches(self.model, steps, batch_size=size, **wanted.arguments(), **more)

    def _arguments(self) -> dict[str, Any]:
        """Arguments that every drawing call gets."""
        import torch

        from fastdiff.guidance import Guidance

        options = self.options
        solver_options = {} if options.eta is None else {"eta": options.eta}
        return {
            "solver": options.solver,
            "spacing": options.spacing,
            "start": options.start,
            "guidance": Guidance(options.guidance, options.rescale, interval=options.interval),
            "clip": "dynamic" if options.dynamic else "data",
            "device": _device(options.device),
            "dtype": None if options.dtype == "float32" else getattr(torch, options.dtype),
            "batch_invariant": options.batch_invariant,
            "progress": options.shows_progress,
            **solver_options,
        }


@dataclass(frozen=True)
class CodeDrawing:
    """A PixelCNN, drawn from one code after the other."""

    system: LatentPixelCNN
    batch: int

    @classmethod
    def of(cls, options: SampleOptions) -> CodeDrawing:
        """The PixelCNN of --model.

        Raises:
            ValueError: for an option of solvers, or a start without a mask.
        """
        from typing import cast

        from fastdiff.systems import load

        usual = {field.name: field.default for field in fields(options)}
        wrong = next((name for name in _OF_SOLVERS if getattr(options, name) != usual[name]), None)
        if wrong is not None:
            option = f"--{wrong.replace('_', '-')}"
            raise ValueError(f"sample: {option} must be left out for a PixelCNN, which has no solver, got it")
        if (options.init is None) != (options.mask is None):
            raise ValueError("sample: --init and --mask must go together for a PixelCNN, got one of them")
        system = load(options.model, device=_device(options.device) or "cpu")
        return cls(cast("LatentPixelCNN", system), options.batch)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image."""
        return self.system.image_shape

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        return int(self.system.prior.config["n_classes"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """None: the files of systems do not name their classes."""
        return ()

    def cost(self, wanted: Wanted) -> tuple[int, int]:
        """The codes of an image, each drawn in one evaluation."""
        if self.num_classes and wanted.labels is None:
            raise ValueError(
                f"sample: --labels must be given for a PixelCNN of {self.num_classes} classes, got none"
            )
        height, width = self.system.size
        return height * width, height * width

    def batches(self, wanted: Wanted, chain: Chain | None) -> Iterator[tuple[list[int], Tensor]]:
        """Batches of (seeds, images), this process's share of them."""
        import torch

        from fastdiff.sampling.batches import share_of

        mine = share_of(len(wanted.seeds), None, None)
        for first in range(mine.start, mine.stop, self.batch):
            part = wanted.only(range(first, min(first + self.batch, mine.stop)))
            place = self.system.prior.embedding.weight.device
            labels = None if part.labels is None else torch.tensor(part.labels, device=place)
            known = None if part.x_init is None else part.x_init.to(place)
            yield (
                part.seeds,
                self.system.sample(labels=labels, seeds=part.seeds, known=known, mask=part.mask).cpu(),
            )


def _device(name: str | None) -> str | None:
    """The device's name, when torch knows it and it is there."""
    from fastdiff.sampling.plan import checked_device

    if name is not None:
        try:
            checked_device(name)
        except ValueError as error:
            raise ValueError(str(error).replace("device", "--device", 1)) from None
    return name
