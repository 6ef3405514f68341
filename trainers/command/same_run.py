"""Whether a run that has begun is the one that is asked for."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainers.command.configuration import differences, read_yaml, run_differs
from trainers.run_folder.read import leaves

# where a run, its files' format and copies of its data lie, which say nothing of what it is
PLACES = ("run_dir", "resume", "format", "data.cache")


def require_same_run(
    folder: Path, config: Mapping[str, Any], *, words: Sequence[str], hint: str, free: Collection[str] = ()
) -> None:
    """Refuse to go on in `folder` where a run that has begun there is another than asked for, by the first key.

    words: the overrides as typed, whose keys the run must have. hint: what else a person can do. free: dotted keys that
    may differ, since the run can be continued with other values.
    """
    if not (folder / "config.yaml").exists():
        return
    for key, before, now in changes(read_yaml(folder / "config.yaml"), config, words=words):
        if key not in free:
            raise run_differs(key, before, now, run=f"the run in {folder}", hint=hint)


def changes(
    saved: Mapping[str, Any], config: Mapping[str, Any], *, words: Sequence[str]
) -> Iterator[tuple[str, Any, Any]]:
    """What is asked for otherwise than the saved configuration has it: dotted keys, with its value and the other one.

    words: the overrides as typed.
    """
    known, typed = leaves(saved), {text.partition("=")[0].lstrip("+") for text in words}
    for key, before, now in differences(saved, config):
        # what was left to the run to choose it has chosen; what its version did not know has its default
        same = key in PLACES or now == "auto" or (before is None and key not in known and key not in typed)
        if not same:
            yield key, before, now
