"""Recorded updates and plans do to the bit what plain ones do; the recorder is one that needs no GPU."""

import copy

import pytest
import torch

from tests.conftest import DYNAMICS, OBJECTIVES
from tests.rigs.recorded_operations import OperationRecorder
from trainers import fit
from trainers.benchmarks.shared.timing import without_trainer
from trainers.build.agent import build_agent
from trainers.build.check_parts import fit_options
from trainers.command.configuration import load_config
from trainers.training.graphed_gradients import record_graphs
from trainers.training.module import WorldModelModule
from worldmodel.agents.graphed_world import GraphedWorld
from worldmodel.agents.while_unchanged import WhileUnchanged
from worldmodel.cuda_graphs import MOST_SHAPES, PLAIN_CALLS, Graphed
from worldmodel.errors import BadValue
from worldmodel.interfaces import Batch
from worldmodel.spec import EnvSpec

SPEC = EnvSpec("toy_point", images={"pixels": (3, 16, 16)}, action_dim=2, action_repeat=1, episode_steps=50)
UPDATES = PLAIN_CALLS + 3


def module_of(*overrides):
    overrides = ["experiment=smoke", *overrides]
    config = fit_options(load_config(overrides), overrides)
    torch.manual_seed(0)
    module = WorldModelModule.of(config, build_agent(config, SPEC))
    without_trainer(module)
    module.count_rows(1000)
    return module


def batches(count, B=4, T=8):
    for k in range(count):
        first, last, terminal = torch.zeros(3, B, T, dtype=torch.bool)
        first[:, 0] = first[k % B, k % T] = True  # episodes begin elsewhere in every batch
        pixels = torch.randint(0, 256, (B, T, 3, 16, 16), dtype=torch.uint8)
        windows = torch.randint(0, 50, (B, 3))
        yield Batch({"pixels": pixels}, torch.rand(B, T, 2) * 2 - 1, torch.rand(B, T), first, last, terminal, windows)


def learn(module, precision):
    """The errors of some updates, with the casts of a recording: none is kept from one product to the next."""
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
        return [module.training_step(batch, 0)["error"] for batch in batches(UPDATES)]


def same(a, b):
    return torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))


def require_same_learning(*overrides, precision):
    plain, recorded = module_of(*overrides), module_of(*overrides)
    recorder = OperationRecorder(recorded)
    record_graphs(recorded, recorder)
    errors = zip(learn(plain, precision), learn(recorded, precision), strict=True)
    assert all(same(a, b) for a, b in errors)
    assert (recorder.recordings, recorder.replays) == (1, 3)
    state = recorded.state_dict()
    assert [name for name, rows in plain.state_dict().items() if not same(rows, state[name])] == []
    assert plain.drain_metrics() == recorded.drain_metrics()


@pytest.mark.parametrize(("choice", "precision"), [("dynamics=rssm_gaussian", "bf16"), ("dynamics=laplace", "float32")])
def test_recorded_updates_are_plain_ones_to_the_bit(choice, precision):
    require_same_learning(choice, precision=precision)


MODELS = [*(f"dynamics={name}" for name in DYNAMICS), *(f"objective={name}" for name in OBJECTIVES)]
POLICIES = [f"policy={name}" for name in ("none", "backprop_rewards", "score_function", "mixed")]
OTHERS = ["agent.heads.name=two_hot", "agent.heads.name=laplace", "agent.random_shift=2", "agent.continuation=true"]


@pytest.mark.slow
@pytest.mark.parametrize("choice", [*MODELS, *POLICIES, *OTHERS])
def test_any_model_and_every_steady_policy_can_be_recorded(choice):
    require_same_learning(choice, precision="float32")


@pytest.mark.parametrize("policy", ["distil", "divide_and_conquer", "dyna", "dyna_q", "gps", "mdgps"])
def test_a_policy_that_does_something_else_every_few_updates_is_refused(policy):
    with pytest.raises(BadValue, match=r"trainer\.cuda_graphs: expected a policy whose updates are all alike, got "):
        record_graphs(module_of(f"policy={policy}"), OperationRecorder(torch.nn.Module()))


def test_a_recording_does_not_outlive_what_it_reads_and_follows_the_weights():
    module = module_of()
    agent = module.agent.eval()
    recorder = OperationRecorder(module)
    record_graphs(module, recorder)
    latent, warm = torch.randn(2, agent.dynamics.latent_dim), torch.full((2, agent.planner.horizon, 2), torch.nan)
    for step in range(3):
        with torch.no_grad():
            for weight in agent.parameters():
                weight += 0.1 * step * torch.randn_like(weight)
        plain = copy.deepcopy(agent)
        assert isinstance(plain.world, WhileUnchanged)
        for _ in range(PLAIN_CALLS + 1):
            plans = []
            for one in (agent, plain):
                with torch.inference_mode():
                    plans.append(one.plan(latent, warm, torch.Generator().manual_seed(step)))
            assert torch.equal(plans[0].mean, plans[1].mean) and torch.equal(plans[0].value, plans[1].value)
    assert isinstance(agent.world, GraphedWorld) and recorder.replays > 2 * recorder.recordings > 0


def test_every_shape_has_a_recording_up_to_a_limit_and_results_are_not_overwritten():
    recorder = OperationRecorder(torch.nn.Module())
    double = Graphed(lambda *, x: {"twice": 2 * x}, recorder)
    for size in range(1, MOST_SHAPES + 3):
        results = [double(x=torch.full((size,), float(k)))["twice"] for k in range(PLAIN_CALLS + 2)]
        assert [rows.tolist() for rows in results] == [[2.0 * k] * size for k in range(PLAIN_CALLS + 2)]
    assert (recorder.recordings, recorder.replays) == (MOST_SHAPES, 2 * MOST_SHAPES)


def test_graphs_need_a_gpu(refused):
    line = refused(fit.main, "experiment=smoke", "trainer.cuda_graphs=true", "trainer.accelerator=cpu")
    assert line == "BadConfig: trainer.cuda_graphs: expected a run on one GPU, got 1 on cpu"
