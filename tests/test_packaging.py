"""What is built from this repository: contents of sdist and wheel, imports elsewhere, builds without a compiler."""

from __future__ import annotations

import email
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(
    *(
        ".git",
        ".venv",
        "build",
        "dist",
        "out",
        "runs",
        "*.so",
        "*.egg-info",
        "__pycache__",
        ".*_cache",
        ".hypothesis",
    )
)
KERNELS = "import importlib.util; spec = importlib.util.find_spec('kernels'); print(spec and spec.origin)"


#: The environment's editable install would answer for parts that the installed wheel lacks.
NOT_EDITABLE = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f)]; "


def _run(command: list[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(command, cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def _build(source: Path, kind: str, out: Path, **variables: str) -> Path:
    command = [
        sys.executable,
        "-m",
        "build",
        f"--{kind}",
        "--no-isolation",
        "--outdir",
        str(out),
        str(source),
    ]
    _run(command, source, **variables)
    (built,) = out.iterdir()
    return built


def _install(wheel: Path, folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(folder)]
    _run([*pip, str(wheel)], wheel.parent)
    return folder


def _python(code: str, installed: Path, cwd: Path) -> str:
    return _run([sys.executable, "-c", NOT_EDITABLE + code], cwd, PYTHONPATH=str(installed)).stdout.strip()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository without what was built in it."""
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("source") / "fastdiff", ignore=LEFT_OUT)


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution."""
    built = _build(source, "sdist", tmp_path_factory.mktemp("sdist"), FASTDIFF_NO_EXT="1")
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(built) as archive:
        archive.extractall(folder, filter="data")
    (inside,) = folder.iterdir()
    return inside


@pytest.fixture(scope="module")
def plain_wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sdist without the extension."""
    return _build(sdist, "wheel", tmp_path_factory.mktemp("wheel"), FASTDIFF_NO_EXT="1")


@pytest.fixture(scope="module")
def installed(plain_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _install(plain_wheel, tmp_path_factory.mktemp("installed"))


def _files(folder: str, *patterns: str) -> set[str]:
    found = {path for pattern in patterns for path in (ROOT / folder).rglob(pattern)}
    return {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_sdist_has_what_a_build_and_a_test_run_need(sdist: Path) -> None:
    inside = {str(path.relative_to(sdist)) for path in sdist.rglob("*") if path.is_file()}
    assert _files("csrc", "*.h", "*.cpp", "*.cuh", "*.cu") <= inside
    assert _files("kernels/triton", "*.py") <= inside
    assert _files("tests", "*.py") <= inside and _files("fastdiff", "*.py") <= inside
    assert {"LICENSE", "README.md", "CHANGELOG.md", "Makefile", "constraints.txt", "setup.py"} <= inside
    assert not [name for name in inside if name.endswith((".so", ".o", ".pyc"))]


def test_the_wheel_has_all_of_the_package_and_nothing_else(plain_wheel: Path) -> None:
    names = _names(plain_wheel)
    wanted = _files("fastdiff", "*.py", "py.typed") | _files("fastdiff/assets", "*.json", "*.safetensors")
    wanted |= {f"fastdiff/kernels/{Path(name).name}" for name in _files("kernels/triton", "*.py")}
    assert wanted <= names
    extra = {
        name for name in names - wanted if ".dist-info/" not in name and not name.endswith("_build_info.json")
    }
    assert extra == set()


def test_the_wheel_says_what_it_needs(plain_wheel: Path) -> None:
    with zipfile.ZipFile(plain_wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        facts = email.message_from_bytes(archive.read(name))
        scripts = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert facts["Name"] == "fastdiff-torch" and facts["Requires-Python"] == ">=3.10"
    assert facts["License-Expression"] == "Apache-2.0"
    needed = {need for need in facts.get_all("Requires-Dist", []) if "extra ==" not in need}
    assert "torch>=2.11" in needed and not [need for need in needed if "triton" in need]
    assert "fastdiff = fastdiff.cli:main" in scripts


def test_it_imports_elsewhere_and_leaves_the_name_kernels_alone(installed: Path, tmp_path: Path) -> None:
    assert Path(_python("import fastdiff; print(fastdiff.__file__)", installed, tmp_path)).is_relative_to(
        installed
    )
    assert not (installed / "kernels").exists()
    assert not Path(_python(KERNELS, installed, tmp_path)).is_relative_to(installed)


def test_the_triton_kernels_import_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    named = "import fastdiff.kernels.solver_step as kernel; print(kernel.__file__)"
    assert Path(_python(named, installed, tmp_path)) == installed / "fastdiff" / "kernels" / "solver_step.py"


def test_from_the_repository_root_the_name_kernels_is_not_ours() -> None:
    origin = _run([sys.executable, "-c", KERNELS], ROOT).stdout.strip()
    assert origin == "None" or not Path(origin).is_relative_to(ROOT) or ".venv" in origin


def _facts(installed: Path, cwd: Path) -> dict[str, dict]:
    return json.loads(_python("from fastdiff.cli import main; main(['info', '--json'])", installed, cwd))


def test_without_the_extension_it_samples_and_info_says_why(installed: Path, tmp_path: Path) -> None:
    facts = _facts(installed, tmp_path)
    assert "FASTDIFF_NO_EXT" in facts["ops"]["solver_step"]["cpp"]
    assert any("plain torch" in line for line in facts["fallbacks"])
    drawn = (
        "import fastdiff, torch;"
        "net = lambda x, t: torch.zeros_like(x);"
        "x = fastdiff.sample(net, 4, num=2, shape=(1, 8, 8), schedule='cosine', prediction='eps');"
        "print(tuple(x.shape), bool(torch.isfinite(x).all()))"
    )
    assert _python(drawn, installed, tmp_path) == "(2, 1, 8, 8) True"


@pytest.mark.slow
def test_a_failing_compiler_still_gives_a_package_that_says_so(sdist: Path, tmp_path: Path) -> None:
    wheel = _build(
        sdist, "wheel", tmp_path / "wheel", CXX="/bin/false", CC="/bin/false", FASTDIFF_REQUIRE_EXT="0"
    )
    assert not [name for name in _names(wheel) if name.endswith(".so")]
    facts = _facts(_install(wheel, tmp_path / "installed"), tmp_path)
    assert (
        "not built" in facts["ops"]["solver_step"]["cpp"] and "compiler" in facts["ops"]["solver_step"]["cpp"]
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler")
def test_with_a_compiler_the_wheel_has_the_extension_and_uses_it(sdist: Path, tmp_path: Path) -> None:
    wheel = _build(sdist, "wheel", tmp_path / "wheel", FASTDIFF_REQUIRE_EXT="1")
    assert "fastdiff/_C.abi3.so" in _names(wheel) and "-abi3-" in wheel.name
    installed = _install(wheel, tmp_path / "installed")
    facts = _facts(installed, tmp_path)
    assert facts["ops"]["solver_step"]["cpp"] == facts["ops"]["add_noise"]["cpp"] == "available"
    assert facts["fallbacks"] == []


@pytest.mark.parametrize("target", ["install", "demo", "test", "check", "bench"])
def test_make_knows_its_targets(target: str) -> None:
    assert _run(["make", "--dry-run", target], ROOT).stdout


def test_the_constraints_pin_every_direct_tool() -> None:
    pins = {
        line.partition("==")[0]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = _toml(file.read().decode())["project"]
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    names = {need.partition(">=")[0].partition("[")[0] for need in wanted} - {"fastdiff-torch"}
    assert {name.replace("-", "_") for name in names} - {pin.replace("-", "_") for pin in pins} == set()
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()


@pytest.mark.skipif(os.environ.get("FASTDIFF_REQUIRE_DEV") != "1", reason="set by make test")
def test_all_that_make_install_brings_is_there() -> None:
    """Else the tests against other libraries would be skipped without a word."""
    assert missing_of("dev") == []


def test_what_is_missing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ['fastdiff-torch[b]; extra == "a"', 'no-such-package>=1; extra == "b"', 'pytest>=8; extra == "b"']
    needs += ['other; extra == "c"', 'old; python_version < "3" and extra == "b"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: needs)
    assert missing_of("a") == ["no-such-package>=1"]


def missing_of(extra: str) -> list[str]:
    """Requirements of an extra of this package, and of its extras that it names, that are not installed."""
    found = []
    for need in map(Requirement, importlib.metadata.requires("fastdiff-torch") or ()):
        if need.marker is None or not need.marker.evaluate({"extra": extra}):
            continue
        if need.name == "fastdiff-torch":
            found += [name for inner in sorted(need.extras) for name in missing_of(inner)]
        elif not _installed(need):
            found.append(f"{need.name}{need.specifier}")
    return found


def _installed(need: Requirement) -> bool:
    try:
        return importlib.metadata.version(need.name) in need.specifier
    except importlib.metadata.PackageNotFoundError:
        return False


def _toml(text: str) -> dict:
    tomllib = pytest.importorskip("tomllib", reason="the standard library reads TOML from Python 3.11 on")
    return tomllib.loads(text)


def test_ci_runs_check_and_test() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "make check" in script and "make test" in script and os.access(ROOT / ".ci" / "run", os.X_OK)
