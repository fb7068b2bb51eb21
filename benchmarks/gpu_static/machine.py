"""Compiling one kernel for one architecture without a GPU, and counting what the machine code holds."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

ARCHITECTURES = (80, 89, 90, 100)
#: Threads, 32-bit registers and bytes of shared memory that one block may have, of one multiprocessor.
THREADS = {80: 2048, 89: 1536, 90: 2048, 100: 2048}
REGISTERS = 65536
SHARED = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}


@dataclass(frozen=True)
class Build:
    """How a Triton kernel is specialised; arguments that are neither fixed nor typed are 32-bit integers.

    Attributes:
        module: file of `fastdiff.kernels`.
        kernel: name of the kernel in it.
        types: Triton types of pointers and scalars, by argument.
        fixed: values of constexpr arguments (None for a tensor that is not given), by argument.
        aligned: arguments that are multiples of 16, beside all pointers.
        warps: of one program.
        stages: of software pipelines, None for triton's own choice.
        arguments: in place of `types` and `aligned`: what a launch passes, tuples among it, specialised as a launch is.
    """

    module: str
    kernel: str
    types: Mapping[str, str]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    aligned: Collection[str] = ()
    warps: int = 4
    stages: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


def launched(call: Callable[[], None]) -> list[Build]:
    """The kernels that a call on meta tensors would launch; not possible where triton's interpreter is on."""
    from triton.runtime.jit import JITFunction

    found: list[Build] = []

    def noted(kernel: Any, *given: Any, grid: object, warmup: bool, num_warps: int, **fixed: Any) -> None:
        module = kernel.__module__.rpartition(".")[2]
        arguments = dict(zip(kernel.arg_names, given, strict=False))
        found.append(Build(module, kernel.__name__, {}, fixed, (), num_warps, arguments=arguments))

    with mock.patch.object(JITFunction, "run", noted):
        call()
    return found


def _specialised(value: Any, path: tuple[int, ...], constants: dict[Any, Any], aligned: list[Any]) -> Any:
    """The type of an argument as triton's launch finds it, within named tuples, too; notes constants and alignment."""
    if isinstance(value, tuple):
        return type(value)(*[_specialised(v, (*path, i), constants, aligned) for i, v in enumerate(value)])
    if value is None or (isinstance(value, int) and value == 1):
        constants[path] = value
        return "constexpr"
    if isinstance(value, float):
        return "fp32"
    if isinstance(value, int):
        aligned += [path] if value % 16 == 0 else []
        return "i32" if value < 2**31 else "i64"
    aligned.append(path)
    return {"torch.float32": "*fp32", "torch.bfloat16": "*bf16"}[str(value.dtype)]


def compiled(build: Build, architecture: int) -> Any:
    """The specialisation, compiled ahead of time; not possible where triton's interpreter is on."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(f"fastdiff.kernels.{build.module}"), build.kernel)
    names, fixed = kernel.arg_names, {n: v for n, v in build.fixed.items() if n in kernel.arg_names}
    signature = {name: build.types.get(name, "i32") for name in names} | dict.fromkeys(fixed, "constexpr")
    pointers = {name for name in names if signature[name].startswith("*")}
    constants: dict[Any, Any] = {(names.index(name),): value for name, value in fixed.items()}
    aligned = [(names.index(n),) for n in names if n in pointers | set(build.aligned) and n not in fixed]
    for name, value in build.arguments.items():
        signature[name] = _specialised(value, (names.index(name),), constants, aligned)
    source = ASTSource(
        kernel,
        signature=signature,
        constexprs=constants,
        attrs={path: [["tt.divisibility", 16]] for path in aligned},
    )
    options = {"num_warps": build.warps} | ({} if build.stages is None else {"num_stages": build.stages})
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


@dataclass(frozen=True)
class Facts:
    """What the machine code of one kernel holds.

    Attributes:
        registers: of a thread.
        stack: bytes of stack and spills of a thread.
        shared: bytes of shared memory of a block.
        warps: of a block.
        accesses: (operation "ld" or "st", bytes) of every global access in the code.
        tensor: instructions of the tensor cores: HMMA (mma.sync), HGMMA (wgmma), UTCMMA (tcgen05).
        mul_hi: instructions `mul.hi` of the noise.
    """

    registers: int
    stack: int
    shared: int
    warps: int
    accesses: tuple[tuple[str, int], ...]
    tensor: Mapping[str, int]
    mul_hi: int

    def wide(self, operation: str) -> int:
        """Accesses of 128 bits."""
        return self.accesses.count((operation, 16))

    def narrow(self, operation: str) -> int:
        """Accesses of another width."""
        return sum(op == operation for op, _ in self.accesses) - self.wide(operation)

    def resident(self, architecture: int) -> float:
        """Share of a multiprocessor's threads that registers and shared memory let run at once."""
        threads = 32 * self.warps
        held = -(-self.registers // 8) * 8 * threads
        blocks = min(REGISTERS // held, THREADS[architecture] // threads)
        if self.shared:
            blocks = min(blocks, (SHARED[architecture] + 1024) // (self.shared + 1024))
        return blocks * threads / THREADS[architecture]


def facts(build: Build, architecture: int) -> Facts:
    """Compile and count."""
    kernel = compiled(build, architecture)
    registers, stack, _ = resources(kernel.asm["cubin"])
    found = re.findall(r"\b(ld|st)\.global(?:\.[a-zA-Z:]+\w*)*?(?:\.v(\d))?\.b(\d+)", kernel.asm["ptx"])
    copies = re.findall(
        r"cp\.async\.c[ag]\.shared\.global[^;]*?, (?:0x)?(\w+)(?:, %?\w+)?;", kernel.asm["ptx"]
    )
    accesses = [(op, int(n or 1) * int(bits) // 8) for op, n, bits in found]
    accesses += [("ld", int(size, 16)) for size in copies]
    code = disassembled(kernel.asm["cubin"])
    return Facts(
        registers,
        stack,
        kernel.metadata.shared,  # asked for at the launch, so not in the file
        kernel.metadata.num_warps,
        tuple(accesses),
        {name: len(re.findall(rf"\b{name}\b", code)) for name in ("HMMA", "HGMMA", "UTCMMA", "UTCHMMA")},
        len(re.findall(r"\bmul\.hi\.u32", kernel.asm["ptx"])),
    )


def tool(name: str) -> str:
    """cuobjdump or nvdisasm, which triton brings."""
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def cuobjdump(cubin: Path, what: str) -> str:
    """What cuobjdump prints of a file."""
    folder = str(Path(tool("nvdisasm")).parent)
    path = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [tool("cuobjdump"), what, str(cubin)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=path).stdout


def disassembled(cubin: bytes) -> str:
    """The machine code of a file as text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        return cuobjdump(path, "-sass")


def resources(cubin: bytes) -> tuple[int, int, int]:
    """(registers, bytes of stack and spills, bytes of shared memory) of a file with one kernel."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        return used(cuobjdump(path, "-res-usage"))


def used(text: str) -> tuple[int, int, int]:
    """(registers, bytes of stack and spills, bytes of shared memory) in a line of -res-usage."""
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", text)}
    return found["REG"], found["STACK"] + found["LOCAL"], found["SHARED"]
