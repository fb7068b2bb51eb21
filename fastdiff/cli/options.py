"""Reading a command's options: tyro over a dataclass, with defaults from a `--config` file."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

Options = TypeVar("Options")


def parse(options: type[Options], arguments: list[str], command: str) -> Options:
    """Options of one command from its arguments.

    Args:
        options: A dataclass; its docstring becomes the help text.
        arguments: What stands after the command's name. `--config FILE` (.json, or .yaml where PyYAML is installed)
            gives defaults, which other arguments override.
        command: The command's name, for the help text.

    Raises:
        ValueError: for a config file that is not an object of known options.
        SystemExit: as tyro does for wrong arguments (status 2) and `--help` (status 0).
    """
    import tyro

    rest, file = _without_config(arguments)
    default = tyro.MISSING_NONPROP if file is None else _from_file(options, Path(file))
    return tyro.cli(
        options, prog=f"fastdiff {command}", description=_description(options), args=rest, default=default
    )


def _description(options: type[Any]) -> str:
    """The docstring with its lines joined to paragraphs; examples, which tyro would leave out, stay as they are."""
    text, _, examples = inspect.cleandoc(options.__doc__ or "").partition("\n\nExamples:\n")
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    shown = [line.strip() for line in examples.splitlines() if line.strip()]
    return "\n\n".join(
        [*paragraphs, *(["Examples:\n" + "\n".join(f"  {line}" for line in shown)] if shown else [])]
    )


def _without_config(arguments: list[str]) -> tuple[list[str], str | None]:
    rest, file = [], None
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--config":
            file = next(remaining, "")
        elif argument.startswith("--config="):
            file = argument.partition("=")[2]
        else:
            rest.append(argument)
    if file == "":
        raise ValueError("--config must be followed by the name of a .json or .yaml file, got nothing")
    return rest, file


def _from_file(options: type[Options], path: Path) -> Options:
    values = _read(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: the file must hold an object of options, got {type(values).__name__}")
    return _build(options, values, path)


def _build(options: Any, values: dict[str, Any], path: Path) -> Any:
    """An instance of a dataclass from values of its fields; what has no default and is not given stays required."""
    import tyro

    kinds = get_type_hints(options)
    fields = {field.name: field for field in dataclasses.fields(options)}
    values = {str(name).replace("-", "_"): value for name, value in values.items()}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ValueError(f"{path}: options must be among {', '.join(fields)}, got {', '.join(unknown)}")
    given = {name: _converted(value, kinds[name], path) for name, value in values.items()}
    open_ = [name for name, field in fields.items() if name not in given and _required(field)]
    return options(**given, **dict.fromkeys(open_, tyro.MISSING))


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".yaml", ".yml"):
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{path}: the file must be YAML, got: {' '.join(str(error).split())}") from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: the file must be JSON, got: {error}") from None


def _converted(value: Any, kind: Any, path: Path) -> Any:
    """JSON has neither paths, tuples nor dataclasses: give a field what its annotation says."""
    if value is None:
        return None
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _build(kind, value, path)
    if Path in (kind, *get_args(kind)):
        return Path(value)
    return tuple(value) if isinstance(value, list) else value
