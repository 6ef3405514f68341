"""The folder that a command's results go to, made before what they cost is spent."""

from pathlib import Path

from trainers.command.configuration import BadConfig


def make_out_folder(folder: Path) -> Path:
    """Make the folder of `out` where there is none, and return it; raises BadConfig where no file can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise BadConfig(f"out: expected a folder that can be written, got {folder} ({error.strerror})") from error
    return folder
