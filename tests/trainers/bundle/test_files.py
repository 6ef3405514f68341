import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from tests.rigs.tiny_bundle import tiny_bundle
from trainers.bundle.bundle import read_bundle
from trainers.bundle.files import MANIFEST, BundleDamaged, BundleExists, require_free, write_files
from worldmodel.errors import UserError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "b")


def test_what_is_read_is_what_was_written(bundle):
    first, second = read_bundle(bundle), read_bundle(str(bundle))
    assert first.sha256 == second.sha256 and first.what == "both"
    agent = first.build()
    assert agent.decoder is None and not agent.training
    torch.testing.assert_close(agent.state_dict(), second.build().state_dict(), rtol=0, atol=0)
    described = json.loads((bundle / "agent.json").read_text())
    assert described["normalisers"]["pixels"]["std"] == 1.0


def test_a_bundle_is_found_again_from_another_folder(tmp_path, monkeypatch):
    tiny_bundle(tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    bundle = read_bundle("b")
    monkeypatch.chdir("/")
    assert read_bundle(bundle.folder).sha256 == bundle.sha256


def test_every_flipped_bit_is_refused(bundle, tmp_path):
    rng = random.Random(0)
    for path in sorted(p for p in bundle.rglob("*") if p.is_file()):
        for _ in range(20):
            copy = tmp_path / "copy"
            shutil.copytree(bundle, copy)
            content = bytearray((copy / path.name).read_bytes())
            place = rng.randrange(len(content))
            content[place] ^= 1 << rng.randrange(8)
            (copy / path.name).write_bytes(content)
            with pytest.raises(UserError):
                read_bundle(copy)
            shutil.rmtree(copy)


def test_missing_surplus_cut_and_linked_files_are_refused(bundle, tmp_path):
    def damaged(change, message):
        copy = tmp_path / "copy"
        shutil.copytree(bundle, copy)
        change(copy)
        with pytest.raises(BundleDamaged, match=message):
            read_bundle(copy)
        shutil.rmtree(copy)

    damaged(lambda d: (d / "model.safetensors").unlink(), r"model\.safetensors: No such file")
    damaged(lambda d: (d / MANIFEST).unlink(), r"manifest\.json: No such file")
    damaged(lambda d: (d / "evil.py").write_text("import os"), r"only the files of its manifest, got evil\.py too")
    damaged(lambda d: (d / "agent.json").write_bytes(b""), r"agent\.json: expected \d+ bytes, got 0")

    def link(folder):
        (folder / "agent.json").rename(tmp_path / "elsewhere.json")
        (folder / "agent.json").symlink_to(tmp_path / "elsewhere.json")

    damaged(link, "expected a file, got a link")
    with pytest.raises(BundleDamaged, match="bundle: expected a folder"):
        read_bundle(tmp_path / "no")


def test_names_cannot_leave_the_folder(bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["files"]["../outside"] = manifest["files"]["agent.json"]
    (copy / MANIFEST).write_text(json.dumps(manifest, sort_keys=True, indent=1))
    shutil.copy(copy / "agent.json", tmp_path / "outside")
    with pytest.raises(BundleDamaged, match="names within the bundle"):
        read_bundle(copy)


def test_nothing_is_overwritten_and_nothing_half_written_remains(bundle, tmp_path, monkeypatch):
    with pytest.raises(BundleExists, match="out: expected a folder that does not exist yet"):
        write_files(bundle, {})
    monkeypatch.setattr("trainers.bundle.files.sync", lambda path: (_ for _ in ()).throw(OSError(5, "disk")))
    with pytest.raises(OSError, match="disk"):
        write_files(tmp_path / "new", {"agent.json": b"{}"})
    assert list(tmp_path.iterdir()) == []


def test_the_present_folder_is_not_replaced_and_a_link_to_an_empty_one_is_followed(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(BundleExists, match=r"out: expected a folder that does not exist yet, got \."):
        require_free(Path())
    monkeypatch.chdir(tmp_path)
    folder = tiny_bundle(tmp_path / "link")
    assert folder.is_symlink() and read_bundle(folder).sha256 == read_bundle(tmp_path / "empty").sha256


def test_no_name_in_a_bundle_can_load_code(tmp_path):
    from tests.rigs.tiny_bundle import tiny_config
    from trainers.bundle.bundle import as_json
    from trainers.bundle.files import AGENT, read_files

    files, _ = read_files(tiny_bundle(tmp_path / "b"))
    described = json.loads(files.pop(AGENT))
    for name in ("os", "../os", "tests.rigs.adversary"):
        described["config"] = {"format": 3, **tiny_config(), "planner": {"name": name}}
        folder = tmp_path / f"b{len(list(tmp_path.iterdir()))}"
        write_files(folder, {**files, AGENT: as_json(described)})
        with pytest.raises(UserError, match=r"planner\.name: expected one of cem, "):
            read_bundle(folder).build()
