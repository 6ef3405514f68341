"""Where a data set may be written."""

from pathlib import Path

from datamodules.formats.uri import parse_output
from trainers.configuration import BadConfig


def require_new(out: str) -> None:
    """Raise BadConfig where something lies at the URI `out` already, FormatError where it is none."""
    path = Path(out.partition("?")[0].partition(":")[2] or out.partition("?")[0])
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise BadConfig(f"out: expected a path where nothing is yet, got {path}; choose another or move it away")
    parse_output(out)
