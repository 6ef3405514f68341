"""The rows of one environment: a ring, the runs that belong together, and the log behind them; streams side by side."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.envs.protocol import Step
from datamodules.observation import image_bytes, join_images, split_images
from datamodules.storage.frames import Frames
from datamodules.storage.log_format import Block, Kind
from datamodules.storage.rows import FRAMES, VECTOR, ReplayMismatch, ReplayRowInvalid, check_row, decode, encode
from datamodules.storage.segments import SegmentLog
from datamodules.windows import Content, Spans
from worldmodel.interfaces import Batch
from worldmodel.spec import EnvSpec

# states whose rows stay on disk although they left the ring, so that a roll-back to them is exact
PINNED_STATES = 3


class Stream:
    """One ring over the slots of `table` (every column but that of images) and `frames`; with a `log`, on disk as well.

    written: number of the next row; row n lies in slot n % ring until the ring comes round. tail: no row below it
    is served. env_steps, episodes: totals over everything ever kept. is_open: an episode is under way.
    An OSError leaves every method without effect, to be called again.
    """

    def __init__(
        self, spec: EnvSpec, table: dict[str, NDArray[Any]], frames: Frames, *, flush_rows: int, log: SegmentLog | None
    ) -> None:
        self.spec, self.frames, self.log = spec, frames, log
        self._table = table
        self.ring = len(table["reward"])
        # rows that are not durable yet must still be there, to be written again after a failed sync
        self._unsynced_rows = max(1, min(self.ring, frames.capacity) // 2)
        self._flush_rows = min(flush_rows, self._unsynced_rows)
        self._pins: deque[tuple[int, int]] = deque(maxlen=PINNED_STATES)
        self._clear()
        if log is not None:
            log.recover(self.visit, self.frames.read)
            self._settle()

    def _clear(self) -> None:
        self.frames.clear()
        self._spans = Spans()
        self.written = self.tail = self.env_steps = self.episodes = 0
        self._steps_at_open = 0
        self.is_open = False

    @property
    def rows(self) -> int:
        """Rows that can be sampled."""
        spans = self.live()
        return int((spans[:, 1] - spans[:, 0]).sum())

    def live(self) -> NDArray[np.int64]:
        """Runs of rows that can be sampled, [n, 2] (start, stop)."""
        return self._spans.live(self.tail)

    def rewards(self) -> NDArray[np.float32]:
        """Of the rows that can be sampled, those that open an episode left out: no action led to them."""
        slots = np.concatenate([np.empty(0, np.int64), *(np.arange(*run) for run in self.live())]) % self.ring
        return self._table["reward"][slots][~self._table["is_first"][slots]]

    def append(self, step: Step, action: NDArray[Any]) -> None:
        """Store one arrival row; raises ReplayRowInvalid, or OSError when its block cannot be written."""
        check_row(self.spec, step, action)
        if step.is_first == self.is_open:
            expected = "a row of the open episode (truncate or discard it first)" if self.is_open else "an opening row"
            raise ReplayRowInvalid(f"is_first: expected {expected}, got is_first={step.is_first}")
        self._place(step, action)
        row, env_steps = self.written, self.env_steps + step.env_steps
        self._persist(row + 1, env_steps=env_steps, closes=step.is_last)
        if step.is_first:
            self._steps_at_open = self.env_steps
        self._spans.extend(row, row + 1, new=step.is_first)
        self._spans.forget_before(self.tail)
        self.written, self.env_steps = row + 1, env_steps
        self.is_open = not step.is_last
        self.episodes += step.is_last

    def _place(self, step: Step, action: NDArray[Any]) -> None:
        # the oldest row is overwritten now, whatever happens to the write that follows
        self.tail = max(self.tail, self.written + 1 - self.ring)
        self.frames.put(self.written, join_images(self.spec, step.observation))
        slot, table = self.written % self.ring, self._table
        table["action"][slot] = action
        for key in ("reward", "is_first", "is_last", "is_terminal", "env_steps"):
            table[key][slot] = getattr(step, key)
        for name in self.spec.vectors:
            table[VECTOR + name][slot] = step.observation[name]

    def _persist(self, stop: int, *, env_steps: int, closes: bool) -> None:
        """Bring rows below `stop` to disk when a block is full or the episode ends."""
        if self.log is None or not (closes or stop - self.log.rows >= self._flush_rows):
            return
        self._release()
        self._write_rows(stop, env_steps=env_steps, episodes=self.episodes + closes)
        if closes or stop - self.log.synced_rows > self._unsynced_rows:
            self.log.sync()

    def _write_rows(self, stop: int, *, env_steps: int, episodes: int) -> None:
        assert self.log is not None
        start = self.log.rows
        if start == stop:
            return
        pixels = np.empty((stop - start, image_bytes(self.spec)), np.uint8)
        self.frames.copy(start, pixels)
        slots = np.arange(start, stop) % self.ring
        fields = [pixels, *(values[slots] for values in self._table.values())]
        block = Block(Kind.ROWS, self.log.blocks, start, stop - start, env_steps, episodes)
        self.frames.located(start, *self.log.append(block, encode(fields)))

    def _release(self) -> None:
        """Let go of segments that neither the ring nor a recent state needs."""
        assert self.log is not None
        # a state is given up once the ring has turned completely since, which bounds the disk
        pinned = [tail for written, tail in self._pins if self.written - written <= self.ring]
        self.frames.forget_before(self.tail)
        self.log.drop_before(min([self.tail, *pinned]))

    def flush(self) -> None:
        """Make every row durable; raises OSError."""
        if self.log is not None:
            self._write_rows(self.written, env_steps=self.env_steps, episodes=self.episodes)
            self.log.sync()

    def truncate(self) -> None:
        """Close the open episode at its newest row, not as a termination; nothing happens where none is open."""
        if not self.is_open:
            return
        self._mark(Kind.CLOSE, rows=0, env_steps=self.env_steps, episodes=self.episodes + 1)
        self._close()

    def _close(self) -> None:
        self._table["is_last"][(self.written - 1) % self.ring] = True
        self.is_open = False
        self.episodes += 1

    def discard_open(self) -> None:
        """Forget the rows of the open episode, and their env_steps."""
        if not self.is_open:
            return
        start, stop = self._spans.last
        self._mark(Kind.DROP, rows=stop - start, env_steps=self._steps_at_open, episodes=self.episodes)
        self._drop(stop - start)

    def _drop(self, rows: int) -> None:
        # numbers are not used again: the slots stay empty until the ring comes round
        self._spans.forget_from(self.written - rows)
        self.env_steps = self._steps_at_open
        self.is_open = False

    def _mark(self, kind: Kind, *, rows: int, env_steps: int, episodes: int) -> None:
        if self.log is None:
            return
        self.flush()
        self.log.append(Block(kind, self.log.blocks, self.written, rows, env_steps, episodes))
        self.log.sync()

    def visit(self, block: Block, path: Path, begin: int) -> None:
        """Apply one intact block of the log, whose payload begins at byte `begin` of `path`."""
        if block.kind is Kind.ROWS:
            self._load_rows(block, path, begin)
        elif block.kind is Kind.CLOSE and self.is_open and block.first_row == self.written:
            self._close()
        elif block.kind is Kind.DROP:
            self._spans.forget_from(block.first_row - block.rows)
            self.is_open = False
        self.written = block.next_row
        self.env_steps, self.episodes = block.env_steps, block.episodes

    def interrupt(self) -> None:
        """Rows are missing here: what is visited next is a run of its own."""
        self.is_open = False

    def _load_rows(self, block: Block, path: Path, begin: int) -> None:
        fields = decode(self.spec, block)
        # the images are a block's first column
        self.frames.load(block.first_row, fields.pop(FRAMES))
        self.frames.located(block.first_row, path, begin)
        slots = np.arange(block.first_row, block.next_row) % self.ring
        for key, values in fields.items():
            self._table[key][slots] = values
        opens = bool(fields["is_first"][0])
        if opens:
            self._steps_at_open = self.env_steps
        # after a hole the rest of an episode is a run of its own
        follows = self.is_open and block.first_row == self.written and not opens
        self._spans.extend(block.first_row, block.next_row, new=not follows)
        self.is_open = not fields["is_last"][-1]

    def _settle(self) -> None:
        """Continue where the log ends, which after a loss is later than the last row that was read."""
        assert self.log is not None
        self.frames.settle()
        self.is_open = self.is_open and self.log.rows == self.written
        self.written = self.log.rows
        self.tail = max(0, self.written - self.ring)
        self._spans.forget_before(self.tail)

    def state(self) -> dict[str, Any]:
        """Flush, and say in JSON-able terms where the stream stands; raises OSError."""
        self.flush()
        if (self.written, self.tail) not in self._pins:
            self._pins.append((self.written, self.tail))
        blocks, crc = (self.log.blocks, self.log.last_crc) if self.log else (0, 0)
        totals = {"env_steps": self.env_steps, "episodes": self.episodes, "steps_at_open": self._steps_at_open}
        return {"rows": self.written, "blocks": blocks, "crc": crc, "is_open": self.is_open, **totals}

    def rollback(self, state: dict[str, Any]) -> None:
        """Return to `state`, dropping later rows; raises ReplayMismatch where it is not a state of this stream."""
        if self.log is None:
            self._rollback_in_memory(state)
        else:
            self._rollback_on_disk(self.log, state)
        self._pins.clear()
        self._pins.append((self.written, self.tail))

    def _rollback_on_disk(self, log: SegmentLog, state: dict[str, Any]) -> None:
        empty = log.blocks == 0 and state["rows"] > 0
        if empty or not log.rolls_back_to(state["blocks"], state["crc"]):
            raise ReplayMismatch(f"rows: expected the {state['rows']} rows of the checkpoint, got another log's")
        if (log.blocks, self.written) != (state["blocks"], state["rows"]):
            log.rollback(state["blocks"])
            self._clear()
            log.recover(self.visit, self.frames.read)
            log.skip_to(blocks=state["blocks"], rows=state["rows"])
            self._settle()

    def _rollback_in_memory(self, state: dict[str, Any]) -> None:
        """Rows that were overwritten since `state` stay lost: only a log brings them back."""
        rows = state["rows"]
        if rows > self.written:
            raise ReplayMismatch(
                f"rows: expected {rows} as in the checkpoint, got {self.written} (no folder was given)"
            )
        self._spans.forget_from(rows)
        self._spans.forget_before(self.tail)
        self.written, self.tail = rows, min(self.tail, rows)
        self.env_steps, self.episodes = state["env_steps"], state["episodes"]
        self._steps_at_open = state["steps_at_open"]
        self.is_open = state["is_open"] and len(self._spans) > 0 and self._spans.last[1] == rows
        if self.is_open:
            self._table["is_last"][(rows - 1) % self.ring] = False


class StreamTable:
    """Where the bytes of rows are: stream i has the slots [bases[i], bases[i] + its ring) of `table`."""

    def __init__(self, spec: EnvSpec, table: dict[str, NDArray[Any]], streams: Sequence[Stream]) -> None:
        self._spec, self._table, self._streams = spec, table, streams
        self._rings = np.array([stream.ring for stream in streams])
        self._bases = np.cumsum(self._rings) - self._rings

    def content(self, losses: int) -> Content:
        """What can be sampled now."""
        return Content(tuple(stream.live() for stream in self._streams), int(self._rings.max()), losses)

    def gather(self, windows: NDArray[np.int64], length: int) -> Batch:
        """The windows named by (draw, stream, first row) [batch, 3], copied: a batch is the caller's own."""
        stream, first = windows[:, 1], windows[:, 2]
        rows = first[:, None] + np.arange(length)
        slots = self._bases[stream][:, None] + rows % self._rings[stream][:, None]
        fields = {f: torch.from_numpy(np.take(v, slots, axis=0)) for f, v in self._table.items() if f != "env_steps"}
        observation = self._images(stream, first, length)
        observation |= {name: fields.pop(VECTOR + name) for name in self._spec.vectors}
        return Batch(observation, **fields, windows=torch.from_numpy(windows))

    def _images(self, stream: NDArray[np.int64], first: NDArray[np.int64], length: int) -> dict[str, torch.Tensor]:
        if not self._spec.images:
            return {}
        frames = np.empty((len(first), length, image_bytes(self._spec)), np.uint8)
        for out, i, row in zip(frames, stream.tolist(), first.tolist(), strict=True):
            self._streams[i].frames.copy(row, out)
        images = split_images(self._spec, frames)
        return {name: torch.from_numpy(np.ascontiguousarray(image)) for name, image in images.items()}
