"""What was recorded, kept for the next call: a few entries, the least recently used one goes first."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from torch import Tensor, nn

Entry = TypeVar("Entry")


def layout_of(tensor: Tensor) -> Hashable:
    """What a recording fixes about a tensor that is loaded into a static buffer."""
    return tuple(tensor.shape), tensor.dtype, tensor.device


def addresses_of(module: nn.Module) -> Hashable:
    """Where the weights of a module lie. Writing into them keeps a recording right, other tensors need a new one."""
    tensors = (*module.parameters(), *module.buffers())
    return tuple((tensor.data_ptr(), tensor.dtype, tuple(tensor.stride())) for tensor in tensors)


_SCALARS = (bool, int, float, str, type(None))
_MOST_SCALARS = 64


def settings_of(module: nn.Module) -> Hashable:
    """What the parts of a module keep in Python and a recording fixes: numbers, flags, names, short collections, hooks.

    An adapter that is switched off or weighted anew, or a hook that comes or goes, needs a new recording. What other
    objects hold is not seen.
    """
    told = []
    for part in module.modules():
        values = vars(part)
        hooks = (*values["_forward_hooks"].values(), *values["_forward_pre_hooks"].values())
        told.append((tuple(map(id, hooks)), *((k, _plain(v)) for k, v in values.items() if k[:2] != "__")))
    return tuple(told)


def _plain(value: object) -> Hashable:
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, dict):
        return _plain([*value.keys(), *value.values()])
    if isinstance(value, list | tuple | set) and len(value) <= _MOST_SCALARS:
        return tuple(entry for entry in value if isinstance(entry, _SCALARS))
    return None


class ReplayCache(Generic[Entry]):
    """Entries by key, each bound to the modules it was recorded from.

    An entry is dropped when a later one needs its place, by `clear`, or, where it does not keep its modules alive
    itself, when one of them is gone (its key holds an id that may come again). A failed `make` leaves nothing behind.

    Args:
        most: Number of entries kept.
    """

    def __init__(self, most: int = 8) -> None:
        self.most = most
        self._entries: OrderedDict[Hashable, tuple[list[weakref.ref[nn.Module]], Entry]] = OrderedDict()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, modules: Sequence[nn.Module], make: Callable[[], Entry]) -> Entry:
        """The entry of `key`, made now when there is none.

        Args:
            key: Everything a recording depends on but its modules.
            modules: What it was recorded from.
            make: Makes it; what it raises is passed on.
        """
        place = (tuple(id(module) for module in modules), key)
        with self._lock:
            self._drop_dead()
            if place not in self._entries:
                made = make()
                self._entries[place] = ([weakref.ref(module) for module in modules], made)
            self._entries.move_to_end(place)
            while len(self._entries) > self.most:
                self._entries.popitem(last=False)
            return self._entries[place][1]

    def find(self, key: Hashable, modules: Sequence[nn.Module]) -> Entry | None:
        """The entry of `key`, if there is one."""
        with self._lock:
            self._drop_dead()
            found = self._entries.get((tuple(id(module) for module in modules), key))
            return None if found is None else found[1]

    def drop(self, entry: Entry) -> None:
        """Forget one entry, if it is there."""
        with self._lock:
            for place in [place for place, (_, kept) in self._entries.items() if kept is entry]:
                del self._entries[place]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()

    def _drop_dead(self) -> None:
        for place in [p for p, (alive, _) in self._entries.items() if any(ref() is None for ref in alive)]:
            del self._entries[place]
