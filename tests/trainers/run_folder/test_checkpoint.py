"""Checkpoints come back exactly, whole or not at all, after any crash and any damage."""

import os
import random
import shutil
import subprocess
import sys
import textwrap
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from tests.io_faults import Crash, Faults
from trainers.run_folder.checkpoint import CheckpointDamaged, newest, prune, verify
from trainers.run_folder.paths import step_name
from trainers.run_folder.serialization import STORED_DTYPES
from trainers.training.checkpoint_io import DurableCheckpointIO

ROOT = Path(__file__).parents[3]
IO = DurableCheckpointIO()


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch):
    """Syncs matter to power losses only, and to the test that counts them."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def same(a, b) -> bool:
    """Equal in type, structure and bits (OrderedDict and dict alike)."""
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        kind = list if isinstance(a, list) else tuple
        return type(b) is kind and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bits(a) == bits(b)
    if isinstance(a, np.ndarray | np.generic):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and (a == b or repr(a) == repr(b) == "nan")


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def small(number: int) -> dict:
    return {"state_dict": {"w": torch.full((5,), float(number))}, "number": number, "rng": torch.get_rng_state()}


def round_trip(tree: dict, folder: Path) -> dict:
    IO.save_checkpoint(tree, folder / "c")
    return IO.load_checkpoint(folder / "c")


def random_tree(rng: random.Random, depth: int):
    leaves = [
        lambda: None,
        lambda: rng.random() < 0.5,
        lambda: rng.choice([0, -1, 2**200, -(2**63)]),
        lambda: rng.choice([0.1, -0.0, 1e308, 5e-324, float("inf"), float("-inf"), float("nan")]),
        lambda: rng.choice(["", "$tensor", "é\n\0", "\U0001f600"]),
        lambda: bytes(rng.randrange(256) for _ in range(rng.randrange(5))),
        lambda: torch.randn(rng.choice([(), (0,), (3,), (2, 0, 3), (2, 3)])),
        lambda: np.arange(rng.randrange(5)).astype(rng.choice(["i8", "u1", "f4", "f8", "?"])),
        lambda: np.float32(rng.random()),
    ]
    kind = rng.randrange(8) if depth else 7
    if kind > 4:
        return rng.choice(leaves)()
    children = [random_tree(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind > 2:
        return children if kind == 3 else tuple(children)
    keys = [lambda i: f"key.{i}", lambda i: i, lambda i: rng.choice([f"${i}", str(i), -i])][kind]
    return {keys(i): child for i, child in enumerate(children)}


@pytest.mark.parametrize("seed", range(40))
def test_any_tree_comes_back(tmp_path, seed):
    rng = random.Random(seed)
    tree = {f"part{i}": random_tree(rng, 4) for i in range(4)}
    assert same(tree, round_trip(tree, tmp_path))


def test_real_training_state_comes_back(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimiser.step()
    tree = {
        "state_dict": model.state_dict(),
        "optimizer_states": [optimiser.state_dict()],
        "rng": {"torch": torch.get_rng_state(), "numpy": np.random.default_rng(1).bit_generator.state},
        "python": random.getstate(),
    }
    loaded = round_trip(tree, tmp_path)
    assert same(tree, loaded)
    torch.set_rng_state(loaded["rng"]["torch"])
    optimiser.load_state_dict(loaded["optimizer_states"][0])
    random.setstate(loaded["python"])


@pytest.mark.parametrize("dtype", sorted(STORED_DTYPES, key=str), ids=str)
def test_every_dtype_comes_back(tmp_path, dtype):
    whole = torch.arange(12).reshape(3, 4).to(dtype)
    tree = {name: {"a": whole, "t": whole.t(), "s": whole[:, 1:3], "0": whole[1, 2]} for name in ("state_dict", "x")}
    assert same(tree, round_trip(tree, tmp_path))


def test_shared_tensors_stay_shared_and_views_stay_separate(tmp_path):
    whole = torch.randn(4, 4)
    tree = {"state_dict": {"w": whole, "tied": whole, "view": whole[1:]}, "a": whole, "b": [whole], "c": whole[:2]}
    loaded = round_trip(tree, tmp_path)
    assert same(tree, loaded)
    assert loaded["a"] is loaded["b"][0]
    loaded["a"].zero_()
    assert same(tree["c"], loaded["c"]) and same(tree["state_dict"], loaded["state_dict"])


def test_equal_addresses_of_dead_tensors_are_not_shared(tmp_path):
    class Fresh(dict):
        def items(self):
            return ((i, torch.full((100_000,), float(i))[::1000]) for i in range(20))

    loaded = round_trip({"x": Fresh({0: 0})}, tmp_path)
    assert [tensor[0].item() for tensor in loaded["x"].values()] == list(range(20))


class Strange:
    """Nothing that a file should hold."""

    def __repr__(self) -> str:
        return "Strange()"  # names of tests must be equal in all processes


@pytest.mark.parametrize(
    "leaf",
    [
        *(Strange(), {1, 2}, Strange, torch.float32, np.array([Strange()]), {2.5: 1}, {True: 1}, 1j, Path("a")),
        *(torch.eye(2).to_sparse(), np.array(["a"]), np.zeros(2, ">f4"), torch.zeros(2, dtype=torch.complex128)),
    ],
    ids=str,
)
def test_what_cannot_come_back_is_refused_by_name(tmp_path, leaf):
    with pytest.raises(TypeError, match=r"checkpoint\['callbacks'\]\['x'\]\[1\]"):
        IO.save_checkpoint({"callbacks": {"x": [0, leaf]}}, tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_load_moves_to_a_named_device(tmp_path):
    IO.save_checkpoint(small(3), tmp_path / "c")
    loaded = IO.load_checkpoint(tmp_path / "c", map_location="meta")
    assert loaded["state_dict"]["w"].device.type == "meta" and loaded["number"] == 3


def damaged_copies(folder: Path, rng: random.Random):
    """(what was done, files) for bit flips, truncations and lost files."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name, content in files.items():
        for position in rng.sample(range(len(content)), min(45, len(content))):
            flipped = bytearray(content)
            flipped[position] ^= 1 << rng.randrange(8)
            yield f"{name} bit in {position}", {**files, name: bytes(flipped)}
        for size in (0, 1, len(content) // 2, len(content) - 1):
            yield f"{name} cut to {size}", {**files, name: content[:size]}
        yield f"{name} longer", {**files, name: content + b"\n"}
        yield f"{name} lost", {key: value for key, value in files.items() if key != name}


def test_all_damage_is_found(tmp_path):
    IO.save_checkpoint(small(1), tmp_path / step_name(1))
    cases = 0
    for what, files in damaged_copies(tmp_path / step_name(1), random.Random(0)):
        bad = tmp_path / "bad" / step_name(2)
        bad.mkdir(parents=True)
        for name, content in files.items():
            (bad / name).write_bytes(content)
        with pytest.raises(CheckpointDamaged):
            IO.load_checkpoint(bad)
        with pytest.warns(UserWarning, match="left out"):
            assert newest(bad.parent) is None, what
        shutil.rmtree(bad)
        cases += 1
    assert cases > 180


def test_every_byte_of_the_manifest_counts(tmp_path):
    IO.save_checkpoint(small(1), tmp_path / "c")
    path = tmp_path / "c/manifest.json"
    content = path.read_bytes()
    for i in range(len(content)):
        flipped = bytearray(content)
        flipped[i] ^= 1 << i % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointDamaged):
            verify(tmp_path / "c")


def test_newest_goes_by_step_and_falls_back(tmp_path):
    assert newest(tmp_path) is None
    for step in (30, 4, 200):
        IO.save_checkpoint(small(step), tmp_path / step_name(step))
    for age, step in enumerate((200, 4, 30)):
        os.utime(tmp_path / step_name(step), (age, age))
    (tmp_path / "step_abc").mkdir()
    assert newest(tmp_path) == tmp_path / step_name(200)
    (tmp_path / step_name(200) / "state.json").write_bytes(b"{}")
    with pytest.warns(UserWarning, match="state.json"):
        assert newest(tmp_path) == tmp_path / step_name(30)


def test_prune_keeps_verified_ones_and_strangers(tmp_path):
    for step in range(1, 6):
        IO.save_checkpoint(small(step), tmp_path / step_name(step))
    (tmp_path / step_name(4) / "state.json").write_bytes(b"{}")
    (tmp_path / ".step_0000000009.tmp").mkdir()
    stranger = tmp_path / ".cache.tmp"
    stranger.mkdir()
    (stranger / "notes.txt").write_text("mine")
    with pytest.warns(UserWarning):
        removed = prune(tmp_path, keep=2)
    assert {path.name for path in removed} == {step_name(1), step_name(2), ".step_0000000009.tmp"}
    assert {path.name for path in tmp_path.iterdir()} == {step_name(n) for n in (3, 4, 5)} | {".cache.tmp"}
    with pytest.warns(UserWarning):
        assert prune(tmp_path, keep=3) == []
    (tmp_path / step_name(3) / "state.json").write_bytes(b"{}")
    with pytest.warns(UserWarning):
        assert prune(tmp_path, keep=2) == []


def test_foreign_folders_are_never_replaced_or_removed(tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        IO.save_checkpoint(small(1), folder)
    with pytest.raises(FileNotFoundError):
        IO.remove_checkpoint(folder)
    assert (folder / "notes.txt").read_text() == "mine" and os.listdir(tmp_path) == ["c"]


def save_faults(monkeypatch, kind: str, n: int) -> Faults:
    calls = ("open", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir")
    faults = Faults(monkeypatch, kind, n, calls=calls)
    exchange = sys.modules["trainers.run_folder.checkpoint"]._exchange
    monkeypatch.setattr("trainers.run_folder.checkpoint._exchange", faults.wrap("exchange", exchange))
    return faults


@pytest.mark.parametrize("kind", ["error", "crash"])
@pytest.mark.parametrize("path", [step_name(1), step_name(2)], ids=["replaced", "new"])
def test_fault_at_any_call_of_a_save_leaves_old_or_new(tmp_path, monkeypatch, kind, path):
    for n in range(1, 200):
        folder = tmp_path / str(n)
        IO.save_checkpoint(small(1), folder / step_name(1))
        with monkeypatch.context() as patch:
            faults, failed = save_faults(patch, kind, n), False
            try:
                IO.save_checkpoint(small(2), folder / path)
            except (OSError, Crash):
                failed = True
        assert faults.hit or not failed
        found = IO.load_checkpoint(newest(folder))
        assert same(found, small(found["number"])) and found["number"] in ((1, 2) if failed else (2,)), n
        prune(folder)
        assert all(name.startswith("step_") for name in os.listdir(folder)), n
        IO.save_checkpoint(small(3), folder / path)
        assert IO.load_checkpoint(folder / path)["number"] == 3
        if not faults.hit:
            break
    assert 10 < n < 199


@pytest.mark.parametrize("kind", ["error", "crash"])
def test_fault_at_any_call_of_a_rotation_keeps_the_newest(tmp_path, monkeypatch, kind):
    for n in range(1, 200):
        folder = tmp_path / str(n)
        for step in range(4):
            IO.save_checkpoint(small(step), folder / step_name(step))
        with monkeypatch.context() as patch:
            faults = save_faults(patch, kind, n)
            try:
                prune(folder)
            except (OSError, Crash):
                assert faults.hit
        # also those on their way out: one half deleted would be called damaged
        for path in folder.glob("step_*"):
            verify(path)
        assert {step_name(2), step_name(3)} <= set(os.listdir(folder))
        prune(folder)
        assert sorted(os.listdir(folder)) == [step_name(2), step_name(3)]
        if not faults.hit:
            break
    assert 8 < n < 199


def test_bytes_are_synced_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    events, names = [], {}

    def record_sync(fd: int) -> None:
        events.append(("sync", os.fstat(fd).st_ino, os.fstat(fd).st_size))

    def record_rename(source, target, call=os.rename) -> None:
        names.update({path.stat().st_ino: path.stat().st_size for path in [source, *source.iterdir()]})
        events.append(("rename", 0, 0))
        call(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "rename", record_rename)
    IO.save_checkpoint(small(1), tmp_path / step_name(1))
    moment = events.index(("rename", 0, 0))
    assert {("sync", *pair) for pair in names.items()} <= set(events[:moment]) and len(names) == 5
    assert tmp_path.stat().st_ino in {inode for _, inode, _ in events[moment:]}


KILLED = """
import os, sys, time
import torch
from pathlib import Path
from trainers.run_folder.checkpoint import load_checkpoint, newest, prune, save_checkpoint
from trainers.run_folder.paths import step_name

torch.set_num_threads(1)
os.fsync = lambda fd: None  # a killed process leaves its pages behind
folder, last = Path(sys.argv[1]), -1
for trial in range(10):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        for step in range(last + 1, 10**9):
            tree = {"step": step, "state_dict": {"w": torch.full((1000,), float(step))}}
            save_checkpoint(tree, folder / step_name(step))
            save_checkpoint({"step": step}, folder / "last")
            os.write(write, b"x")
            prune(folder)
    os.read(read, 1)
    time.sleep(0.003 + 0.0071 * trial)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    found = load_checkpoint(newest(folder))
    assert found["step"] > last and (found["state_dict"]["w"] == found["step"]).all()
    assert found["step"] - load_checkpoint(folder / "last")["step"] in (0, 1)
    last = found["step"]
prune(folder)
assert len(os.listdir(folder)) == 3, os.listdir(folder)
print("survived")
"""


def test_survives_being_killed(tmp_path):
    command = [sys.executable, "-W", "error::UserWarning:trainers", "-c", textwrap.dedent(KILLED), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert done.stdout == "survived\n", done.stderr


class Line(pl.LightningModule):
    """The smallest thing that Lightning trains."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore")
def test_lightning_saves_and_resumes_through_it(tmp_path):
    data = torch.utils.data.DataLoader(torch.ones(8, 2), batch_size=2)

    def trainer(steps: int, **kwargs) -> pl.Trainer:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        return pl.Trainer(max_steps=steps, accelerator="cpu", plugins=[IO], **quiet, **kwargs)

    pl.seed_everything(0)
    whole, begun, resumed = Line(), Line(), Line()
    begun.load_state_dict(whole.state_dict())
    trainer(9, enable_checkpointing=False).fit(whole, data)
    saver = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=1, save_last=True, save_top_k=2, monitor="step")
    trainer(5, callbacks=[saver]).fit(begun, data)
    assert len(list(tmp_path.glob("*.ckpt"))) == 3
    trainer(9, enable_checkpointing=False).fit(resumed, data, ckpt_path=tmp_path / "last.ckpt")
    assert same(whole.state_dict(), dict(resumed.state_dict()))


def test_ordered_dicts_become_dicts(tmp_path):
    assert type(round_trip({"x": OrderedDict(a=1)}, tmp_path)["x"]) is dict
