"""The log gives back exactly what was appended, before and after damage, and rolls back."""

import os
from pathlib import Path

import pytest

from datamodules.storage.frames import FileSnapshot
from datamodules.storage.log_format import HEADER_BYTES, Block, ChecksumMismatch, Kind, parse_manifest
from datamodules.storage.log_reader import number_of, segment_paths
from datamodules.storage.segments import SegmentLog


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
    log = filled(tmp_path, blocks=2, segment_bytes=10**6)
    append(log, 2)  # never synced: nobody was promised this block
    log.close()
    path, *_ = segment_paths(tmp_path)
    content = path.read_bytes()
    whole = 2 * HEADER_BYTES + 30 + 31
    for size in range(whole, len(content)):
        path.write_bytes(content[:size])
        log, numbers = recovered(tmp_path)
        assert numbers == [0, 1] and log.damaged_blocks == 0 and path.stat().st_size == whole
        log.close()
    assert not (tmp_path / "damaged").exists()


@pytest.mark.parametrize("cut", ["block", "segment", "two segments", "byte"])
def test_a_missing_end_is_counted(tmp_path, cut):
    filled(tmp_path).close()
    paths = segment_paths(tmp_path)
    if cut in ("block", "byte"):
        size = len(paths[-1].read_bytes()) - (HEADER_BYTES + 39 if cut == "block" else 1)
        os.truncate(paths[-1], size)
        lost = 1
    else:
        gone = paths[-1:] if cut == "segment" else paths[-2:]
        lost = 10 - number_of(gone[0])
        for path in gone:
            path.unlink()
    for _ in range(2):
        log, numbers = recovered(tmp_path)
        assert numbers == list(range(10 - lost)) and (log.damaged_blocks, log.lost_rows) == (lost, 3 * lost)
        assert (log.blocks, log.rows) == (10, 30)
        log.close()


def test_a_missing_beginning_is_counted(tmp_path):
    filled(tmp_path).close()
    first, second, *_ = segment_paths(tmp_path)
    first.unlink()
    log, numbers = recovered(tmp_path)
    lost = number_of(second)
    assert numbers == list(range(lost, 10)) and (log.damaged_blocks, log.lost_rows) == (lost, 3 * lost)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [Path.unlink, flip, lambda path: path.write_bytes(b"")])
def test_a_broken_manifest_is_made_anew_from_the_segments(tmp_path, spoil):
    filled(tmp_path).close()
    spoil(tmp_path / "manifest.json")
    log, numbers = recovered(tmp_path)
    assert numbers == list(range(10)) and (log.damaged_blocks, log.lost_rows) == (1, 0)
    log.close()
    log, numbers = recovered(tmp_path)
    assert numbers == list(range(10)) and log.damaged_blocks == 0


def test_every_flipped_bit_of_a_manifest_is_noticed(tmp_path):
    filled(tmp_path).close()
    path = tmp_path / "manifest.json"
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(ChecksumMismatch):
            parse_manifest((tmp_path / "manifest.json").read_bytes())


def test_an_older_manifest_and_one_of_another_history_are_not_believed(tmp_path):
    log = filled(tmp_path / "a")
    old = (tmp_path / "a/manifest.json").read_bytes()
    for number in range(10, 20):
        append(log, number)
    log.close()
    (tmp_path / "a/manifest.json").write_bytes(old)
    log, numbers = recovered(tmp_path / "a")
    assert numbers == list(range(20)) and (log.damaged_blocks, log.lost_rows) == (1, 0)
    log.close()
    other = SegmentLog(tmp_path / "b", segment_bytes=300)
    other.recover(lambda *_: None)
    for _ in range(20):
        other.append(Block(Kind.ROWS, other.blocks, other.rows, 5, 0, 0), [memoryview(bytes(34))])
    other.close()
    os.replace(tmp_path / "b/manifest.json", tmp_path / "a/manifest.json")
    log, numbers = recovered(tmp_path / "a")
    assert numbers == list(range(20)) and (log.damaged_blocks, log.lost_rows) == (1, 0)


def test_what_cannot_be_read_is_set_aside_byte_for_byte(tmp_path):
    filled(tmp_path).close()
    first, second, *_ = segment_paths(tmp_path)
    flip(first)
    second.write_bytes(b"somebody's notes")
    damaged = first.read_bytes()
    for _ in range(2):
        log, _ = recovered(tmp_path)
        log.close()
    aside = sorted((tmp_path / "damaged").iterdir())
    assert [path.name for path in aside][1:] == [second.name] and aside[1].read_bytes() == b"somebody's notes"
    assert aside[0].read_bytes() in damaged and len(aside[0].read_bytes()) > HEADER_BYTES
    assert first.read_bytes() == damaged


def test_damaged_block_is_counted_and_left_out(tmp_path):
    filled(tmp_path).close()
    path = segment_paths(tmp_path)[1]
    content = bytearray(path.read_bytes())
    content[HEADER_BYTES + 3] ^= 1
    path.write_bytes(content)
    log, numbers = recovered(tmp_path)
    lost = int(path.stem.removeprefix("segment_"))
    assert numbers == [n for n in range(10) if n != lost] and log.damaged_blocks == 1


def test_missing_segment_is_counted(tmp_path):
    filled(tmp_path).close()
    second, third = segment_paths(tmp_path)[1:3]
    lost = range(int(second.stem.removeprefix("segment_")), int(third.stem.removeprefix("segment_")))
    second.unlink()
    log, numbers = recovered(tmp_path)
    assert numbers == [n for n in range(10) if n not in lost] and log.damaged_blocks == len(lost)


def test_unreadable_segment_is_set_aside(tmp_path):
    filled(tmp_path).close()
    path = segment_paths(tmp_path)[0]
    path.write_bytes(bytes(200))
    log, _ = recovered(tmp_path)
    assert (tmp_path / "damaged" / path.name).read_bytes() == bytes(200) and not path.exists()
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
    for number in range(10, 14):  # until the next segment begins
        append(log, number)
    log.close()
    again, numbers = recovered(tmp_path)
    assert 0 < numbers[0] <= 5 and numbers == list(range(numbers[0], 14)) and again.damaged_blocks == 0


def test_failed_fsync_takes_the_blocks_back(tmp_path, monkeypatch):
    log = filled(tmp_path, blocks=3, segment_bytes=10**6)
    append(log, 3)
    held = FileSnapshot(segment_paths(tmp_path)[0])

    def fails(fd: int) -> None:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(OSError):
            log.sync()
    assert (log.blocks, log.rows) == (3, 9)
    before = held.read()
    append(log, 4)
    # cut in place, the file would end this process where another block reached over a page
    assert held.whole.tobytes() == held.read() == before and len(segment_paths(tmp_path)) == 1
    log.sync()
    log.close()
    log, numbers = recovered(tmp_path)
    assert numbers == [0, 1, 2, 3] and log.damaged_blocks == 0
