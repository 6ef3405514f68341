"""Recorded episodes as a run learns from them: opened, or copied once into segments, split, and said in one line."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datamodules.formats.uri import parse
from datamodules.importer import import_once
from datamodules.online import OnlineData
from datamodules.recorded import Recorded
from datamodules.storage.budget import DAMAGE_LIMIT
from trainers import build
from trainers.configuration import BadConfig
from trainers.held_out import HeldOut
from trainers.module import WorldModelModule
from trainers.offline_cycle import Offline
from trainers.session import Course, Session
from worldmodel.spec import EnvSpec

HELD_OUT_EPISODES = 32  # at most so many are measured on, evenly spread over all that are held out


def lead(
    session: Session, build_module: Callable[[EnvSpec], WorldModelModule], cycle: type[Offline] = Offline
) -> Course:
    """A course over the recorded episodes at data.uri, for the module that is built for their spec."""
    config, data = session.config, session.config["data"]
    recorded, imported = _open(session, data["uri"])
    module = build_module(recorded.spec)
    evaluator = None
    if data["evaluate"] and config["task"]["source"] is not None:
        _require_task_fits(session, recorded.spec)
        evaluator = session.evaluator()
    callback = cycle(
        session.surroundings(recorded.spec, evaluator),
        recorded,
        _held_out(recorded),
        imported=imported,
        updates=data["updates"],
        log_every=data["log_every"],
        validate_every=data["validate_every"],
        save_every=data["save_every"],
    )
    return Course(module, _batches(session, recorded), callback, recorded.spec, "none")


def _open(session: Session, uri: str) -> tuple[Recorded, dict[str, Any]]:
    """Segments at `uri`, or a copy of another format's episodes in the cache, and what is to be said about them."""
    data, length = session.config["data"], session.config["data"]["length"]
    folder, imported = _segments(session, uri)
    sampler = build.build_sampler(session.config, rank=session.rank)
    shares = {"holdout": data["validation_share"], "damage_limit": data.get("damage_limit", DAMAGE_LIMIT)}
    recorded = Recorded(folder, sampler=sampler, **shares)
    session.stack.callback(recorded.close)
    longest = int(recorded.lengths.max(initial=0))
    if length > longest:
        raise BadConfig(f"data.length: expected at most the {longest} rows of the longest episode, got {length}")
    imported["short"] = int((recorded.lengths < length).sum())
    session.progress.print(_summary(recorded, uri, imported, length=length))
    return recorded, imported


def _batches(session: Session, recorded: Recorded) -> OnlineData:
    """Windows of the episodes that are not held out; `data.batch` is shared out over the ranks."""
    batch, length, ranks = session.config["data"]["batch"], session.config["data"]["length"], session.trainer.world_size
    if batch % ranks:
        raise BadConfig(f"data.batch: expected a multiple of {ranks} ranks, got {batch}")
    return OnlineData(recorded, batch=batch // ranks, length=length, prefetch=build.prefetches(session.config))


def _held_out(recorded: Recorded) -> HeldOut | None:
    """What is measured on, None where nothing is held out."""
    numbers = [number for number in recorded.held_out if recorded.lengths[number] > 1]
    if not numbers:
        return None
    count = min(len(numbers), HELD_OUT_EPISODES)
    return HeldOut([recorded.trajectory(numbers[i * len(numbers) // count]) for i in range(count)])


def _summary(recorded: Recorded, uri: str, imported: Mapping[str, Any], *, length: int) -> str:
    """One line for the start of a run: what is learned from, and what is not."""
    short, left_out = imported["short"], imported.get("skipped", 0)
    parts = [
        f"recorded: {recorded.rows:,} rows of {recorded.episodes:,} episodes from {uri}",
        f"{len(recorded.held_out)} held out",
        f"{short} shorter than {length} rows and left out" if short else "",
        f"{left_out} unreadable and left out" if left_out else "",
        f"{recorded.damaged_blocks} damaged blocks with {recorded.lost_rows} rows left out"
        if recorded.damaged_blocks
        else "",
    ]
    return "; ".join(part for part in parts if part)


def _require_task_fits(session: Session, spec: EnvSpec) -> None:
    """Raise BadConfig where the task that is to be acted in is not what was recorded, before anything is learned."""
    with build.open_pool(session.config, 1, gpu=session.gpu) as pool:
        found = pool.spec
    for key in ("pixels", "action_dim", "action_repeat"):
        expected, got = getattr(spec, key), getattr(found, key)
        if expected != got:
            raise BadConfig(
                f"task: expected an environment with {key} {expected} as recorded, got {got}; task=none does without"
            )


def _segments(session: Session, uri: str) -> tuple[Path, dict[str, Any]]:
    data, parsed = session.config["data"], parse(uri)
    if parsed.scheme == "segments":  # this project's own pairing needs no check
        if data["alignment"] is not None or parsed.options:
            raise BadConfig(f"data.alignment: expected none for segments, which have actions by arrival, got {uri}")
        return parsed.path, {}
    cache = Path(data["cache"] or "cache")
    return import_once(uri, cache, alignment=data["alignment"], say=session.progress.print)
