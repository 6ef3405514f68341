import json
import shutil
import zipfile

import pytest
import torch
import yaml

from trainers import export, load_agent
from trainers.bundle.bundle import read_bundle
from trainers.bundle.parity import by_onnx, compare
from trainers.bundle.programs import CEMIteration, FilterStep, Program, programs_of, record, to_onnx
from trainers.bundle.recorded_rows import recorded_rows
from trainers.command.configuration import BadConfig
from worldmodel.distributions import standard_normal
from worldmodel.dynamics.stack import stack
from worldmodel.planners.search import Deadline, Problem
from worldmodel.planners.shooting import Proposal, scored
from worldmodel.simulators.survival import survival

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "bundle"
    return export.main(
        [f"checkpoint={finished}", f"out={out}", "hz=10", "frames=30", "safe_action=0", "format=torch"]
    ), out


@pytest.mark.slow
def test_onnx_programs_act_as_the_agent_does(finished, tmp_path):
    results = export.main([f"checkpoint={finished}", f"out={tmp_path / 'b'}", "frames=30"])
    parity = json.loads((tmp_path / "b" / "parity.json").read_text())
    assert results["parity_max"] == parity["parity_max"] <= 1e-4
    assert set(parity["differences"]) == {"torch", "onnx"}
    assert {path.suffix for path in (tmp_path / "b" / "programs").iterdir()} == {".pt2", ".onnx"}


class Applied(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *arguments):
        return self.function(*arguments)


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (survival, {"continues": (4, 5)}),  # of a planner where episodes can end
        (
            lambda embed, carry: stack(embed, carry[:, :1] > 2, carry, count=3)[:2],
            {"embed": (1, 1, 4), "carry": (1, 9)},
        ),
    ],
    ids=["survival", "stack"],
)
def test_operations_of_other_agents_go_to_onnx(function, shapes):
    generator = torch.Generator().manual_seed(0)
    inputs = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    program = Program(Applied(function), inputs, ("one", "other"))
    given = [torch.rand(shape, generator=generator) for shape in shapes.values()]
    for mine, other in zip(program.module(*given), by_onnx(to_onnx(program), program)(*given), strict=True):
        torch.testing.assert_close(mine, other)


def test_the_policy_alone_goes_to_onnx(finished, tmp_path, caplog):
    results = export.main(
        [f"checkpoint={finished}", f"out={tmp_path / 'b'}", "what=policy", "format=onnx", "frames=30"]
    )
    differences = json.loads((tmp_path / "b" / "parity.json").read_text())["differences"]
    assert results["parity_max"] <= 1e-4 and set(differences["onnx"]) == {"filter", "policy"}
    assert "constant folding" not in caplog.text


def test_programs_act_as_the_agent_does(exported):
    results, out = exported
    parity = json.loads((out / "parity.json").read_text())
    assert parity["frames"] == "recorded" and parity["rows"] == 30
    assert results["parity_max"] == parity["parity_max"] <= 1e-4
    assert set(parity["differences"]["torch"]) == {"filter", "policy", "planner_iteration"}
    assert results["eager_ms"] > 0 and results["exported_ms"] > 0
    assert {path.suffix for path in (out / "programs").iterdir()} == {".pt2"}
    assert results["programs"] == [f"programs/{name}.pt2" for name in ("filter", "planner_iteration", "policy")]


def test_the_rebuilt_agent_is_the_run_s(exported, finished):
    bundle, trained = read_bundle(exported[1]), load_agent(finished).agent
    mine, theirs = bundle.build().state_dict(), trained.state_dict()
    assert mine.keys() < theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert bundle.control.hz == 10 and bundle.control.safe_action == (0.0, 0.0)
    assert bundle.sha256 == exported[0]["sha256"]


def test_no_archive_holds_a_pickle(exported):
    for path in (exported[1] / "programs").glob("*.pt2"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                data = archive.read(name)
                assert not data.startswith(b"\x80") and b".pkl" not in data[:200], name


def test_the_filter_step_is_the_agent_s(finished):
    agent = load_agent(finished)
    rows, source = recorded_rows(f"segments:{finished / 'replay'}", agent.spec, count=8)
    assert source == "recorded" and bool(rows[0].is_first)
    step, carry, belief = FilterStep(agent.agent, ("pixels",)), agent.agent.initial_carry(1), None
    for row in rows:
        with torch.no_grad():
            latent, belief = step(
                row.action, row.is_first, carry.belief if belief is None else belief, *row.observation.values()
            )
    together = {"pixels": torch.cat([row.observation["pixels"] for row in rows])[None]}
    with torch.no_grad():
        embed = agent.agent.encoder(agent.agent.norm(together))
        action, first = torch.cat([r.action for r in rows])[None], torch.cat([r.is_first for r in rows])[None]
        whole = agent.agent.dynamics.observe(embed, action, first, carry.belief, sample=False)
    torch.testing.assert_close(whole.latent[:, -1], latent, rtol=1e-4, atol=1e-5)


def test_the_planner_s_iteration_is_the_planner_s(finished):
    agent = load_agent(finished).agent
    planner, world = agent.planner, agent.simulator()
    generator = torch.Generator().manual_seed(3)
    latent = torch.randn(1, agent.dynamics.latent_dim, generator=generator)
    joining = torch.rand(1, 4, planner.horizon, 2, generator=generator) * 2 - 1
    proposal = Proposal(torch.zeros(1, planner.horizon, 2), torch.ones(1, planner.horizon, 2))
    noise = standard_normal(
        1, planner.candidates, planner.horizon, 2, generator=torch.Generator().manual_seed(7), device="cpu"
    )
    with torch.no_grad():
        problem = Problem(
            world, latent, torch.zeros(1, 1), None, torch.Generator().manual_seed(7), 1, Deadline(None, latent.device)
        )
        fresh = scored(problem, planner.sample(proposal, planner.candidates, problem.generator))
        expected = planner.refit(proposal, fresh.joined(scored(problem, joining.clone())))
        mean, std, _ = CEMIteration(agent)(latent, proposal.mean, proposal.std, noise, joining)
    torch.testing.assert_close(mean, expected.mean)
    torch.testing.assert_close(std, expected.std)


@pytest.mark.parametrize("options", [(), ("planner.policy_candidates=0",)])
def test_a_plan_of_exported_iterations_is_the_planner_s(finished, options):
    """Sample, filter out and refit outside, as another runtime would: the planner's own mean."""
    agent = load_agent(finished, overrides=["planner.iterations=3", *options])
    program = programs_of(agent.agent, agent.spec, what="planner")["planner_iteration"]
    iteration, planner, shape = record(program).module(), agent.agent.planner, (1, agent.agent.planner.horizon, 2)
    assert ("joining" in program.inputs) == (not options)
    latent = torch.randn(1, agent.agent.dynamics.latent_dim, generator=torch.Generator().manual_seed(1))
    warm = torch.full(shape, 0.25)
    with torch.no_grad():
        world = agent.agent.simulator()
        plan = planner.plan(world, latent, warm=warm, generator=torch.Generator().manual_seed(2))
        generator = torch.Generator().manual_seed(2)
        problem = Problem(world, latent, torch.zeros(1, 1), None, generator, 3, Deadline(None, latent.device))
        sequences = problem.policy(planner.policy_candidates, planner.horizon)
        mean, std = warm, torch.full(shape, planner.init_std)
        for _ in range(3):
            noise = standard_normal(1, planner.candidates, *shape[1:], generator=generator, device="cpu")
            mean, std, _ = iteration(latent, mean, std, noise, *([] if sequences is None else [sequences]))
    torch.testing.assert_close(mean.clamp(-1, 1), plan.mean)


def test_sequences_of_nan_do_not_join(finished):
    agent = load_agent(finished)
    program = programs_of(agent.agent, agent.spec, what="both")["planner_iteration"]
    latent, mean, std, noise, joining = program.inputs.values()
    alone = CEMIteration(agent.agent)(latent, mean, std, noise)
    call = by_onnx(to_onnx(program), program)
    for got in (record(program).module(), call):
        torch.testing.assert_close(
            got(latent, mean, std, noise, torch.full_like(joining, torch.nan)), alone, rtol=1e-5, atol=1e-5
        )


def test_a_program_that_acts_differently_is_noticed(finished):
    agent = load_agent(finished)
    programs = programs_of(agent.agent, agent.spec, what="both")
    rows, _ = recorded_rows(None, agent.spec, count=5)
    calls = {name: program.module for name, program in programs.items()}
    off = {**calls, "policy": lambda latent: calls["policy"](latent) + 1e-3}
    report = compare(programs, {"eager": calls, "onnx": off}, rows)
    assert report["parity_max"] == pytest.approx(1e-3, rel=0.01)
    assert report["differences"]["onnx"]["filter"] == 0


@pytest.mark.parametrize(("form", "exporter", "other"), [("torch", "record", "onnx"), ("onnx", "to_onnx", "torch")])
def test_parts_without_a_form_name_the_format(finished, tmp_path, monkeypatch, form, exporter, other):
    def refuse(program):
        raise RuntimeError("no translation\n  for aten.mine")

    monkeypatch.setattr(f"trainers.bundle.export.{exporter}", refuse)
    with pytest.raises(BadConfig, match=rf"format: .* {form} can .* for aten.mine; format={other}, or none, leaves"):
        export.main([f"checkpoint={finished}", f"out={tmp_path / 'b'}", f"format={form}", "frames=5"])
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("format=tensorrt", "format: expected some of torch, onnx"),
        ("what=all", "what: expected one of planner, policy, both"),
        ("hz=fast", "hz: expected a finite number"),
        ("hz=0", "hz: expected a finite number above 0"),
        ("faults=0", r"limits\.faults: expected a whole number of at least 1"),
        ("max_change=1,2,3", "max_change: expected 2 finite numbers"),
        ("frames=0", "frames: expected a whole number"),
        ("policy=none what=policy", "what: expected planner"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(finished, tmp_path, argument, message):
    with pytest.raises((BadConfig, ValueError), match=message):
        export.main([f"checkpoint={finished}", f"out={tmp_path / 'b'}", *argument.split()])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("own", "what"), [([], "both"), (["agent.act_with=actor"], "policy"), (["policy=none"], None)])
def test_what_acts_in_the_run_is_exported(finished, tmp_path, own, what):
    arguments = [f"checkpoint={finished}", f"out={tmp_path / 'b'}", "format=none", "alarm_rows=0", *own]
    if what is None:
        with pytest.raises(BadConfig, match="what: expected planner, since the run learned no policy, got policy"):
            export.main([*arguments, "what=policy"])
        return
    assert export.main(arguments)["what"] == what == read_bundle(tmp_path / "b").what


def test_a_run_whose_recordings_are_elsewhere_is_exported(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    shutil.rmtree(run / "replay")
    config["data"] = {"name": "offline", "uri": f"npz:{tmp_path}/gone"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    results = export.main([f"checkpoint={run}", f"out={tmp_path / 'b'}", "format=none"])
    assert results["false_alarm_rate"] is None and read_bundle(tmp_path / "b").what == "both"
    with pytest.raises(BadConfig, match="data: no such file"):
        export.main([f"checkpoint={run}", f"out={tmp_path / 'c'}", "format=none", f"data=npz:{tmp_path}/gone"])


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_exported(finished, monkeypatch):
    monkeypatch.setattr("trainers.bundle.export._slim", lambda *_: pytest.fail("too late"))
    with pytest.raises(BadConfig, match="out: expected a folder that can be written, got /dev/null"):
        export.main([f"checkpoint={finished}", "out=/dev/null/bundle", "format=none"])
