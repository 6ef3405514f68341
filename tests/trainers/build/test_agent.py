import copy
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml

from datamodules.data_module import ENDLESS, WindowDataModule
from tests.conftest import random_batch
from trainers.benchmarks.shared.timing import without_trainer
from trainers.build.agent import build_agent, require_fit
from trainers.build.data import build_data, build_replay
from trainers.command import registry
from trainers.command.configuration import load_config, read_yaml
from trainers.command.preflight import check
from trainers.command.registry import BadOption, UnknownComponent
from trainers.loops.imagined import PolicyModule
from trainers.run_folder.paths import RunFolderInUse, RunPaths
from trainers.training.loop import TrainingLoop
from trainers.training.module import NonFiniteTraining, WorldModelModule
from worldmodel.interfaces import Batch
from worldmodel.parts import module_names
from worldmodel.spec import EnvSpec

SMALL = [f"dynamics.filter.{key}=8" for key in ("deterministic", "stochastic", "hidden")]
BAYESIAN = ("laplace", "variational")
SPEC = EnvSpec("toy_point", images={"pixels": (3, 16, 16)}, action_dim=2, action_repeat=1, episode_steps=50)


@pytest.fixture(scope="module")
def config():
    return load_config(["experiment=smoke"])


def batch(B=4, T=8):
    flags = torch.zeros(B, T, dtype=torch.bool)
    first = flags.clone()
    first[:, 0] = True
    pixels = torch.randint(0, 256, (B, T, 3, 16, 16), dtype=torch.uint8)
    return Batch({"pixels": pixels}, torch.rand(B, T, 2) * 2 - 1, torch.rand(B, T), first, flags, flags)


def module_of(config, **options):
    module = WorldModelModule.of(config, build_agent(config, SPEC))
    for name, value in options.items():
        setattr(module, name, value)
    without_trainer(module)
    return module


@pytest.mark.parametrize(("size", "parameters"), [("cpu", 0.92e6), ("small", 6.9e6), ("base", 30.6e6)])
def test_sizes_have_the_parameters_that_their_files_name(size, parameters):
    spec = replace(SPEC, images={"pixels": (3, 64, 64)}, action_dim=6, terminates=False)
    agent = build_agent(load_config([f"size={size}", "task=walker_walk"]), spec)
    trained = (weight for group in agent.parameter_groups().values() for weight in group)
    assert sum(weight.numel() for weight in trained) == pytest.approx(parameters, rel=0.02)


def test_experiments_override_sizes_and_the_command_line_both():
    config = load_config(["size=base", "experiment=suite_pixels", "task=cartpole_swingup", "policy.starts=64"])
    assert config["task"]["env"]["action_repeat"] == 2 and config["data"]["update_ratio"] == 1.0
    assert (config["policy"]["starts"], config["policy"]["horizon"]) == (64, 15)
    assert load_config(["size=base", "experiment=toy"])["data"]["batch"] == 16
    assert load_config([]) == load_config(["size=cpu"])


@pytest.mark.parametrize(
    ("terminates", "chosen", "learned"),
    [
        *[(True, "auto", True), (False, "auto", False), (None, "auto", True)],
        *[(True, False, False), (False, True, True)],
    ],
)
def test_where_episodes_can_end_a_head_learns_it_and_nothing_else_changes(config, terminates, chosen, learned):
    built = []
    for choice, ends in ((chosen, terminates), (False, False)):
        torch.manual_seed(0)
        options = config["agent"] | {"continuation": choice}
        built.append(build_agent({**config, "agent": options}, replace(SPEC, terminates=ends)))
    agent, plain = built
    assert (agent.continuation is not None) is learned and plain.continuation is None
    weights = agent.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in plain.state_dict().items())
    names = {name.partition(".")[0] for name in weights.keys() - plain.state_dict().keys()}
    assert names == ({"continuation"} if learned else set())


def test_a_word_that_says_nothing_of_continuation_is_refused(config):
    with pytest.raises(ValueError, match=r"agent.continuation: expected auto, true or false, got 'maybe'"):
        build_agent({**config, "agent": {**config["agent"], "continuation": "maybe"}}, SPEC)


def test_one_update_trains_every_group(config):
    module = module_of(config)
    before = {name: weight.clone() for name, weight in module.named_parameters()}
    for _ in range(3):  # an output layer that starts at zero passes nothing on at first
        module.training_step(batch(), 0)
    changed = {name for name, weight in module.named_parameters() if not torch.equal(weight, before[name])}
    trained = {name for name, weight in module.named_parameters() if weight.requires_grad}
    assert changed >= trained and module.updates == 3 and module.skipped == 0
    metrics = module.drain_metrics()
    assert {"loss/image", "loss/reward", "loss/kl", "grad_norm/model", "grad_norm/actor"} <= metrics.keys()
    assert module.drain_metrics() == {}


def test_posteriors_count_the_rows_that_they_are_told():
    modules = [module_of(load_config(["experiment=smoke", f"dynamics={name}", *SMALL])) for name in BAYESIAN]
    modules.append(module_of(load_config(["experiment=smoke", "agent.heads.name=laplace"])))
    weights = []
    for rows in (100, 10_000):
        for module in modules:
            module.count_rows(rows)
            torch.manual_seed(3)
            module.training_step(batch(), 0)
        metrics = [module.drain_metrics() for module in modules]
        assert all(found["model/disagreement"] > 0 and "model/entropy" in found for found in metrics[:2])
        weights.append([metrics[0]["model/disagreement"], metrics[1]["loss/kl"], metrics[2]["reward/epistemic"]])
    assert all(few > 1.2 * many for few, many in zip(*weights, strict=True)), weights


def test_before_every_update_the_model_is_told_how_many_rows_there_are():
    module = module_of(load_config(["experiment=smoke", "dynamics=laplace", *SMALL, "agent.heads.name=laplace"]))
    run = SimpleNamespace(progress=SimpleNamespace(update=lambda **_: None))
    data = SimpleNamespace(next_batch=lambda: "a batch", prepare=lambda: None)
    loop = SimpleNamespace(run=run, data=data, module=module, updates_due=1, rows_to_learn_from=lambda: 77)
    loop.stop_if_asked = lambda: None
    loop.ranks = SimpleNamespace(due=lambda: False, keep=lambda batch: None)
    assert next(TrainingLoop.learn(loop)) == "a batch"
    assert module.agent.dynamics.posterior.rows == module.agent.reward.posterior.rows == 77


def test_a_model_that_is_imagined_with_keeps_the_count_of_its_own_rows():
    agent = build_agent(load_config(["experiment=smoke", "agent.heads.name=laplace"]), SPEC)
    agent.reward.count_rows(500)
    PolicyModule(agent, learning_rates={"actor": 1e-3, "value": 1e-3}).count_rows(7)
    assert agent.reward.posterior.rows == 500


def test_metrics_are_means_over_updates(config):
    module = module_of(config)
    singles = []
    for _ in range(3):
        module.training_step(batch(), 0)
        state = {name: float(value) for name, value in module._sums.items()}
        singles.append(state["loss/image"])
    assert module.drain_metrics()["loss/image"] == pytest.approx(singles[-1] / 3)


@pytest.mark.parametrize(
    "overrides",
    [
        ["objective=slow_consistency", "objective.rate=0.3"],
        ["objective=overshooting"],
        ["dynamics=laplace", *SMALL],
        ["dynamics=variational", *SMALL],
        ["policy=backprop_rewards", "policy.horizon=3", "policy.clip=1.0"],
        ["policy=score_function", "policy.horizon=3"],
        ["policy=mixed", "policy.horizon=3"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_what_is_restored_goes_on_exactly(overrides):
    config = load_config(["experiment=smoke", *overrides])
    module = module_of(config)
    module.count_rows(50)
    module.training_step(batch(), 0)
    saved = copy.deepcopy((module.state_dict(), module.optimizers().state_dict()))
    rows, restored = batch(), module_of(config)
    restored.load_state_dict(saved[0])
    restored.optimizers().load_state_dict(saved[1])
    restored.on_train_start()
    for one in (module, restored):
        one.count_rows(60)
        torch.manual_seed(3)
        one.training_step(rows, 0)
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, restored.state_dict()[name]), name


def test_a_configuration_of_the_past_reconstructs(config, tmp_path):
    past = {key: value for key, value in config.items() if key != "objective"}
    past["agent"] = {**config["agent"], "decode_fraction": 0.5}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(past))
    agent = build_agent(read_yaml(tmp_path / "config.yaml"), SPEC)
    assert agent.decoder is not None and agent.objective.decode_fraction == 0.5


def test_gradients_that_are_not_finite_change_nothing(config):
    module = module_of(config, patience=3)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    bad = batch()
    bad.reward[0, 3] = torch.inf
    for _ in range(2):
        module.training_step(bad, 0)
    assert module.skipped == 2
    weights = dict(module.named_parameters())
    assert all(torch.equal(weights[name], before[name]) for name in weights)
    # a good one in between starts the count again
    module.training_step(batch(), 0)
    for _ in range(2):
        module.training_step(bad, 0)
    with pytest.raises(NonFiniteTraining, match="3 updates in a row"):
        module.training_step(bad, 0)
    # with lower rates, say, such a run may go on
    saved: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(saved)
    resumed = module_of(config, patience=3)
    resumed.on_load_checkpoint(saved)
    resumed.drain_metrics()
    resumed.training_step(batch(), 0)
    assert resumed.skipped == module.skipped == 5


def test_moments_from_a_checkpoint_take_the_layout_of_their_weights(config):
    """Fused Adam walks through memory: moments in another order would be paired with the wrong weights."""
    module, twin = module_of(config), module_of(config)
    twin.load_state_dict(module.state_dict())
    module.training_step(batch(), 0)
    twin.load_state_dict(module.state_dict())
    saved = copy.deepcopy(module.optimizers().state_dict())
    for state in saved["state"].values():
        for name, moment in state.items():
            state[name] = moment.contiguous().clone(memory_format=torch.contiguous_format)
    twin.optimizers().load_state_dict(saved)
    twin.on_train_start()
    strides = {weight.stride() for weight in module.parameters() if weight.dim() == 4}
    assert any(stride[1] == 1 for stride in strides), "no channels_last weight: the test shows nothing"
    for weight, state in twin.optimizers().state.items():
        assert state["exp_avg"].stride() == weight.stride()
    data = batch()
    torch.manual_seed(5)
    module.training_step(data, 0)
    torch.manual_seed(5)
    twin.training_step(data, 0)
    for (name, ours), theirs in zip(module.state_dict().items(), twin.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_weights_must_fit():
    mine = {"a": torch.zeros(2, 3), "b": torch.zeros(1)}
    require_fit(mine, {"b": torch.ones(1), "a": torch.ones(2, 3)})
    with pytest.raises(ValueError, match=r"checkpoint: a: expected \(2, 3\), got \(3, 2\)"):
        require_fit(mine, {"a": torch.zeros(3, 2), "b": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"missing \['b'\], surplus \['c'\]"):
        require_fit(mine, {"a": torch.zeros(2, 3), "c": torch.zeros(1)})


def test_an_agent_without_policy_plans_on_rewards_alone():
    config = load_config(["experiment=smoke", "policy=none"])
    agent = build_agent(config, SPEC)
    assert agent.policy is None and agent.planner.policy_candidates == 0
    assert set(agent.parameter_groups()) == {"model"}


def test_replay_is_shared_out_over_the_ranks(config, tmp_path):
    replay = build_replay(config, SPEC, RunPaths(tmp_path), rank=1, world_size=4)
    assert replay.capacity == 500 and (tmp_path / "replay" / "rank_01" / "replay.json").exists()
    replay.close()
    with pytest.raises(ValueError, match=r"data\.capacity: expected at least 2040 rows"):
        build_replay(config, SPEC, RunPaths(tmp_path), rank=0, world_size=20)


def test_a_batch_is_shared_out_over_the_ranks(config, tmp_path):
    replay = build_replay(config, SPEC, RunPaths(tmp_path), rank=0, world_size=1)
    assert build_data(config, replay, world_size=2).batch == 2
    with pytest.raises(ValueError, match=r"data\.batch: expected a multiple of 3 ranks, got 4"):
        build_data(config, replay, world_size=3)
    replay.close()


def test_batches_are_drawn_when_they_are_asked_for():
    drawn, batches = [], [random_batch(2, 3) for _ in range(3)]

    class Source:
        def sample(self, batch, length):
            drawn.append((batch, length))
            return batches[len(drawn) - 1]

        def count_rows(self, length):
            raise AssertionError

        feedback = cursor = rewind = count_rows

    data = WindowDataModule(Source(), batch=2, length=3)
    loader = data.train_dataloader()
    windows = iter(loader)
    assert drawn == [] and next(windows) is batches[0] and drawn == [(2, 3)] and next(windows) is batches[1]
    assert next(iter(loader)) is batches[2]  # a new epoch of Lightning's goes on
    # Lightning adds the lengths of all ranks up in 64 bits
    assert len(loader) == ENDLESS and ENDLESS * 4096 < 2**63
    for wrong, name in (({"batch": 0, "length": 3}, "data.batch"), ({"batch": 1, "length": 1}, "data.length")):
        with pytest.raises(ValueError, match=name):
            WindowDataModule(Source(), **wrong)


def test_a_name_cannot_leave_its_folder():
    assert {"cem"} <= set(module_names("worldmodel.planners"))
    for name in ("os", "..agents.latent_mpc", "worldmodel.planners.cem", "cemm"):
        with pytest.raises(UnknownComponent, match=rf"name: expected one of cem, .*got {name!r}"):
            registry.make("worldmodel.planners", {"name": name})
    with pytest.raises(UnknownComponent, match="horizonn"):
        registry.make("worldmodel.planners", {"name": "cem", "horizonn": 3})


def test_one_process_at_a_time_in_a_folder(tmp_path):
    paths = RunPaths(tmp_path / "a" / "b")
    paths.create()
    paths.create()
    handle = paths.lock()
    with pytest.raises(RunFolderInUse):
        paths.lock()
    os.close(handle)
    os.close(paths.lock())


def test_a_component_takes_its_name_alone_and_refuses_text_for_numbers() -> None:
    sampler = registry.make("datamodules.samplers", "recent", seed=3)
    assert sampler.share == registry.make("datamodules.samplers", {"name": "recent"}, seed=3).share
    with pytest.raises(BadOption, match=r"data.sampler.alpha: expected a number such as 0.4, got 'abc'"):
        registry.make("datamodules.samplers", {"name": "prioritised", "alpha": "abc"}, key="data.sampler", seed=3)
    with pytest.raises(BadOption, match=r"data.sampler.alpha: expected a number such as 0.4, got True"):
        registry.make("datamodules.samplers", {"name": "prioritised", "alpha": True}, key="data.sampler", seed=3)
    with pytest.raises(
        UnknownComponent, match=r"samplers\.shre: no option of datamodules\.samplers=recent, did you mean share\?$"
    ):
        registry.make("datamodules.samplers", {"name": "recent", "shre": 0.5}, seed=3)


def test_dynamics_need_name_neither_their_unrolling_nor_the_weight_of_a_kl() -> None:
    chosen = ["experiment=small", "task=toy_point", "policy=none", "dynamics=gaussian"]
    config = load_config([*chosen, "~dynamics.unroll", "~dynamics.kl", "+agent.weights.mine=3.0"])
    check(config)
    agent = build_agent(config, SPEC)
    assert agent.unroll == 0 and agent.weights["kl"] == 0.1 and agent.weights["mine"] == 3.0


def test_a_choice_of_dynamics_sets_the_weight_of_its_kl_and_how_far_it_is_unrolled() -> None:
    chosen = ["experiment=small", "task=toy_point", "policy=none", "dynamics=gaussian"]
    agents = [build_agent(load_config(chosen + more), SPEC) for more in ([], ["agent.weights.kl=0.5"])]
    assert [agent.weights["kl"] for agent in agents] == [0.1, 0.5]
    assert agents[0].unroll == 5


@pytest.mark.parametrize("name", BAYESIAN)
def test_a_posterior_over_the_gaussian_model_trains(name: str) -> None:
    small = [f"dynamics.filter.{key}=8" for key in ("latent_dim", "hidden")]
    module = module_of(load_config(["experiment=smoke", f"dynamics={name}_gaussian", *small]))
    module.training_step(batch(), 0)
    metrics = module.drain_metrics()
    assert module.skipped == 0 and {"loss/unrolled_reward", "loss/kl", "model/disagreement"} <= metrics.keys(), (
        metrics.keys()
    )
    assert module.agent.weights["kl"] == 0.1 and type(module.agent.dynamics.filter).__name__ == "GaussianDynamics"


@pytest.mark.parametrize("name", ["ensemble", *BAYESIAN])
def test_a_filter_refuses_options_that_are_not_its_own(name: str) -> None:
    for wrong, message in {
        "name=gaussian": r"dynamics\.filter\.deterministic: no option of dynamics\.filter=gaussian; it takes latent",
        "hidden=wide": r"dynamics\.filter\.hidden: expected a number such as 200, got 'wide'",
    }.items():
        config = load_config(["experiment=smoke", f"dynamics={name}", f"dynamics.filter.{wrong}"])
        with pytest.raises((UnknownComponent, BadOption), match=message):
            build_agent(config, SPEC)
