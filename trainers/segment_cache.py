"""Recorded episodes of any format, copied into segments once: what is streamed from disk while a run learns."""

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from datamodules.alignment import check_alignment
from datamodules.formats.uri import Uri, open_reader, parse
from datamodules.importer import ImportReport, import_trajectories
from datamodules.storage.durable import write_atomic
from trainers.configuration import BadConfig

# beside the segments, once all of them are there
DONE = "done.json"
NAMED_PROBLEMS = 20


def import_once(
    uri: str, cache: Path, *, alignment: str | None, say: Callable[[str], None]
) -> tuple[Path, dict[str, Any]]:
    """The folder of segments in `cache` that holds the episodes at `uri`, and the facts of their import.

    One process copies, others wait for it; what was broken off is continued. alignment: arrival or departure, against
    what the format says. Raises BadConfig where the frames say otherwise and nobody insists, FormatError, OSError.
    """
    if alignment is not None:
        uri = f"{uri}{'&' if '?' in uri else '?'}alignment={alignment}"
    parsed = parse(uri)
    folder = cache / f"{parsed.path.resolve().name}-{_digest(parsed)}"
    with _alone(folder):
        done = folder / DONE
        if not done.exists():
            facts = _import(uri, folder, say=say)
            write_atomic(done, json.dumps(facts, indent=1).encode())
        return folder, json.loads(done.read_bytes())


def _import(uri: str, folder: Path, *, say: Callable[[str], None]) -> dict[str, Any]:
    with closing(open_reader(uri)) as reader:
        found = check_alignment(reader.trajectories())
        given = parse(uri).options.get("alignment")
        words = found.in_words(given=given, remedy="data.alignment=")
        say(f"alignment: {words} ({', '.join(f'{s:+d}: {v:.3f}' for s, v in found.scores.items())})")
        if found.other is not None and given is None:
            raise BadConfig(
                f"data.alignment: expected the frames of {uri} to bear out how it was read; {words} (t={found.t:.1f}); "
                "whichever is given is not questioned"
            )
        say(f"importing {uri} into {folder}, once")
        report = import_trajectories(reader, folder, check=False)
    say(f"imported {report.episodes:,} episodes, {report.megabytes:,.0f} MB of pixels in {report.seconds:.1f} s")
    return {**_facts(report), "alignment": found.to_json()}


def _facts(report: ImportReport) -> dict[str, Any]:
    named = [str(problem) for problem in report.problems[:NAMED_PROBLEMS]]
    return {"skipped": len(report.problems) + report.short, "problems": named}


def _digest(uri: Uri) -> str:
    """What tells this data set, as it is now and with these options, from others."""
    files = sorted(path for path in [uri.path, *uri.path.rglob("*")] if path.is_file())
    state = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    options = [uri.scheme, str(uri.path.resolve()), sorted(uri.options.items()), state]
    return hashlib.sha256(json.dumps(options).encode()).hexdigest()[:12]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process that holds it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
