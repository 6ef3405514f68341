"""One address for recorded trajectories: `scheme:path?key=value&...`, or a path recognised by what lies there."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from datamodules.formats.protocol import FormatError, Reader, Writer
from datamodules.parts import extend
from worldmodel.spec import EnvSpec

# each is a module of this folder, and also the name of the extra that installs what it imports
SCHEMES = ("segments", "npz", "hdf5", "minari", "lerobot", "mp4")
_SIGNATURES = {b"PK\x03\x04": "npz", b"\x89HDF": "hdf5"}
_SUFFIXES = {".npz": "npz", ".hdf5": "hdf5", ".h5": "hdf5", ".mp4": "mp4"}
# what makes a folder a data set of one format, the most telling first
_MARKS = {
    "segments": ("replay.json", "rank_*/replay.json", "generation_*/rank_*/replay.json"),
    "lerobot": ("meta/info.json",),
    "minari": ("data/metadata.json", "data/main_data.hdf5", "main_data.hdf5"),
    "npz": ("*.npz", "*/*.npz"),
    "hdf5": ("*.hdf5", "*.h5"),
    "mp4": ("*.mp4", "*/*.mp4"),
}


@dataclass(frozen=True, slots=True)
class Uri:
    """A format's name, where its data lie, and the format's options as they were written."""

    scheme: str
    path: Path
    options: dict[str, str] = field(default_factory=dict)


def parse(uri: str) -> Uri:
    """Split `scheme:path?key=value&...`; without a scheme the path must exist and is recognised. Raises FormatError.

    Options begin at the last `?`; their values are percent-decoded, the path is taken as it stands but for a `~`.
    """
    scheme, path, query = _split(uri)
    if not path or re.search(r"[\x00-\x1f\x7f]", path):
        raise FormatError(f"{uri!r}: expected scheme:path without control characters in it; schemes: {_known()}")
    options = dict(_options(uri, query.removeprefix("?")))
    where = home(path)
    return Uri(_checked(uri, scheme[:-1]) if scheme else recognise(where), where, options)


def _split(uri: str) -> tuple[str, str, str]:
    """Scheme with its colon, path, and options with their question mark; the first and the last may be empty."""
    match = re.match(r"[A-Za-z][A-Za-z0-9_+.-]*:", uri)
    scheme = match.group() if match else ""
    path, mark, query = uri[len(scheme) :].rpartition("?")
    return (scheme, path, mark + query) if mark else (scheme, query, "")


def home(path: str) -> Path:
    """A path whose leading `~` is the home folder, as a shell reads it; raises FormatError for an unknown user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise FormatError(f"{path}: {error}") from error


def absolute(uri: str) -> str:
    """The same address from any working folder, without a `~`; what is no address stays as it is."""
    scheme, path, query = _split(uri)
    return f"{scheme}{home(path).absolute()}{query}" if path and "://" not in uri else uri


def recognise(path: Path) -> str:
    """The scheme of the data set at `path`, told by its content; raises FormatError where none fits."""
    if path.is_dir():
        for scheme, patterns in _MARKS.items():
            if any(next(path.glob(pattern), None) is not None for pattern in patterns):
                return scheme
    elif path.is_file():
        with path.open("rb") as file:
            head = file.read(12)
        signed = _SIGNATURES.get(head[:4]) or ("mp4" if head[4:8] == b"ftyp" else None)
        if signed is not None:
            return signed
    else:
        raise FormatError(f"no such file or folder: {path}")
    raise FormatError(f"{path}: expected a known data set, got none of them; say which: one of {_known()}")


def open_reader(uri: str) -> Reader:
    """A reader of what lies at `uri`; raises FormatError, OSError."""
    parsed = parse(uri)
    if not parsed.path.exists():
        raise FormatError(f"no such file or folder: {parsed.path}")
    return _open(parsed, "open_reader", parsed.path)


def parse_output(uri: str) -> Uri:
    """As `parse`, for what need not exist: without a scheme the suffix tells it. Raises FormatError."""
    path = home(uri.partition("?")[0])
    if ":" not in uri and not path.exists():
        scheme = _SUFFIXES.get(path.suffix)
        if scheme is None:
            raise FormatError(f"{uri}: say a scheme, such as npz:{uri}")
        uri = f"{scheme}:{uri}"
    return parse(uri)


def require_new(out: str) -> None:
    """Raise FormatError where something lies at the URI `out` already, or where it is none."""
    path = home(out.partition("?")[0].partition(":")[2] or out.partition("?")[0])
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise FormatError(f"out: expected a path where nothing is yet, got {path}; choose another or move it away")
    parse_output(out)


def open_writer(uri: str, spec: EnvSpec) -> Writer:
    """A writer of episodes of `spec` to `uri`, whose scheme may be left to the suffix; raises FormatError, OSError."""
    parsed = parse_output(uri)
    return _open(parsed, "open_writer", parsed.path, spec)


def _open(uri: Uri, function: str, *arguments: Any) -> Any:
    try:
        module = importlib.import_module(f"datamodules.formats.{uri.scheme}")
        opener = getattr(module, function, None)
        if opener is None:
            raise FormatError(f"{uri.scheme}: expected a format that has {function}, got one without")
        return opener(*arguments, **_typed(uri, opener))
    except ModuleNotFoundError as error:
        raise FormatError(
            f"{uri.scheme}: expected {error.name} to be installed, got none: pip install 'worldmodel[{uri.scheme}]'"
        ) from error


def _typed(uri: Uri, opener: Callable[..., Any]) -> dict[str, Any]:
    """The options in the types of the opener's defaults; a dataclass among these stands for its fields."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(opener).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    groups = {name: default for name, default in defaults.items() if is_dataclass(default)}
    known = {name: default for name, default in defaults.items() if name not in groups}
    member_of = {member.name: name for name, group in groups.items() for member in fields(group)}
    known |= {member: getattr(groups[name], member) for member, name in member_of.items()}
    values: dict[str, Any] = {}
    for key, text in uri.options.items():
        if key not in known:
            near = get_close_matches(key, known, n=3) or list(known) or ["none at all"]
            raise FormatError(f"{uri.scheme}: expected an option such as {', '.join(near)}, got {key!r}")
        value = _convert(f"{uri.scheme} {key}", text, known[key])
        if key in member_of:
            group = member_of[key]
            values[group] = replace(values.get(group, groups[group]), **{key: value})
        else:
            values[key] = value
    return values


def _convert(name: str, text: str, default: Any) -> Any:
    kind = str if default is None or default is inspect.Parameter.empty else type(default)
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError) as error:
        raise FormatError(f"{name}: expected {kind.__name__}, got {text!r}") from error


def _options(uri: str, query: str) -> Iterator[tuple[str, str]]:
    seen = set()
    for part in query.split("&") if query else []:
        key, mark, value = part.partition("=")
        if not (key and mark) or key in seen:
            raise FormatError(f"{uri!r}: expected ?key=value&key=value with different keys, got {part!r}")
        seen.add(key)
        yield key, unquote(value)


def _checked(uri: str, scheme: str) -> str:
    if scheme not in _schemes():
        near = get_close_matches(scheme, _schemes(), n=1)
        hint = f"did you mean {near[0]}:? " if near else ""
        raise FormatError(
            f"{uri!r}: expected a scheme of {_known()}, got {scheme!r}; {hint}form: scheme:path?key=value"
        )
    return scheme


def _known() -> str:
    return ", ".join(_schemes())


def _schemes() -> list[str]:
    """The built-in formats, and every module of a folder of parts."""
    outside = extend("datamodules.formats")[1:]
    return [*SCHEMES, *sorted(module.name for module in pkgutil.iter_modules(outside))]
