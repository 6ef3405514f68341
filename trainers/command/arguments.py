"""What every command is called with, `[WORD] key=value ...`, and the one form of its help."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from textwrap import wrap
from typing import Any

from trainers.command.entry import run
from worldmodel.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
MISSPELT = 0.75  # how alike a word and a command's key must be, as difflib measures it


class BadArguments(UserError, ValueError):
    """A word on the command line that the command does not take."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a command's own."""

    help: str
    default: str | None = None
    required: bool = False  # then it has no default
    aliases: tuple[str, ...] = ()  # other names that mean it
    several: bool = False  # every value counts, and one may be a list, `[a,b]` or `a,b`


# of commands that read recorded data
PARTS = Key("a folder, or several as [a,b], with formats of your own; of a run those that it was told")


@dataclass(frozen=True, slots=True)
class Arguments:
    """What was typed."""

    own: dict[str, Any]  # a text for each own key, its default where it was not typed, and a list for one of several
    switches: frozenset[str]
    overrides: list[str]  # what else is a key


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command's arguments."""

    name: str  # of the module in `package`, and the word that chooses among its programs, if it has several
    summary: str  # what it does, a sentence or two
    keys: Mapping[str, Key] = field(default_factory=dict)  # its own ones by name
    first: str | None = None  # the key that one word without `key=` means, such as a run folder
    word: str = "RUN"  # what the help calls that word
    overrides: str = ""  # what other keys mean, where keys of a configuration may follow
    switches: Mapping[str, str] = field(default_factory=dict)  # words that begin with `--`, each with its meaning
    notes: str = ""  # what follows in the help: examples, more on the results
    hint: str = ""  # what to say to a word that is neither a key nor a switch
    package: str = "trainers"

    def parse(self, arguments: Sequence[str]) -> Arguments:
        """Sort the words of a command line; BadArguments names the first that is wrong, or the key that is missing."""
        own: dict[str, Any] = {key: [] if option.several else option.default for key, option in self.keys.items()}
        names = {alias: key for key, option in self.keys.items() for alias in (key, *option.aliases)}
        overrides, words, given = list[str](), 0, 0  # of the key that a word means
        for text in arguments:
            name, mark, value = text.partition("=")
            # an address may have a = of its own: npz:data?alignment=departure
            key = names.get(name) if mark else None
            if text in self.switches:
                continue
            if key is None and self._is_word(text):
                key, value, words = self.first, text, words + 1
            if key is not None and self.keys[key].several:
                own[key] += [at_home(part.strip()) for part in value.strip("[]").split(",") if part.strip()]
            elif key is not None:
                given += key == self.first
                if words and given > 1:
                    raise BadArguments(f"{key}: expected one, got {own[key]!r} and {value!r}; see --help")
                own[key] = at_home(value)  # the last of several, as in a configuration
            elif mark and self.overrides and not text.startswith("-"):
                if name not in configuration_words() and (near := get_close_matches(name, names, 1, MISSPELT)):
                    raise BadArguments(f"{name}: no key of trainers.{self.name}; did you mean {near[0]}=?; see --help")
                overrides.append(text)
            else:
                raise BadArguments(self._wrong(text, names))
        for key, option in self.keys.items():
            if option.required and not own[key]:
                raise BadArguments(f"{key}: expected {self._form(key)}, got none; see --help")
        return Arguments(own, frozenset(self.switches).intersection(arguments), overrides)

    def help(self) -> str:
        """What --help prints."""
        required = [f"{key}=..." for key, option in self.keys.items() if option.required and key != self.first]
        words = [*([self.word] if self.first else []), *required, *(f"[{name}]" for name in self.switches)]
        words += ["[key=value ...]"] if self.overrides or len(self.keys) > len(required) + bool(self.first) else []
        rows = [(self._form(key), option.help) for key, option in self.keys.items()] + list(self.switches.items())
        rows += [("group.key=value", self.overrides)] if self.overrides else []
        width = max((len(left) for left, _ in rows), default=0)
        lines = [" ".join([f"python -m {self.package}.{self.name}", *words]), "", *wrap(self.summary, 110)]
        lines += ["", *(f"  {left:<{width}}  {right}" for left, right in rows)] if rows else []
        lines += ["", self.notes] if self.notes else []
        return "\n".join([*lines, "", "The last line of standard output is one JSON object with the results."])

    def program(self, main: Callable[[Sequence[str]], dict[str, Any]]) -> Callable[[], int]:
        """`main` as `entry.run` runs it on sys.argv, with this help."""
        return partial(run, main, usage=self.help())

    def _is_word(self, text: str) -> bool:
        """Whether a text is the command's word: a path or an address, not a misspelt key."""
        if self.first is None:
            return False
        name, mark, _ = text.partition("=")
        return text.startswith("~/") or (text[:1] not in "-+~" and (not mark or any(sign in name for sign in "/:?")))

    def _form(self, key: str) -> str:
        option = self.keys[key]
        value = option.default if option.default is not None else self.word.strip("[]") if key == self.first else "..."
        return f"{key}={value}"

    def _wrong(self, text: str, names: Mapping[str, str]) -> str:
        known = [f"{name}=" for name in names] + list(self.switches) + (["key=value"] if self.overrides else [])
        expected = ", ".join(([self.word] if self.first else []) + known) or "no arguments"
        near = get_close_matches(text.partition("=")[0], list(names), n=1)
        hint = f"; did you mean {near[0]}=?" if near else f"; {self.hint.format(text)}" if self.hint else ""
        return f"expected {expected}, got {text!r}{hint}; see --help"


@cache
def configuration_words() -> frozenset[str]:
    """Groups and keys at the top of a configuration: what an override without a dot can name."""
    return frozenset(re.findall(r"(?m)^(?:  - )?(\w+):", (CONFIGS / "fit.yaml").read_text()))


def at_home(text: str) -> str:
    """A path or an address (`~/data`, `npz:~/data?low=-2`) as a shell would have it; any other text as it is."""
    match = re.fullmatch(r"((?:[a-z0-9]+:)?)(~(?:/[^?]*)?)(\?.*)?", text)
    return f"{match[1]}{Path(match[2]).expanduser()}{match[3] or ''}" if match else text
