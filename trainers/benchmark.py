"""Measure: `python -m trainers.benchmark <name>`; the last line of standard output is JSON.

A benchmark is a module of trainers/benchmarks, or a folder there with measure.py, that has OPTIONS (its own keys and
their defaults) and measure(overrides, **options) -> results.
"""

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainers.command.configuration import BadConfig
from trainers.command.entry import run

PACKAGE = "trainers.benchmarks"


def benchmarks(package: str) -> dict[str, Path]:
    """The file of each benchmark of a package by its name."""
    folder = Path(importlib.import_module(package).__path__[0])
    files = {path.stem: path for path in folder.glob("*.py")} | {p.parent.name: p for p in folder.glob("*/measure.py")}
    return {name: path for name, path in sorted(files.items()) if "\ndef measure(" in path.read_text()}


def usage(package: str = PACKAGE) -> str:
    """What --help prints: a line for each benchmark, read from its file without importing it."""
    lines = ["python -m trainers.benchmark NAME [threads=1] [key=value ...]", ""]
    for name, path in benchmarks(package).items():
        tree = ast.parse(path.read_text())
        lines.append(f"  {name:9}{(ast.get_docstring(tree) or '').splitlines()[0]}")
    return "\n".join([*lines, "", "Keys of configs/fit.yaml can follow where a configured agent or task is measured."])


def main(arguments: Sequence[str], package: str = PACKAGE) -> dict[str, Any]:
    """Run one benchmark; returns what is printed as the last line."""
    known = benchmarks(package)
    if not arguments or arguments[0] not in known:
        raise BadConfig(f"expected one of {', '.join(known)}, got {[*arguments[:1], 'nothing'][0]}; see --help")
    what, rest = arguments[0], list(arguments[1:])
    benchmark = importlib.import_module(f"{package}.{what}" + (".measure" if known[what].name == "measure.py" else ""))
    import torch

    options = {"threads": 1, **benchmark.OPTIONS}
    options |= {key: _take(rest, key, default) for key, default in options.items()}
    threads = options.pop("threads")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # as training does
    results = benchmark.measure(rest, **options)
    return {"benchmark": what, "threads": threads, "torch": torch.__version__, **results}


def _take(arguments: list[str], key: str, default: Any) -> Any:
    """The value of `key=value` among the arguments, which is removed from them, in the default's type."""
    value = default
    for text in [text for text in arguments if text.startswith(f"{key}=")]:
        arguments.remove(text)
        try:
            value = type(default)(text.partition("=")[2])
        except ValueError as error:
            raise BadConfig(f"{key}: expected {type(default).__name__}, got {text.partition('=')[2]!r}") from error
    return value


if __name__ == "__main__":
    sys.exit(run(main, usage=usage()))
