"""Small JSON files that know whether they are whole: every byte that is not as written is noticed."""

import json
import zlib
from collections.abc import Mapping
from typing import Any


class Broken(ValueError):
    """A sealed file that is not as it was written."""


def seal(content: Mapping[str, Any]) -> bytes:
    """JSON of `content` (string keys) and its CRC-32."""
    crc = zlib.crc32(json.dumps(content).encode())
    return json.dumps({**content, "crc32": f"{crc:08x}"}, indent=1).encode()


def unseal(data: bytes) -> dict[str, Any]:
    """What `seal` was given; raises Broken."""
    try:
        content = json.loads(data)
        content.pop("crc32")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Broken(f"no sealed JSON: {error}") from error
    # written again it must be the same bytes: that covers spaces and spellings, too
    if seal(content) != data:
        raise Broken("its CRC-32 is another's")
    return content
