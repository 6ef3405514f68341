"""The key that clients of a server must send, from a file or the environment, never from a command line."""

import os
from pathlib import Path

from trainers.command.arguments import BadArguments

VARIABLE = "WORLDMODEL_API_KEY"


def read_api_key(file: str | None) -> str | None:
    """What `file` holds, or without one the environment, if anything; BadArguments for an empty or unreadable file."""
    if file is None:
        return os.environ.get(VARIABLE) or None
    try:
        key = Path(file).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadArguments(f"api_key_file: expected a file with a key, got {file} ({error})") from error
    if not key:
        raise BadArguments(f"api_key_file: expected a key in {file}, got nothing")
    return key
