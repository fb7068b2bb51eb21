"""`fastdiff info`: what is available in this installation, and why the rest is not."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass
class InfoOptions:
    """Print versions, devices, build facts, and for every op and backend whether it is available or why not.

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
