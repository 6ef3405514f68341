"""Measure: `python -m trainers.benchmark <name>`; the last line of standard output is JSON.

A benchmark is a module of trainers/benchmarks, or a folder there with measure.py, that has measure(**options) ->
results, or measure(overrides, **options) where it has a configuration; its own keys are those options, which have
defaults.
"""

import ast
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trainers.command.arguments import BadArguments, Command, Key
from trainers.command.entry import run

PACKAGE = "trainers.benchmarks"


def benchmarks(package: str) -> dict[str, Path]:
    """The file of each benchmark of a package by its name."""
    folder = Path(importlib.import_module(package).__path__[0])
    files = {path.stem: path for path in folder.glob("*.py")} | {p.parent.name: p for p in folder.glob("*/measure.py")}
    return {name: path for name, path in sorted(files.items()) if "\ndef measure(" in path.read_text()}


def usage(arguments: Sequence[str] = (), package: str = PACKAGE) -> str:
    """What --help prints: a line for each benchmark, read from its file without importing it, or one's own keys."""
    known = benchmarks(package)
    if arguments and arguments[0] in known:
        return _command(arguments[0], package).help()
    width = max(map(len, known))
    lines = [f"  {name:<{width}}  {_first_line(path)}" for name, path in known.items()]
    parent, name = _program(package)
    text = f"Measures one thing; `python -m {parent}.{name} NAME --help` names its keys."
    notes = "\n".join(lines)
    return Command(package=parent, name=f"{name} NAME [key=value ...]", summary=text, notes=notes).help()


def main(arguments: Sequence[str], package: str = PACKAGE) -> dict[str, Any]:
    """Run one benchmark; returns what is printed as the last line."""
    known = benchmarks(package)
    if not arguments or arguments[0] not in known:
        raise BadArguments(
            f"expected one of {', '.join(known)}, got {[*map(repr, arguments[:1]), 'nothing'][0]}; see --help"
        )
    name = arguments[0]
    parsed = _command(name, package).parse(arguments[1:])
    import torch

    measure = _measure(name, package)
    options = {key: _typed(key, parsed.own[key], default) for key, default in _defaults(measure).items()}
    threads = options.pop("threads")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # as training does
    results = measure(*([parsed.overrides] if _has_configuration(measure) else []), **options)
    return {"benchmark": name, "threads": threads, "torch": torch.__version__, **results}


def _measure(name: str, package: str) -> Callable[..., dict[str, Any]]:
    inner = ".measure" if benchmarks(package)[name].name == "measure.py" else ""
    measure: Callable[..., dict[str, Any]] = importlib.import_module(f"{package}.{name}{inner}").measure
    return measure


def _program(package: str) -> tuple[str, str]:
    """Package and name of the module that is called to run what is in `package`."""
    parent, _, name = package.rpartition(".")
    return parent, "benchmark" if package == PACKAGE else name


def _command(name: str, package: str) -> Command:
    measure, (parent, program) = _measure(name, package), _program(package)
    meaning = "of the configuration (see python -m trainers.fit --help), where an agent or a task is measured"
    return Command(
        name=f"{program} {name}",
        package=parent,
        summary=_first_line(benchmarks(package)[name]),
        keys={key: Key("", str(default)) for key, default in _defaults(measure).items()},
        overrides=meaning if _has_configuration(measure) else "",
    )


def _defaults(measure: Callable[..., Any]) -> dict[str, Any]:
    """A benchmark's own keys, and the one that all have."""
    options = {name: option.default for name, option in inspect.signature(measure).parameters.items()}
    return {name: default for name, default in options.items() if name != "overrides"} | {"threads": 1}


def _has_configuration(measure: Callable[..., Any]) -> bool:
    return "overrides" in inspect.signature(measure).parameters


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]


def _typed(key: str, text: str | None, default: Any) -> Any:
    """A text as typed in the default's type."""
    try:
        return type(default)(text)
    except ValueError as error:
        raise BadArguments(f"{key}: expected {type(default).__name__}, got {text!r}") from error


command = partial(run, main, usage=usage)

if __name__ == "__main__":
    sys.exit(command())
