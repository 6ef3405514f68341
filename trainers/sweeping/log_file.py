"""What the log of a run says of how it ended."""

import json
from pathlib import Path

LAST_LINES, LONGEST_LINE, TAIL_BYTES = 20, 500, 64_000


def log_path(root: Path, name: str) -> Path:
    """The file that all a run of the sweep in `root` says is in."""
    return root / "logs" / f"{name}.log"


def last_lines(log: Path) -> tuple[str, ...]:
    """The last lines of a log, without the JSON line of results; () where there is none."""
    return tuple(line[:LONGEST_LINE] for line in _tail(log) if _results(line) is None)[-LAST_LINES:]


def error_of(log: Path, exit_code: int) -> str:
    """Why a run failed, in one line: as it said itself, else its last line, else its exit code."""
    lines = _tail(log)
    said = _results(lines[-1]) if lines else None
    if said and said.get("error"):
        return str(said["error"])
    killed = f"ended by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
    return f"{killed}: {lines[-1][:LONGEST_LINE]}" if lines and not said else killed


def newest_line(log: Path) -> str:
    """The last line of a log, "" where there is none."""
    lines = _tail(log)
    return lines[-1] if lines else ""


def _tail(log: Path) -> list[str]:
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def _results(line: str) -> dict[str, object] | None:
    """The results that a command prints as its last line."""
    try:
        results = json.loads(line) if line.startswith("{") else None
    except ValueError:
        return None
    return results if isinstance(results, dict) else None


def add_line(log: Path, text: str) -> None:
    """Add to a log what its run could not say itself."""
    with log.open("a") as file:
        file.write(f"{text}\n")
