"""Where a call of the CPU engine spends what its kernels do not: python -m benchmarks.engine_parts [--rounds N]

The call, the program without dynamo's guards, the tape with the steps of torch, and its kernels alone, in turns. Then
each part of a call by itself, cold (behind the kernels of the whole network, which drive everything out of the caches)
and warm; and dynamo's guards as they are, without those on weights, and without all of modules (which nobody may use:
it tells what is to be gained at most).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import networks
from fastdiff.engine import weights as watched
from fastdiff.engine.program import Program
from fastdiff.engine.settings import Settings

NETWORK = "ddpm-cifar10 35.7 M"
Times = dict[str, list[float]]
Guards = Callable[[Any], list[bool]]

FILTERS: dict[str, Guards] = {
    "all": lambda guards: [True for _ in guards],
    "none on weights": lambda guards: [not isinstance(guard.value, nn.Parameter) for guard in guards],
    "none on modules": torch.compiler.skip_guard_on_all_nn_modules_unsafe,
}


class Recorded(Program):
    """A program that keeps the arguments of its last call."""

    last: tuple[Any, ...] = ()

    def __call__(self, *args: Any) -> Any:
        self.last = args
        return super().__call__(*args)


def compiled(net: nn.Module, guards: Guards) -> tuple[Any, list[Recorded], Counter[str]]:
    """The network, its programs, and how many guards of which type it was compiled with."""
    programs: list[Recorded] = []
    kinds: Counter[str] = Counter()

    def backend(module: Any, inputs: Sequence[Any], **_: Any) -> Recorded:
        programs.append(Recorded(module, Settings()))
        return programs[-1]

    def kept(entries: Any) -> list[bool]:
        keep = guards(entries)
        kinds.update(entry.guard_type for entry, kept in zip(entries, keep, strict=True) if kept)
        return keep

    torch.compiler.reset()
    call = torch.compile(net, backend=backend, dynamic=False, options={"guard_filter_fn": kept})
    return call, programs, kinds


def guard_check(net: nn.Module, x: Tensor, t: Tensor) -> Callable[[], bool]:
    """Dynamo's guards of the only compiled frame of a network of diffusers."""
    (entry,) = torch._dynamo.eval_frame._debug_get_cache_entry_list(type(net).forward)
    given = {"self": net, "sample": x, "timestep": t, "class_labels": None, "return_dict": True}
    return lambda: entry.guard_manager.root.check(given)


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def parts(batch: int, rounds: int) -> Times:
    """Milliseconds of a call and of its parts."""
    net, (x, t) = networks.built(NETWORK), networks.inputs(NETWORK, batch)
    call, programs, _ = compiled(net, FILTERS["all"])
    for _ in range(3):
        call(x, t)
    (program,) = programs
    args, plan = program.last, program.plans[program.key(program.last)]
    tensors, packed = [a for a in args if isinstance(a, Tensor)], program.packed(plan, args)
    tape, weights = packed.tape, program.weights_of(args)
    size, watch = torch.ops.fastdiff.tape_size(tape.number), program.weights._recent.watch

    def kernels() -> None:
        torch.ops.fastdiff.tape_run(tape.number, 0, size)

    def words() -> None:
        watch._turn += 1
        torch.ops.fastdiff.weights_changed(watch._state, watch._shares, watch._turn)

    whole = {
        "call": lambda: call(x, t),
        "program": lambda: Program.__call__(program, *args),
        "tape": lambda: tape(tensors, packed),
        "kernels": kernels,
    }
    alone = {
        "guards": guard_check(net, x, t),
        "look": lambda: program.packed(plan, args),
        "versions": lambda: watched._versions(weights),
        "places": lambda: watched._places(weights),
        "words": words,
        "key": lambda: program.key(args),
    }
    times: Times = defaultdict(list)
    for turn in range(rounds):
        for k in range(len(whole)):
            name = list(whole)[(k + turn) % len(whole)]
            kernels()  # whatever was measured before, the same comes before this
            times[name].append(timed(whole[name]))
        for name, part in alone.items():
            kernels()
            times[f"{name}, cold"].append(timed(part))
            times[f"{name}, warm"].append(min(timed(part) for _ in range(3)))
    return times


def guards(rounds: int) -> None:
    """Print what dynamo's guards cost with fewer of them."""
    net, (x, t) = networks.built(NETWORK), networks.inputs(NETWORK, 1)
    for name, keep in FILTERS.items():
        call, _, kinds = compiled(net, keep)
        call(x, t)
        check = guard_check(net, x, t)
        cold = []
        for _ in range(rounds):
            call(x, t)
            cold.append(timed(check))
        warm = min(timed(check) for _ in range(rounds))
        print(f"guards, {name}: {statistics.median(cold):.2f} cold, {warm:.2f} warm, {dict(kinds)}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args(arguments).rounds
    torch.set_num_threads(2)
    with torch.no_grad():
        for batch in (1, 4):
            for name, times in parts(batch, rounds).items():
                low, middle, high = statistics.quantiles(times, n=10)[::4]
                print(f"batch {batch}, {name:16}: {middle:8.3f} ms ({low:.3f} to {high:.3f})")
        guards(rounds)


if __name__ == "__main__":
    main()
