"""Builds fastdiff._C and _cuda from csrc/ with torch's stable ABI; nearly all else stands in pyproject.toml.

Without a C++ compiler (or with FASTDIFF_NO_EXT=1) the package installs all the same and runs on plain torch;
`fastdiff info` then says so.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")
FACTS = "_build_info.json"
TORCH_TARGET = "0x020b000000000000"  # the oldest torch whose stable ABI this code may use: 2.11
X86_FLAGS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}
CUDA_ARCHITECTURES = os.environ.get("FASTDIFF_CUDA_ARCHITECTURES", "80,89,90,100")
KERNEL_FLAGS = [
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-Wno-maybe-uninitialized",
]


def is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def torch_version() -> str:
    """The torch that the headers belong to."""
    import torch

    return str(torch.__version__)


def instruction_sets() -> dict[str, list[str]]:
    """Name of each instruction set that the kernels are compiled for, with its compiler flags."""
    return {"baseline": [], **(X86_FLAGS if is_x86() else {})}


class BuildExtension(build_ext):
    """Compiles every kernel once per instruction set; a failing build becomes a reason that `fastdiff info` tells."""

    def build_extension(self, ext: Extension) -> None:
        """Build, or write down why not."""
        if ext.name == "fastdiff._cuda":
            self.build_cuda(ext)
            return
        facts: dict[str, object] = {"torch": torch_version(), "instruction_sets": list(instruction_sets())}
        target = Path(self.get_ext_fullpath(ext.name))
        target.unlink(missing_ok=True)
        try:
            ext.extra_objects = self.kernel_objects(ext)
            super().build_extension(ext)
        except Exception as error:
            if os.environ.get("FASTDIFF_REQUIRE_EXT") == "1":
                raise
            facts["error"] = f"the C++ compiler failed: {error}"
            print(f"fastdiff: plain torch is used, because {facts['error']}", file=sys.stderr)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.with_name(FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    def build_cuda(self, ext: Extension) -> None:
        """The CUDA extension; a failing build is written down beside the facts of the other one."""
        target = Path(self.get_ext_fullpath(ext.name))
        target.unlink(missing_ok=True)
        try:
            ext.extra_objects = [self.cuda_object(ext, path) for path in sorted((CSRC / "cuda").glob("*.cu"))]
            super().build_extension(ext)
            told: dict[str, object] = {"cuda_architectures": CUDA_ARCHITECTURES.split(",")}
        except Exception as error:
            if os.environ.get("FASTDIFF_REQUIRE_EXT") == "1":
                raise
            told = {"cuda_error": f"nvcc or the linker failed: {error}"}
            print(f"fastdiff: no CUDA kernels, because {told['cuda_error']}", file=sys.stderr)
        facts = target.with_name(FACTS)
        known = json.loads(facts.read_text(encoding="utf-8")) if facts.is_file() else {}
        facts.write_text(json.dumps({**known, **told}, indent=1) + "\n", encoding="utf-8")

    def cuda_object(self, ext: Extension, source: Path) -> str:
        """The object file of one .cu file, for all architectures."""
        target = Path(self.build_temp) / "cuda" / f"{source.stem}.o"
        target.parent.mkdir(parents=True, exist_ok=True)
        flags = ["-std=c++20", "-O3", "-Xcompiler", "-fPIC", "-Xcompiler", "-fvisibility=hidden"]
        flags += [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in CUDA_ARCHITECTURES.split(",")]
        flags += [f"-D{name}={value}" for name, value in ext.define_macros]
        flags += [f"-I{folder}" for folder in ext.include_dirs]
        subprocess.run([str(nvcc()), *flags, "-c", str(source), "-o", str(target)], check=True)
        return str(target)

    def kernel_objects(self, ext: Extension) -> list[str]:
        """Object files of csrc/cpu, all instruction sets."""
        sources = sorted(str(path) for path in (CSRC / "cpu").glob("*.cpp") if path.stem != "select")
        objects: list[str] = []
        for name, flags in instruction_sets().items():
            objects += self.compiler.compile(
                sources,
                output_dir=str(Path(self.build_temp) / name),
                macros=[("FASTDIFF_ISA", name)],
                include_dirs=[str(CSRC / "include")],
                extra_postargs=[*(ext.extra_compile_args or []), *KERNEL_FLAGS, *flags],
                depends=ext.depends,
            )
        return objects

    def copy_extensions_to_source(self) -> None:
        """Editable installs: what was built goes beside the sources, and what an older build left there goes away."""
        for ext in self.extensions:
            built = Path(self.build_lib) / self.get_ext_filename(self.get_ext_fullname(ext.name))
            beside = Path(self.get_ext_fullpath(ext.name))
            for source, target in ((built, beside), (built.with_name(FACTS), beside.with_name(FACTS))):
                target.unlink(missing_ok=True)
                if source.exists():
                    self.copy_file(str(source), str(target))


def nvcc() -> str | None:
    """The CUDA compiler, where there is one: CUDA_HOME's, else the one on the path."""
    beside = Path(os.environ.get("CUDA_HOME", "/nonexistent")) / "bin" / "nvcc"
    return str(beside) if beside.is_file() else shutil.which("nvcc")


def cuda_home() -> str | None:
    """The toolkit's own folder. What is on the path may be a link or a script elsewhere, so nvcc itself is asked."""
    compiler = nvcc()
    if compiler is None:
        return None
    told = subprocess.run(
        [compiler, "--dryrun", "-E", "-x", "cu", os.devnull], capture_output=True, text=True, check=False
    )
    found = re.search(r"^#\$ TOP=(.+)$", told.stderr, re.MULTILINE)
    return str((Path(found[1]) if found else Path(compiler).resolve().parents[1]).resolve())


def cuda_extension() -> list[Extension]:
    """fastdiff._cuda, where torch is built for CUDA and nvcc is there."""
    import torch

    if torch.version.cuda is None or nvcc() is None:
        return []
    os.environ["CUDA_HOME"] = str(cuda_home())  # torch would take the parent of the folder of `which nvcc`
    from torch.utils import cpp_extension

    return [
        Extension(
            "fastdiff._cuda",
            sources=[str(CSRC / "cuda" / "module.cpp")],
            depends=sorted(str(path) for path in CSRC.rglob("*.cu*")),
            include_dirs=[str(CSRC / "include"), *cpp_extension.include_paths(device_type="cuda")],
            library_dirs=cpp_extension.library_paths(device_type="cuda"),
            libraries=["torch", "torch_cpu", "torch_cuda", "cudart"],
            define_macros=[
                ("Py_LIMITED_API", "0x030a0000"),
                ("TORCH_TARGET_VERSION", TORCH_TARGET),
                ("USE_CUDA", "1"),
            ],
            extra_compile_args=["-std=c++20", "-O2", "-g0", "-fvisibility=hidden"],
            py_limited_api=True,
        )
    ]


def extensions() -> list[Extension]:
    """The extensions, or none where torch cannot be asked for its headers or the user does not want it."""
    if os.environ.get("FASTDIFF_NO_EXT") == "1":
        return []
    try:
        cuda = cuda_extension()  # first: torch reads CUDA_HOME when cpp_extension is imported
        from torch.utils import cpp_extension
    except ImportError:
        print(
            "fastdiff: torch is not importable at build time, the C++ backend is not built", file=sys.stderr
        )
        return []
    headers = sorted(str(path) for path in CSRC.rglob("*.h"))
    return [
        Extension(
            "fastdiff._C",
            sources=[
                *sorted(str(path) for path in (CSRC / "bindings").glob("*.cpp")),
                str(CSRC / "cpu" / "select.cpp"),
            ],
            depends=headers,
            include_dirs=[str(CSRC / "include"), *cpp_extension.include_paths()],
            library_dirs=cpp_extension.library_paths(),
            libraries=["torch", "torch_cpu"],
            define_macros=[
                ("Py_LIMITED_API", "0x030a0000"),
                ("TORCH_TARGET_VERSION", TORCH_TARGET),
                *([("FASTDIFF_X86", "1")] if is_x86() else []),
            ],
            extra_compile_args=["-std=c++20", "-O2", "-g0", "-fvisibility=hidden", "-Wall"],
            py_limited_api=True,
        ),
        *cuda,
    ]


setup(
    packages=[*find_packages(include=["fastdiff", "fastdiff.*"]), "fastdiff.kernels"],
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if extensions() else {},
)
