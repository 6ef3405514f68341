"""Films with tables: exact round trip, tables by others, and every mismatch of film and table left out by name."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datamodules.formats import images
from datamodules.formats.protocol import FormatError
from datamodules.formats.uri import open_reader, open_writer
from tests.datamodules.formats.episodes import SPEC, assert_holds, episode


def moving(rows: int, side: int = 32) -> np.ndarray:
    """Frames [rows, 3, side, side] of a bright disc that moves over a slope."""
    y, x = np.mgrid[:side, :side]
    frames = [np.hypot(x - 8 - t % 16, y - side / 2) for t in range(rows)]
    disc = [np.stack([255 - 8 * distance, 3 * x + y, 2 * y]).clip(0, 255) for distance in frames]
    return np.stack(disc).astype(np.uint8)


def foreign(folder: Path, table: str, rows: int, name: str = "a") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    images.encode_film(folder / f"{name}.mp4", moving(rows), fps=10, codec="lossless")
    (folder / f"{name}.csv").write_text(table)
    return f"mp4:{folder}"


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, images={"pixels": (1, 17, 15)})])
def test_round_trip_is_exact(tmp_path, spec):
    expected = [episode(rows, rows, spec=spec, terminal=rows == 2) for rows in (9, 2, 1)]
    for part in (expected[:2], expected[2:]):  # a second writer adds behind the first
        writer = open_writer(f"mp4:{tmp_path}/out", spec)
        for trajectory in part:
            writer.write(trajectory)
        writer.close()
    assert_holds(open_reader(f"{tmp_path}/out"), expected, spec=spec)
    with pytest.raises(FormatError, match="look: expected fast as of the episodes there, got suite"):
        open_writer(f"mp4:{tmp_path}/out", replace(spec, look="suite"))


def test_h264_is_small_and_near(tmp_path):
    spec = replace(SPEC, images={"pixels": (3, 32, 32)})
    trajectory = replace(episode(40, spec=spec), observation={"pixels": moving(40)})
    sizes = {}
    for codec in ("lossless", "h264"):
        open_writer(f"mp4:{tmp_path}/{codec}?codec={codec}", spec).write(trajectory)
        sizes[codec] = next((tmp_path / codec).glob("*.mp4")).stat().st_size
    got = next(iter(open_reader(f"mp4:{tmp_path}/h264").trajectories()))
    assert np.abs(got.pixels.astype(int) - trajectory.pixels).mean() < 3
    assert np.array_equal(got.action, trajectory.action) and sizes["h264"] < sizes["lossless"]


def test_reads_tables_of_others(tmp_path):
    uri = foreign(tmp_path / "set", "action_0,action_1,reward,done\n2,0,1,0\n-2,1,2,0\n0,2,3,1\n", 3)
    reader = open_reader(f"{uri}?alignment=departure&low=-2&high=2&size=8&action_repeat=4")
    (got,) = reader.trajectories()
    assert reader.spec.pixels == (3, 8, 8) and reader.spec.episode_steps == 8 and reader.spec.task == "set"
    assert got.action.tolist() == [[0, 0], [1, 0], [-1, 0.5]] and got.reward.tolist() == [0, 1, 2]
    assert got.env_steps.tolist() == [0, 4, 4] and not got.terminal
    mean = moving(1)[0].reshape(3, 8, 4, 8, 4).mean((2, 4))  # an area's mean is a plain mean where sides divide
    assert np.abs(got.pixels[0] - mean).max() <= 1


BAD = {
    "more frames": ("action_0\n0\n0\n", "got more"),
    "fewer frames": ("action_0\n0\n0\n0\n0\n", "expected 4 frames"),
    "no action": ("reward\n0\n0\n0\n", "action_0"),
    "a gap": ("action_0,action_2\n0,0\n0,0\n0,0\n", "action_1"),
    "columns twice": ("action_0,reward,reward\n0,0,0\n", "different columns"),
    "text": ("action_0\n0\nleft\n0\n", "expected numbers"),
    "ragged": ("action_0,reward\n0,0\n0\n0,0\n", "columns"),
    "no lines": ("action_0\n", "a line for each frame"),
    "empty": ("", "action_0"),
    "infinite": ("action_0,reward\n0,0\n0,inf\n0,0\n", "finite"),
    "two actions": ("action_0,action_1\n0,0\n0,0\n0,0\n", "expected 1 numbers in each row, got 2"),
    "out of range": ("action_0\n0\n7\n0\n", r"\?low="),
    "terminal twice": ("action_0,terminal\n0,0\n0,1\n0,1\n", "in the last of 3 rows"),
    "negative steps": ("action_0,env_steps\n0,0\n0,-1\n0,1\n", "env_steps"),
    "one cell of 1 MiB": ("action_0\n0\n" + "9" * (1 << 20) + "\n0\n", "expected"),
}


def test_a_bad_table_is_left_out_by_name(tmp_path):
    for name, (table, _) in BAD.items():
        foreign(tmp_path, table, 3, name)
    foreign(tmp_path, "action_0\n0\n1\n0\n", 3, "good")
    (tmp_path / "more frames.csv").rename(tmp_path / "unfinished.csv")
    (tmp_path / "more frames.mp4").rename(tmp_path / "unfinished.mp4")
    foreign(tmp_path, *(BAD["more frames"][0], 3, "more frames"))
    (tmp_path / "unfinished.csv").unlink()
    reader = open_reader(f"mp4:{tmp_path}")
    assert [trajectory.name for trajectory in reader.trajectories()] == ["good"]
    reasons = {problem.name: problem.reason for problem in reader.problems}
    assert reasons.keys() == {*BAD, "unfinished"} and len(reader) == len(BAD) + 2
    for name, (_, reason) in BAD.items():
        assert re.search(reason, reasons[name]), (name, reasons[name])


def test_what_is_read_as_termination_is_told(tmp_path):
    reader = open_reader(foreign(tmp_path / "set", "action_0,reward,dones\n0,0,0\n0,1,0\n0,2,1\n", 3))
    (got,) = reader.trajectories()
    assert got.terminal
    (note,) = reader.notes.texts()
    assert note.startswith("dones is read as termination (1 of 1 episodes)")


def test_a_film_holds_one_episode(tmp_path):
    uri = foreign(tmp_path / "set", "action_0,reward,is_first\n0,0,1\n0,1,0\n0,2,1\n", 3)
    with pytest.raises(FormatError, match="expected one episode in a film, got another from row 2 on"):
        open_reader(uri)


def test_an_episode_that_begins_or_ends_outside_the_film_is_told(tmp_path):
    reader = open_reader(foreign(tmp_path / "set", "action_0,reward,is_first,is_last\n0,0,0,0\n0,1,0,0\n0,2,0,0\n", 3))
    assert len(list(reader.trajectories())) == 1
    notes = " ".join(reader.notes.texts())
    assert "1 episodes begin without is_first" in notes and "1 episodes end without is_last" in notes
