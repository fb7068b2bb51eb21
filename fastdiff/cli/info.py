"""`fastdiff info`: what this installation can do, and why it cannot do the rest."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass
class InfoOptions:
    """Versions, devices, every op with every backend (available, or the reason why not), build facts and fallbacks.

    Example: fastdiff info --json
    """

    json: bool = False
    """Print one JSON object instead of text."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    from fastdiff import info
    from fastdiff.cli.options import parse

    options = parse(InfoOptions, arguments, "info")
    facts = info.collect()
    print(json.dumps(facts, indent=2) if options.json else info.as_text(facts))
    return 0
