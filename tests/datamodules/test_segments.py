"""The log gives back exactly what was appended, before and after damage, and rolls back."""

import os
from pathlib import Path

import pytest

from datamodules.blocks import HEADER_BYTES, Block, Kind
from datamodules.segments import SegmentLog


def filled(folder: Path, blocks: int = 10, segment_bytes: int = 300) -> SegmentLog:
    log = SegmentLog(folder, segment_bytes=segment_bytes)
    log.recover(lambda *_: None)
    for number in range(blocks):
        append(log, number)
    log.sync()
    return log


def payload(number: int) -> bytes:
    return bytes([number]) * (30 + number)


def append(log: SegmentLog, number: int) -> None:
    log.append(Block(Kind.ROWS, log.blocks, log.rows, 3, number, 0), [memoryview(payload(number))])


def recovered(folder: Path) -> tuple[SegmentLog, list[int]]:
    log, numbers = SegmentLog(folder, segment_bytes=300), []

    def visit(block: Block, path: Path, begin: int) -> None:
        assert path.read_bytes()[begin : begin + len(block.payload)] == block.payload
        assert bytes(block.payload) == payload(block.env_steps)
        numbers.append(block.number)

    log.recover(visit)
    return log, numbers


def test_reads_back_what_was_appended(tmp_path):
    written = filled(tmp_path)
    written.close()
    log, numbers = recovered(tmp_path)
    assert numbers == list(range(10)) and log.damaged_blocks == 0
    assert (log.blocks, log.rows, log.last_crc) == (10, 30, written.last_crc)
    assert len(list(tmp_path.iterdir())) > 1


def test_torn_tail_is_cut_and_not_called_damage(tmp_path):
    filled(tmp_path, blocks=3, segment_bytes=10**6).close()
    path = next(tmp_path.iterdir())
    content = path.read_bytes()
    whole = 2 * HEADER_BYTES + 30 + 31
    for size in range(whole, len(content)):
        path.write_bytes(content[:size])
        log, numbers = recovered(tmp_path)
        assert numbers == [0, 1] and log.damaged_blocks == 0 and path.stat().st_size == whole
        log.close()


def test_damaged_block_is_counted_and_left_out(tmp_path):
    filled(tmp_path).close()
    path = sorted(tmp_path.iterdir())[1]
    content = bytearray(path.read_bytes())
    content[HEADER_BYTES + 3] ^= 1
    path.write_bytes(content)
    log, numbers = recovered(tmp_path)
    lost = int(path.stem.removeprefix("segment_"))
    assert numbers == [n for n in range(10) if n != lost] and log.damaged_blocks == 1


def test_missing_segment_is_counted(tmp_path):
    filled(tmp_path).close()
    second, third = sorted(tmp_path.iterdir())[1:3]
    lost = range(int(second.stem.removeprefix("segment_")), int(third.stem.removeprefix("segment_")))
    second.unlink()
    log, numbers = recovered(tmp_path)
    assert numbers == [n for n in range(10) if n not in lost] and log.damaged_blocks == len(lost)


def test_unreadable_segment_is_set_aside(tmp_path):
    filled(tmp_path).close()
    path = min(tmp_path.iterdir())
    path.write_bytes(bytes(200))
    log, _ = recovered(tmp_path)
    assert path.with_suffix(".damaged").exists() and not path.exists()
    append(log, 10)


@pytest.mark.parametrize("blocks", range(11))
def test_rollback_keeps_exactly_the_blocks_before(tmp_path, blocks):
    log = filled(tmp_path)
    log.rollback(blocks)
    log.recover(lambda *_: None)
    log.skip_to(blocks=blocks, rows=3 * blocks)
    append(log, blocks)
    log.close()
    log, numbers = recovered(tmp_path)
    assert numbers == list(range(blocks + 1)) and log.damaged_blocks == 0


def test_rollback_refuses_another_history(tmp_path):
    log, other = filled(tmp_path / "a"), filled(tmp_path / "b", blocks=5)
    assert log.rolls_back_to(10, log.last_crc) and not log.rolls_back_to(10, other.last_crc)


def test_drop_before_deletes_whole_old_segments_only(tmp_path):
    log = filled(tmp_path)
    log.drop_before(15)
    log.close()
    _, numbers = recovered(tmp_path)
    assert 0 < numbers[0] <= 5 and numbers == list(range(numbers[0], 10))


def test_failed_fsync_takes_the_blocks_back(tmp_path, monkeypatch):
    log = filled(tmp_path, blocks=3, segment_bytes=10**6)
    append(log, 3)

    def fails(fd: int) -> None:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(OSError):
            log.sync()
    assert (log.blocks, log.rows) == (3, 9)
    append(log, 3)
    log.sync()
    log.close()
    log, numbers = recovered(tmp_path)
    assert numbers == [0, 1, 2, 3] and log.damaged_blocks == 0
