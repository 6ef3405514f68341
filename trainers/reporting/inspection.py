"""Findings about recorded episodes, as numbers, a table and pictures; one episode at a time in memory."""

import sys
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datamodules.alignment import Alignment, check_alignment
from datamodules.formats.assemble import FIRST_REWARD
from datamodules.formats.protocol import Reader, in_short
from datamodules.formats.uri import absolute, open_reader, parse
from datamodules.trajectory import Trajectory
from trainers.command.configuration import BadConfig, whole_number
from trainers.run_folder.records import write_json
from trainers.run_folder.video import enlarged_to, newest_image, write_mp4, write_png
from worldmodel.spec import EnvSpec

SHOWN = 8  # episodes on the contact sheet, the best and the worst among them
FRAMES = 7  # of each
SIDE = 96  # pixels of a tile, at least
BINS, BAR = 10, 30


@dataclass(slots=True)
class _Shown:
    """What the sheet keeps of an episode."""

    number: int
    total: float
    frames: NDArray[np.uint8]  # [FRAMES, h, w, 3]


@dataclass(slots=True)
class _Findings:
    lengths: list[int] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    terminal: int = 0
    env_steps: int = 0
    low: NDArray[np.float32] | None = None
    high: NDArray[np.float32] | None = None
    reward: tuple[float, float] = (np.inf, -np.inf)
    shown: dict[str, _Shown] = field(default_factory=dict)
    film: NDArray[np.uint8] | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, episode: Trajectory, spec: EnvSpec, *, spread: set[int]) -> None:
        """Take in one episode."""
        number, total = len(self.lengths), float(episode.reward.sum())
        best, worst = max(self.returns, default=-np.inf), min(self.returns, default=np.inf)
        self.lengths.append(len(episode))
        self.returns.append(total)
        self.terminal += episode.terminal
        self.env_steps += int(episode.env_steps.sum())
        acted = episode.action[1:] if len(episode) > 1 else episode.action
        self.low = acted.min(0) if self.low is None else np.minimum(self.low, acted.min(0))
        self.high = acted.max(0) if self.high is None else np.maximum(self.high, acted.max(0))
        self.reward = (
            min(self.reward[0], float(episode.reward.min())),
            max(self.reward[1], float(episode.reward.max())),
        )
        if total > best:
            self.film = _colour(episode, slice(600), spec)
        names = [*(["best"] if total > best else []), *(["worst"] if total < worst else [])]
        names += [f"{number:09d}"] if number in spread else []
        if names:
            picks = np.linspace(0, len(episode) - 1, FRAMES).round().astype(int)
            one = _Shown(number, total, _colour(episode, picks, spec))
            self.shown |= dict.fromkeys(names, one)


def inspect(uri: str, *, out: str | None, episodes: str | None) -> dict[str, Any]:
    """Read the data set once (and its first episodes twice); returns what was found. Raises FormatError, OSError."""
    limit = whole_number("episodes", episodes) if episodes is not None else None
    path = parse(uri).path.resolve()
    named = path.parent if path.name == "replay" else path  # a run's replay is called as its run
    folder = Path(out).expanduser() if out else Path("inspect") / named.name.partition(".")[0]
    with closing(open_reader(uri)) as reader:
        findings = _read(reader, limit=limit)
        if not findings.lengths:
            reasons = in_short([problem.reason for problem in reader.problems])
            raise BadConfig(f"{uri}: expected an episode that can be read, got none ({reasons})")
        # the check below reads the first episodes again, and begins a new list
        findings.problems, findings.notes = list(map(str, reader.problems)), reader.notes.texts()
        alignment = _paired(uri, check_alignment(reader.trajectories()), reader.notes.count(FIRST_REWARD) > 0)
        facts = _facts(uri, reader, findings, alignment)
    files = _write(folder, findings, reader.spec)
    write_json(folder / "findings.json", facts)
    Console(file=sys.stderr, highlight=False).print(_table(facts, findings))
    return {**facts, "files": [str(path) for path in files]}


def _read(reader: Reader, *, limit: int | None) -> _Findings:
    claimed = len(reader) if limit is None else min(limit, len(reader))
    spread = set(np.linspace(0, max(0, claimed - 1), SHOWN - 2).round().astype(int).tolist())
    findings = _Findings()
    for episode in islice(reader.trajectories(), limit):
        findings.add(episode, reader.spec, spread=spread)
    return findings


def _paired(uri: str, alignment: Alignment, rewards_depart: bool) -> dict[str, Any]:
    """The check's findings, with what they say of this reading in words."""
    parsed = parse(uri)
    # this project's own files are by arrival, whatever is asked for
    remedy = None if parsed.scheme == "segments" else f"add {'&' if parsed.options else '?'}alignment="
    given = parsed.options.get("actions", parsed.options.get("alignment"))
    words = alignment.in_words(given=given, remedy=remedy, rewards_depart=rewards_depart)
    return {**alignment.to_json(), "words": words}


def _facts(uri: str, reader: Reader, findings: _Findings, alignment: dict[str, Any]) -> dict[str, Any]:
    assert findings.low is not None and findings.high is not None
    counts, edges = np.histogram(findings.returns, BINS)
    return {
        "uri": absolute(uri),
        "task": reader.spec.task,
        "spec": reader.spec.to_json(),
        "episodes": len(findings.lengths),
        "rows": sum(findings.lengths),
        "env_steps": findings.env_steps,
        "terminated": findings.terminal,
        "lengths": _statistics(findings.lengths),
        "returns": {**_statistics(findings.returns), "histogram": {"counts": counts.tolist(), "edges": edges.tolist()}},
        "action_low": findings.low.tolist(),
        "action_high": findings.high.tolist(),
        "reward_range": list(findings.reward),
        "alignment": alignment,
        "skipped": len(findings.problems),
        "problems": [*findings.problems[:20], *findings.notes],
    }


def _statistics(values: list[Any]) -> dict[str, float]:
    return {"min": float(min(values)), "mean": float(np.mean(values)), "max": float(max(values))}


def _table(facts: dict[str, Any], findings: _Findings) -> Table:
    # names and reasons of others may have brackets in them
    table = Table(title=escape(f"{facts['task']}  ({facts['uri']})"), show_header=False, title_justify="left")
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    spec, lengths, returns = facts["spec"], facts["lengths"], facts["returns"]
    table.add_row("episodes", f"{facts['episodes']:,} ({facts['terminated']:,} ended by termination)")
    table.add_row("rows", f"{facts['rows']:,} ({facts['env_steps']:,} env steps)")
    table.add_row("frames", escape(f"{EnvSpec.from_json(spec).observed}, action repeat {spec['action_repeat']}"))
    table.add_row("episode length", "{min:.0f} to {max:.0f} rows, mean {mean:.1f}".format(**lengths))
    table.add_row("return", "{min:.3g} to {max:.3g}, mean {mean:.3g}".format(**returns))
    table.add_row("", _bars(returns["histogram"]), end_section=True)
    ranges = zip(facts["action_low"], facts["action_high"], strict=True)
    table.add_row("actions", ", ".join(f"{low:.2f} to {high:.2f}" for low, high in list(ranges)[:8]))
    table.add_row("rewards", "{:.3g} to {:.3g}".format(*facts["reward_range"]))
    scores = ", ".join(f"{name} {score:.3f}" for name, score in facts["alignment"]["scores"].items())
    table.add_row("alignment", f"[bold]{escape(facts['alignment']['words'])}[/bold] ({scores})", end_section=True)
    table.add_row("left out", f"{facts['skipped']:,}" if facts["skipped"] else "nothing")
    for problem in findings.problems[:20]:
        table.add_row("", escape(problem))
    for note in findings.notes:
        table.add_row("note", escape(note))
    return table


def _bars(histogram: dict[str, list[float]]) -> str:
    counts, edges = histogram["counts"], histogram["edges"]
    top = max(counts)
    lines = zip(edges, counts, strict=False)
    return "\n".join(f"{low:>9.3g} {'█' * -(-int(n) * BAR // int(top))} {n if n else ''}" for low, n in lines)


def _write(folder: Path, findings: _Findings, spec: EnvSpec) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    assert findings.film is not None
    paths = [write_png(folder / "episodes.png", _sheet(findings))]
    film = enlarged_to(findings.film, 192)
    return [*paths, write_mp4(folder / "best.mp4", film, max(1.0, min(30.0, len(film) / 10)))]


def _sheet(findings: _Findings) -> NDArray[np.uint8]:
    """A row of frames for each shown episode, from its first to its last, with what it is on the left."""
    best, worst = findings.shown["best"].number, findings.shown["worst"].number
    shown = {one.number: one for one in findings.shown.values()}
    order = sorted(shown.values(), key=lambda one: -one.total)
    scale = max(1, -(-SIDE // order[0].frames.shape[1]))
    height, width = (size * scale for size in order[0].frames.shape[1:3])
    gap, margin = 4, 120
    canvas = Image.new("RGB", (margin + FRAMES * (width + gap), len(order) * (height + gap) + 24), "white")
    draw = ImageDraw.Draw(canvas)
    for k, label in ((0, "first"), (FRAMES // 2, "middle"), (FRAMES - 1, "last")):
        draw.text((margin + k * (width + gap) + 2, 6), label, fill=(90, 90, 90))
    for row, one in enumerate(order):
        top = 24 + row * (height + gap)
        names = [name for name, number in (("best", best), ("worst", worst)) if number == one.number]
        lines = (f"episode {one.number}", f"return {one.total:.4g}", f"{findings.lengths[one.number]} rows", *names)
        draw.multiline_text((8, top + 6), "\n".join(lines), fill=(20, 20, 20), spacing=6)
        for k, frame in enumerate(one.frames):
            tile = Image.fromarray(frame.repeat(scale, 0).repeat(scale, 1))
            canvas.paste(tile, (margin + k * (width + gap), top))
    return np.asarray(canvas)


def _colour(episode: Trajectory, rows: slice | NDArray[np.int64], spec: EnvSpec) -> NDArray[np.uint8]:
    """The first image of an episode's rows as [T, h, w, 3]; black where no image was recorded."""
    if not spec.images:
        return np.zeros((len(episode.reward[rows]), 16, 16, 3), np.uint8)
    pixels = episode.observation[next(iter(spec.images))][rows]
    return np.ascontiguousarray(newest_image(torch.from_numpy(pixels.copy()), spec).numpy().transpose(0, 2, 3, 1))
