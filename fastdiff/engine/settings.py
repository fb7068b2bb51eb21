"""The options of a program."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

_CHOICES = {
    **{"precision": ("float32",), "memory": ("default", "low")},
    **{"winograd": (True, False), "inductor": (True, False)},
}


@dataclass(frozen=True)
class Settings:
    """What a user may choose.

    Attributes:
        precision: "float32".
        winograd: compute 3x3 convolutions in Winograd form where that is faster.
        memory: "low" keeps transformed weights within twice the size of the raw ones.
        inductor: on a GPU, hand what no pattern covers to torch's inductor; False runs it as it is.
        live: compute as on a GPU, with nothing packed, on whatever device; for tests, no option of a user.
    """

    precision: str = "float32"
    winograd: bool = True
    memory: str = "default"
    inductor: bool = True
    live: bool = False

    @classmethod
    def of(cls, place: str, options: dict[str, Any]) -> Settings:
        """Settings from options by name.

        Raises:
            ValueError: for an unknown option, or a value that it cannot have.
        """
        known = [f.name for f in fields(cls) if f.name in _CHOICES]
        for name, value in options.items():
            if name not in known:
                raise ValueError(f"{place}: an option must be one of {', '.join(known)}, got {name!r}")
            if value not in _CHOICES[name]:
                choices = ", ".join(repr(choice) for choice in _CHOICES[name])
                raise ValueError(f"{place}: {name} must be one of {choices}, got {value!r}")
        return cls(**options)
