"""The folder of a drive's report: one that has none yet, held while it is driven."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from trainers.command.configuration import BadConfig
from trainers.command.new_run import make_out_folder
from trainers.run_folder.paths import hold

REPORT = "report.html"


def require_no_report(out: str | None) -> None:
    """Raise BadConfig where `out` has an earlier report: before anything is started."""
    if out is not None and (Path(out).expanduser() / REPORT).exists():
        raise BadConfig(f"out: expected a folder without an earlier report, got {Path(out).expanduser() / REPORT}")


@contextmanager
def report_folder(out: str | None, bundle: Path) -> Iterator[Path]:
    """Make the folder of a report, and hold it against other drives meanwhile.

    Args:
        out: as typed; None for BUNDLE_drive, BUNDLE_drive_2, ..., the first without a report that nobody holds.
        bundle: the bundle's folder.

    Raises:
        BadConfig: `out` cannot be written, has an earlier report, or another drive writes to it.
    """
    folder, handle = _default(bundle) if out is None else _own(Path(out).expanduser())
    try:
        yield folder
    finally:
        os.close(handle)


def _default(bundle: Path) -> tuple[Path, int]:
    bundle = bundle.resolve()  # "." has no name
    for number in count(1):
        folder = bundle.with_name(f"{bundle.name}_drive" + (f"_{number}" if number > 1 else ""))
        if (folder / REPORT).exists():
            continue
        handle = hold(make_out_folder(folder))
        if handle is None:
            continue
        if not (folder / REPORT).exists():  # which may have come between the two looks
            return folder, handle
        os.close(handle)
    raise AssertionError("count never ends")


def _own(folder: Path) -> tuple[Path, int]:
    handle = hold(make_out_folder(folder))
    if handle is None:
        raise BadConfig(f"out: expected a folder of its own, got {folder}, to which another drive writes")
    try:
        require_no_report(str(folder))
    except BadConfig:
        os.close(handle)
        raise
    return folder, handle
