"""The options of a training run."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fastdiff.prediction import PLAIN, check_prediction


@dataclass(frozen=True)
class NetworkConfig:
    """Options of `fastdiff.nn.UNet`; channels of the images and number of classes come from the data."""

    channels: int = 64
    """Width of the first level."""
    channel_mults: tuple[int, ...] = (1, 2, 2)
    """Width of each level as a multiple of `channels`; every further level halves the resolution."""
    blocks: int = 2
    """Residual blocks per level."""
    attention_levels: tuple[int, ...] = ()
    """Levels (0: full resolution) with attention."""
    middle_attention: bool = True
    """Attention at the lowest level."""
    heads: int = 4
    """Attention heads."""
    head_dim: int | None = None
    """Width of a head; None: width of the level / heads."""
    norm: Literal["group", "rms"] = "group"
    """Group norm, or RMS norm over channels."""
    groups: int = 32
    """Groups of the group norm."""
    time_embedding: Literal["scale_shift", "additive"] = "scale_shift"
    """How time and class enter a block."""
    time_scale: float = 1.0
    """Factor on t before it is embedded."""
    self_condition: bool = False
    """Give the network its own previous estimate of x0."""
    dropout: float = 0.0
    """Dropout in the residual blocks, [0, 1)."""
    patch: int = 1
    """Turn squares of patch x patch pixels into channels before the first level."""
    size_policy: Literal["refuse", "pad"] = "refuse"
    """What to do with a size that cannot be halved often enough."""


@dataclass(frozen=True)
class RunConfig:
    """Options of every training run; the same options and data give the same weights."""

    data: str
    """fashion-mnist, mnist, cifar10, digits, a folder (of pictures or such a data set), .npz, .safetensors or IDX."""
    out: str
    """Folder of the run: checkpoints, log, previews and the finished model."""
    size: int | None = None
    """Pad images with zeros to size x size."""
    init: str | None = None
    """Start from the weights of this model (a folder or a known name) instead of random ones."""
    steps: int = 20_000
    """Optimizer steps of the whole run."""
    batch_size: int = 64
    """Images per step, summed over all processes."""
    lr: float = 3e-4
    """Peak learning rate of AdamW."""
    warmup: int = 500
    """Steps of linear warm-up."""
    lr_schedule: Literal["cosine", "constant"] = "cosine"
    """Decay of the learning rate after the warm-up: to 0 at the last step, or none."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    beta1: float = 0.9
    """AdamW's decay of the mean gradient."""
    beta2: float = 0.99
    """AdamW's decay of the squared gradient."""
    grad_clip: float = 1.0
    """Clip the gradient to this norm; 0: no limit."""
    ema_decay: float = 0.9995
    """Decay of the averaged weights; at step n it is at most (1 + n) / (10 + n)."""
    flip: bool = False
    """Mirror images with probability 1/2."""
    amp: Literal["auto", "off", "bf16", "fp16"] = "auto"
    """Mixed precision; auto: bf16 or fp16 on a GPU, bf16 on a CPU with hardware support, else off."""
    seed: int = 0
    """Seed of the weights, the order of the data and all noise."""
    device: str = "auto"
    """A torch device such as cpu or cuda:1; auto: a GPU if there is one."""
    compile: bool = False
    """Use torch.compile; the first step takes minutes. Resuming with another value changes weights by rounding only."""
    log_every: int = 50
    """Steps between lines of the log."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    sample_every: int = 0
    """Steps between grids of samples of the averaged weights; 0: none."""
    keep: int = 2
    """Number of checkpoints to keep."""
    store: Literal["float32", "float16", "bfloat16"] = "float32"
    """How the weights of the finished model are stored."""
    resume: bool = False
    """Continue from the newest checkpoint in `out`, if there is one."""
    tensorboard: bool = False
    """Also write TensorBoard event files (needs the package tensorboard)."""
    progress: bool = True
    """Show a progress bar, or a line for each line of the log where the output is no terminal."""

    def __post_init__(self) -> None:
        """Check every range.

        Raises:
            ValueError: naming the option.
        """
        for name in ("steps", "batch_size", "log_every", "checkpoint_every", "keep"):
            self._require(getattr(self, name) >= 1, name, "be >= 1")
        for name in ("warmup", "weight_decay", "grad_clip", "sample_every"):
            self._require(getattr(self, name) >= 0, name, "be >= 0")
        self._require(0 <= self.ema_decay <= 1, "ema_decay", "lie in [0, 1]")
        self._require(self.lr > 0, "lr", "be > 0")
        self._require(0 <= self.seed < 2**63, "seed", "lie in [0, 2^63)")

    def _require(self, holds: bool, name: str, what: str) -> None:
        if not holds:
            raise ValueError(f"{type(self).__name__}: {name} must {what}, got {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able dict of all options."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @property
    def folder(self) -> Path:
        """`out` as a path."""
        return Path(self.out)


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Options for training a diffusion network; the same options and data give the same weights."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    """The network."""
    prediction: Literal["eps", "x0", "v"] = "v"
    """What the network returns."""
    schedule: str = "cosine"
    """Name of the noise schedule."""
    timesteps: int = 1000
    """Steps T of the schedule."""
    weighting: Literal["min_snr", "uniform"] = "min_snr"
    """Weight of a noise level in the loss: by its signal-to-noise ratio, capped, or the same for all."""
    min_snr_gamma: float = 5.0
    """Cap of the signal-to-noise ratio in the weight; 0: no cap."""
    offset_noise: float = 0.0
    """Strength of a noise that is constant over each channel."""
    label_dropout: float = 0.1
    """Probability of training an image without its label, for guidance."""
    self_condition_prob: float = 0.5
    """Probability that a step feeds the network its own estimate (with network.self_condition)."""
    time_draws: Literal["independent", "stratified"] = "stratified"
    """Times of a batch: drawn independently, or one draw spread evenly over the batch (less variance)."""

    def __post_init__(self) -> None:
        """Check every range.

        Raises:
            ValueError: naming the option.
        """
        super().__post_init__()
        self._require(self.timesteps >= 1, "timesteps", "be >= 1")
        for name in ("min_snr_gamma", "offset_noise"):
            self._require(getattr(self, name) >= 0, name, "be >= 0")
        for name in ("label_dropout", "self_condition_prob"):
            self._require(0 <= getattr(self, name) <= 1, name, "lie in [0, 1]")
        check_prediction(self.prediction, "TrainConfig", PLAIN)


#: Options that may change when a run is resumed; for `data` and `vqvae`, what they name is compared instead.
FREE = (
    *("out", "data", "vqvae", "device", "compile", "resume", "progress", "tensorboard"),
    *("log_every", "checkpoint_every", "sample_every", "keep", "steps", "store"),
)


def check_same_run(old: dict[str, Any], new: RunConfig) -> None:
    """Refuse to continue a run with other options than it was started with.

    Raises:
        ValueError: listing what differs.
    """
    was, now = _by_path(old), _by_path(new.to_dict())
    names = [n for n in {**was, **now} if n not in FREE and was.get(n) != now.get(n)]
    if names:
        told = "; ".join(f"{n}: {was.get(n)!r} -> {now.get(n)!r}" for n in names)
        raise ValueError(f"train: resume must keep the options of the run in {new.out}, got {told}")


def _by_path(options: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Options under the names that the command line gives them, such as `network.channels`."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        inner = _by_path(value, f"{above}{name}.") if isinstance(value, dict) and value else None
        flat |= {f"{above}{name}": value} if inner is None else inner
    return flat
