"""A filled template as a file: the page of one run, and the page of many."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from datamodules.storage.durable import write_atomic
from trainers.command.configuration import BadConfig


def write_page(
    template: str,
    *,
    folder: Path,
    out: Path | None,
    beside: Callable[[Path], None] = lambda folder: None,
    **content: Any,
) -> Path:
    """Fill in a template of this folder; returns the page's path.

    Args:
        template: its file.
        folder: what the page is on.
        out: the file or the folder to write; None: `folder`.
        beside: writes what else belongs into the page's folder.
        content: what the template shows, by name.

    Raises:
        BadConfig: the page cannot be written there.
    """
    path = (out or folder).expanduser()
    path = path if path.suffix == ".html" else path / "report.html"
    loader = FileSystemLoader(Path(__file__).parent)
    templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    text = templates.get_template(template).render(**content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
        beside(path.parent)
    except OSError as error:
        raise BadConfig(f"out: expected a place that can be written, got {path} ({error.strerror})") from error
    return path
