"""The checks of a UNet's options."""

from __future__ import annotations

from typing import Any

from fastdiff.nn.blocks import TIME_EMBEDDINGS

CHOICES = {"norm": ("group", "rms"), "time_embedding": TIME_EMBEDDINGS, "size_policy": ("refuse", "pad")}
COUNTS = ("in_channels", "out_channels", "channels", "blocks", "heads", "groups", "patch")


def check_config(config: dict[str, Any]) -> dict[str, Any]:
    """The options of a UNet with defaults filled in and sequences as lists, ready for JSON.

    Raises:
        ValueError: naming the option that is out of its range.
    """
    config = dict(config)
    if config["out_channels"] is None:
        config["out_channels"] = config["in_channels"]
    config["channel_mults"] = list(config["channel_mults"])
    config["attention_levels"] = sorted(config["attention_levels"])
    _check_counts(config)
    _check_choices(config)
    _check_levels(config)
    return config


def _check_counts(config: dict[str, Any]) -> None:
    for name in COUNTS:
        _require(
            isinstance(config[name], int) and config[name] >= 1, name, "be an integer >= 1", config[name]
        )
    classes, head_dim = config["num_classes"], config["head_dim"]
    _require(isinstance(classes, int) and classes >= 0, "num_classes", "be an integer >= 0", classes)
    _require(head_dim is None or head_dim >= 1, "head_dim", "be None or >= 1", head_dim)
    _require(0 <= config["dropout"] < 1, "dropout", "lie in [0, 1)", config["dropout"])
    _require(config["channels"] % 2 == 0, "channels", "be even", config["channels"])


def _check_choices(config: dict[str, Any]) -> None:
    for name, known in CHOICES.items():
        listed = "be one of " + ", ".join(repr(k) for k in known)
        _require(config[name] in known, name, listed, config[name])


def _check_levels(config: dict[str, Any]) -> None:
    mults, levels = config["channel_mults"], config["attention_levels"]
    _require(bool(mults) and all(m >= 1 for m in mults), "channel_mults", "hold integers >= 1", mults)
    inside = all(0 <= level < len(mults) for level in levels)
    _require(inside, "attention_levels", f"name levels 0...{len(mults) - 1}", levels)


def _require(holds: bool, name: str, what: str, got: object) -> None:
    if not holds:
        raise ValueError(f"UNet: {name} must {what}, got {got!r}")
