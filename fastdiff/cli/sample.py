"""`fastdiff sample`: images from a trained model into a grid, a folder or an .npz file."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from fastdiff.cli.chain import Chain
    from fastdiff.cli.drawing import Drawing, Wanted

#: Suffixes that are refused as --out: unsupported formats, hardly meant as the name of a folder.
OTHER_FORMATS = (
    ".jpg",
    ".jpeg",
    ".gif",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".npy",
    ".pt",
    ".safetensors",
    ".zip",
)


@dataclass
class SampleOptions:
    """Draw images from a trained model.

    Image i has the seed SEED + i, and labels repeat in turn. It is the same image whatever the batch size, the other
    images, or the number of processes (torchrun divides the seeds among them).

    Examples:
        fastdiff sample --model fashion --num 64 --labels 0-9 --guidance 1.5 --out grid.png

        fastdiff sample --num 50000 --labels 0-9 --out images/ --resume

        fastdiff sample --labels sneaker,bag --num 16 --steps 100 --solver ddpm --out some.npz
    """

    model: str = "fashion"
    """Name of a shipped model, or the folder of a finished training run (a PixelCNN has no solver and no steps)."""
    num: int | None = None
    """Number of images; by default as many as --seeds, or 64."""
    steps: int = 50
    """Steps of the solver, from 1 to the length of the schedule."""
    solver: str = "ddim"
    """Name of the solver: ddim, ddpm, dpmpp_2m, unipc, ipndm ...; an unknown name prints the full list."""
    spacing: str = "trailing"
    """How the visited times are spaced: trailing, leading, linspace, quad, karras, exponential, ays, optimized ..."""
    eta: float | None = None
    """Share of fresh noise, 0 (none) to 1 (all), for solvers with this option; by default the solver's own."""
    guidance: float = 1.0
    """Weight of classifier-free guidance; 1 is none, larger values follow the label more closely."""
    rescale: float = 0.0
    """How far guidance restores the standard deviation of the conditional output, 0 to 1."""
    interval: tuple[float, float] | None = None
    """Guide only between these two times; elsewhere only the conditional branch is evaluated."""
    dynamic: bool = False
    """Dynamic thresholding of the estimates, for strong guidance."""
    labels: str | None = None
    """Class numbers, ranges or names, such as 0-9 or sneaker,bag; repeated in turn over the images."""
    init: Path | None = None
    """Images to start from: a picture, a folder of pictures or an .npz; repeated in turn."""
    start: int | None = None
    """With --init: the row of the solver's table (usually a step) to start at; the image is noised to that level."""
    mask: str | None = None
    """With --init: the part to keep: top, bottom, left, right, centre, or pictures whose bright pixels are kept."""
    seed: int = 0
    """Seed of the first image."""
    seeds: str | None = None
    """The seeds themselves, such as 0-99,200, instead of --seed."""
    out: Path = Path("samples.png")
    """NAME.png: one grid. NAME.npz: arrays. Anything else: a folder with one PNG per seed."""
    columns: int | None = None
    """Columns of the grid."""
    scale: int | None = None
    """Factor by which pixels are enlarged in grid, strip and GIF; by default images become 64 pixels high."""
    resume: bool = False
    """With a folder: skip seeds whose file exists, whatever options it was drawn with."""
    trajectory: bool = False
    """Also write the denoising chain of the first images as NAME_strip.png and NAME.gif."""
    batch: int = 64
    """Images drawn at a time."""
    batch_invariant: bool = False
    """Make every image independent of its batch down to the last bit (slower)."""
    device: str | None = None
    """A torch device such as cpu or cuda:1; by default where the model is."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the network; the state stays float32."""
    progress: bool = True
    """Show a progress bar when the output is a terminal."""
    json: bool = False
    """Print the summary as one JSON object."""

    @property
    def shows_progress(self) -> bool:
        """Whether there is a progress bar."""
        return self.progress and not self.json and sys.stderr.isatty()


def main(arguments: list[str]) -> int:
    """Run the command."""
    from fastdiff.cli.options import parse

    options = parse(SampleOptions, arguments, "sample")
    summary = run(options)
    print(json.dumps(summary) if options.json else _told(summary))
    return 0


def run(options: SampleOptions) -> dict[str, Any]:
    """Draw and write the images; returns what was done."""
    from fastdiff.cli.drawing import drawing_of

    _check(options)
    drawing = drawing_of(options)
    cycle = None if options.labels is None else parse_labels(options.labels, drawing)
    wanted = _wanted(options, cycle, drawing)
    left = wanted.without(_existing(options.out, wanted.seeds)) if options.resume else wanted
    steps, evaluations = drawing.cost(wanted.only([0]))
    started = time.perf_counter()
    files = _write(options, drawing, left, len(cycle or ())) if left.seeds else []
    seconds = time.perf_counter() - started
    return {
        "images": len(left.seeds),
        "skipped": len(wanted.seeds) - len(left.seeds),
        "steps": steps,
        "evaluations": evaluations,
        "seconds": round(seconds, 3),
        "images_per_second": round(len(left.seeds) / seconds, 3) if left.seeds else None,
        "files": [str(file) for file in files],
    }


def _told(summary: dict[str, Any]) -> str:
    lines = [f"wrote {file}" for file in summary["files"]]
    if summary["skipped"]:
        lines.append(f"already there: {_many(summary['skipped'], 'image')}")
    if summary["images"]:
        counts = [_many(summary[f"{what}s"], what) for what in ("image", "step", "evaluation")]
        lines.append(
            f"{', '.join(counts)} each, {summary['seconds']:.1f} s: {summary['images_per_second']:.2f} images/s"
        )
    return "\n".join(lines)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _check(options: SampleOptions) -> None:
    """Check what is checked nowhere else, before anything is loaded or drawn."""
    for name in ("num", "batch", "columns", "scale"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"sample: --{name} must be >= 1, got {value}")
    if options.resume and _kind(options.out) != "folder":
        raise ValueError(f"sample: --resume must go with a folder as --out, got {options.out}")
    if _kind(options.out) != "folder" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"sample: --out must be a folder when several processes draw, got {options.out}")
    if _kind(options.out) != "folder" and options.out.is_dir():
        raise ValueError(
            f"sample: --out must name a file when it ends in .png or .npz, got the folder {options.out}"
        )
    unknown = options.out.suffix.lower() in OTHER_FORMATS and not options.out.is_dir()
    if _kind(options.out) == "folder" and (unknown or options.out.is_file()):
        raise ValueError(f"sample: --out must end in .png or .npz, or name a folder, got {options.out}")
    above = next(folder for folder in options.out.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ValueError(f"sample: --out must lie where files can be written, got {options.out}")


def _kind(out: Path) -> Literal["grid", "npz", "folder"]:
    return {".png": "grid", ".npz": "npz"}.get(out.suffix.lower(), "folder")  # type: ignore[return-value]


def parse_labels(text: str, model: Drawing) -> list[int]:
    """Class numbers of a list of numbers, ranges and class names, such as `0-3,bag`.

    Raises:
        ValueError: for an unknown name (the known ones are listed) or a number the model does not have.
    """
    from fastdiff.rng import parse_seeds

    names = {name.lower(): index for index, name in enumerate(model.class_names)}
    labels: list[int] = []
    for part in (part.strip() for part in text.split(",")):
        if part.lower() in names:
            labels.append(names[part.lower()])
        elif part.replace("-", "").isascii() and part.replace("-", "").isdigit():
            labels += parse_seeds(part)
        else:
            known = ", ".join(model.class_names) or "none"
            raise ValueError(
                f"sample: --labels must be numbers, ranges or class names ({known}), got {part!r}"
            )
    if model.num_classes == 0:
        raise ValueError(f"sample: --labels must be left out for a model without classes, got {text!r}")
    if max(labels) >= model.num_classes:
        raise ValueError(
            f"sample: --labels must be < {model.num_classes} (the model's classes), got {max(labels)}"
        )
    return labels


def _wanted(options: SampleOptions, cycle: list[int] | None, drawing: Drawing) -> Wanted:
    from fastdiff.cli.drawing import Wanted
    from fastdiff.cli.image_inputs import read_images, read_mask
    from fastdiff.rng import parse_seeds, seed_list

    named = None if options.seeds is None else parse_seeds(options.seeds)
    count = options.num or (64 if named is None else len(named))
    seeds = list(seed_list(options.seed, count, named))
    labels = None if cycle is None else [cycle[i % len(cycle)] for i in range(count)]
    given = (
        None if options.init is None else read_images(options.init, drawing.shape, "--init"),
        None if options.mask is None else read_mask(options.mask, drawing.shape),
    )
    return Wanted(seeds, labels, *(_repeated(images, count) for images in given))


def _repeated(images: Tensor | None, count: int) -> Tensor | None:
    """(count, ...): the images in turn."""
    return None if images is None else images.repeat(-(-count // len(images)), 1, 1, 1)[:count]


def _existing(folder: Path, seeds: Sequence[int]) -> set[int]:
    from fastdiff.cli.images import seed_file

    return {seed for seed in seeds if seed_file(folder, seed).is_file()}


def _write(options: SampleOptions, drawing: Drawing, wanted: Wanted, classes: int) -> list[Path]:
    """Draw `wanted` and write it as asked; returns the files (for a folder: the folder)."""
    from fastdiff.cli import images

    chain = _chain(options) if options.trajectory else None
    batches = _batches(options, drawing, wanted, chain)
    if _kind(options.out) == "folder":
        for seeds, drawn in batches:
            for seed, image in zip(seeds, images.to_uint8(drawn), strict=True):
                images.save_png(images.seed_file(options.out, seed), image)
    else:
        pixels = np.concatenate([images.to_uint8(drawn) for _, drawn in batches])
        if _kind(options.out) == "npz":
            images.save_npz(options.out, pixels, wanted.seeds, wanted.labels)
        else:
            columns = options.columns or images.grid_columns(len(pixels), classes)
            images.save_png(options.out, images.grid(images.for_people(pixels, options.scale), columns))
    return [options.out, *(chain.write() if chain is not None else [])]


def _batches(
    options: SampleOptions, drawing: Drawing, wanted: Wanted, chain: Chain | None
) -> Iterator[tuple[list[int], Tensor]]:
    """Batches of (seeds, images), with a progress bar."""
    with _bar(options, len(wanted.seeds)) as bar:
        for seeds, drawn in drawing.batches(wanted, chain):
            bar.update(len(seeds))
            yield seeds, drawn


def _chain(options: SampleOptions) -> Chain:
    """The chain's pictures lie beside the output, or inside it when it is a folder."""
    from fastdiff.cli.chain import Chain

    folder = _kind(options.out) == "folder"
    base = options.out / "trajectory" if folder else options.out.with_suffix("")
    return Chain(base, options.scale, options.columns)


def _bar(options: SampleOptions, total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit="image", disable=not options.shows_progress)
