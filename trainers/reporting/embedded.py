"""Stills and films inside a page."""

import base64
from collections.abc import Sequence
from pathlib import Path

KINDS = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}
MAX_VIDEO_BYTES = 3_000_000


def embedded(paths: Sequence[Path]) -> list[dict[str, str]]:
    """What the macro `pictures` shows of files: a film of more than MAX_VIDEO_BYTES by its name alone."""
    files = []
    for path in paths:
        kind, size = KINDS[path.suffix], path.stat().st_size
        inside = kind != "video/mp4" or size < MAX_VIDEO_BYTES
        url = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}" if inside else ""
        note = f" ({size / 1e6:.1f} MB, in {path.parent.name}/)" if kind == "video/mp4" else ""
        files.append({"kind": kind, "name": path.name, "url": url, "note": note})
    return files
