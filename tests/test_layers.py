"""The rules of CONTRIBUTING.md that a program can check: import layers, sizes of files and functions, names."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "fastdiff").rglob("*.py"))
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "core", "misc"}


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def _functions() -> list[tuple[Path, ast.FunctionDef]]:
    trees = [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in FILES]
    return [
        (path, node) for path, tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    ]


def _body_lines(function: ast.FunctionDef) -> int:
    """Lines from the first statement after the docstring to the end."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def _lint_imports(config: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--config", str(config), "--no-cache"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_imports_go_only_downwards() -> None:
    result = _lint_imports(ROOT / "pyproject.toml")
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_contract_can_fail(tmp_path: Path) -> None:
    """Turned upside down, the same contract is broken: the linter does see our imports."""
    config = tmp_path / "upside_down.toml"
    config.write_text(
        '[tool.importlinter]\nroot_package = "fastdiff"\n[[tool.importlinter.contracts]]\n'
        'name = "upside down"\ntype = "layers"\nlayers = ["fastdiff.ops", "fastdiff.solvers", "fastdiff.cli"]\n'
    )
    result = _lint_imports(config)
    assert result.returncode == 1 and "fastdiff.solvers" in result.stdout


def test_files_are_small() -> None:
    sizes = {str(path.relative_to(ROOT)): _lines(path) for path in FILES}
    assert {name: size for name, size in sizes.items() if size > 400} == {}
    assert statistics.median(sizes.values()) <= 180


def test_functions_are_short() -> None:
    sizes = [_body_lines(function) for _, function in _functions()]
    assert statistics.median(sizes) <= 10
    assert max(sizes) <= 60


@pytest.mark.parametrize("folder", ["fastdiff", "tests", "benchmarks", "csrc"])
def test_no_collecting_names(folder: str) -> None:
    names = [
        path
        for path in (ROOT / folder).rglob("*")
        if path.stem in FORBIDDEN_NAMES and "__pycache__" not in path.parts
    ]
    assert names == []


def test_tests_mirror_the_package() -> None:
    """Every folder of the package that holds code has its folder of tests."""
    folders = {path.parent.relative_to(ROOT / "fastdiff") for path in FILES if path.name != "__init__.py"}
    missing = [str(folder) for folder in folders if not list((ROOT / "tests" / folder).glob("test_*.py"))]
    assert missing == []


def test_there_is_no_root_conftest_and_no_top_level_kernels_package() -> None:
    assert not (ROOT / "conftest.py").exists()
    assert not (ROOT / "kernels" / "__init__.py").exists()
