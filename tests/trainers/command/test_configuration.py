import re
from functools import partial

import pytest

from trainers import evaluate, fit
from trainers.build.agent import build_agent
from trainers.build.check_parts import fit_options
from trainers.command import configuration
from trainers.command.configuration import (
    CONFIGS,
    TASK_KINDS,
    BadConfig,
    differences,
    groups,
    load_config,
    override_saved,
    task_names,
)
from trainers.command.preflight import check
from trainers.training.module import WorldModelModule
from worldmodel.spec import EnvSpec

# some files are templates, not choices, and parts of the tests are not shipped
CHOICES = [
    (group, name)
    for group, names in groups().items()
    for name in names
    if name not in TASK_KINDS and (CONFIGS / group / f"{name}.yaml").exists()
]


STATES = ["agent=state_mpc", "objective=none", "dynamics=state_mlp", "policy=none"]


def overrides_of(group, name):
    # an experiment may be written for the small frames of the toy task
    needed = {
        "data=offline": ["data.uri=x"],
        "data=imagined": ["data.model=x"],
        "task=none": ["data=offline", "data.uri=x"],
        "agent=state_mpc": STATES,
        "objective=none": STATES,
        "planner=confidence": ["agent.heads.name=laplace"],
        "planner=ensemble": ["dynamics=ensemble"],
        **{
            f"dynamics={name}": ["agent=state_mpc", "objective=none", "policy=none"]
            for name in ("state_mlp", "state_linear")
        },
    }
    return [f"{group}={name}", *needed.get(f"{group}={name}", [])]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_shipped_file_composes_and_its_agent_is_built(group, name):
    config = fit_options(load_config(overrides_of(group, name)), overrides_of(group, name))
    check(config)
    size = config["task"]["env"].get("size", 64)
    repeat = config["task"]["env"].get("action_repeat", 1)
    kinds = {"images": {"pixels": (3, size, size)}}
    if config["task"]["env"].get("observe") == "state" or config["agent"]["vector_norm"] == "as_is":
        kinds = {"images": {}, "vectors": {"position": 3, "velocity": 2}}
    spec = EnvSpec("x", action_dim=1, action_repeat=repeat, episode_steps=1000, **kinds)
    agent = build_agent(config, spec)
    module = WorldModelModule.of(config, agent)
    rates = {group["lr"] for group in module.configure_optimizers().param_groups}
    assert rates <= set(config["optimizer"]["learning_rates"].values())


@pytest.mark.parametrize("dynamics", ["rssm_gaussian", "gaussian"])
@pytest.mark.parametrize("planner", ["confidence", "ensemble"])
def test_a_planner_that_the_model_does_not_serve_is_refused_with_the_agent(planner, dynamics):
    spec = EnvSpec("x", images={"pixels": (3, 64, 64)}, action_dim=2, action_repeat=1, episode_steps=100)
    with pytest.raises(ValueError, match=rf"planner={planner}: expected .*=.*laplace.*, got"):
        build_agent(load_config([f"planner={planner}", f"dynamics={dynamics}"]), spec)


def test_particles_must_be_shared_out_evenly():
    spec = EnvSpec("x", images={"pixels": (3, 64, 64)}, action_dim=2, action_repeat=1, episode_steps=100)
    with pytest.raises(ValueError, match=r"planner\.particles: expected a multiple of dynamics\.members=5, got 7"):
        build_agent(load_config(["planner=ensemble", "dynamics=ensemble", "planner.particles=7"]), spec)


@pytest.mark.parametrize("name", ["overshooting", "latent_consistency"])
def test_an_objective_looks_ahead_within_a_window(name):
    for kind, steps in (("online", 9), ("imagined", 10)):
        check(
            load_config(
                [f"objective={name}", f"objective.steps={steps}", f"data={kind}", "data.length=10"]
                + (["data.model=x"] if kind == "imagined" else [])
            )
        )
    with pytest.raises(BadConfig, match=r"objective\.steps: expected less than data\.length=10 rows, got 10"):
        check(load_config([f"objective={name}", "objective.steps=10", "data.length=10"]))


def test_unrolling_must_fit_into_a_window():
    check(load_config(["agent.unroll=9", "data.length=10"]))
    with pytest.raises(BadConfig, match=r"agent\.unroll: expected less than data\.length=10 rows, got 10"):
        check(load_config(["agent.unroll=10", "data.length=10"]))


@pytest.mark.parametrize("kind", TASK_KINDS)
@pytest.mark.parametrize("which", ["CartPole-v1", "ALE/Pong-v5", "package.module:function", "module:Env-v0"])
def test_a_kind_of_task_with_which(kind, which):
    config = load_config([f"task={kind}:{which}"])
    assert config["task"] == load_config([f"task={kind}", f"task.env.task={which}"])["task"]
    assert (config["task"]["source"], config["task"]["name"], config["task"]["env"]["task"]) == (kind, which, which)
    saved = override_saved(load_config([]), [f"task={kind}:{which}"])
    assert saved["task"] == config["task"]


def test_constructor_arguments_need_no_plus():
    config = load_config(["task=gym:CartPole-v1", "task.env.kwargs.sutton_barto_reward=true"])
    assert config["task"]["env"]["kwargs"] == {"sutton_barto_reward": True}


@pytest.mark.parametrize("name", ["walker_walk", "humanoid_CMU_run", "cartpole_swingup_sparse"])
def test_suite_tasks_without_a_file(name):
    assert name in task_names()
    config = load_config([f"task={name}", "render=fast"])
    assert config["task"]["name"] == config["task"]["env"]["task"] == name
    assert config["task"]["env"]["look"] == "fast"


def test_near_names():
    cases = {
        "task=walker_wlak": "walker_walk",
        "task=cartpole-swingup": "cartpole_swingup",
        "planner=planett": "planet",
        "policy=bakprop": "backprop",
        "experiment=smok": "smoke",
        "logger=wand": "wandb",
        "data.bacth=3": "data.batch",
        "planner.horizn=3": "planner.horizon",
        "env_steps=3": "task.env_steps",
        "data=5": "online",
        "out=x": "run_dir",
        "devices=2": "trainer.devices",
        "batch_size=8": "data.batch",
    }
    for override, near in cases.items():
        with pytest.raises(BadConfig, match=rf"{override.split('=')[0]}.*did you mean .*{near}"):
            load_config([override])


def test_near_names_are_those_of_the_chosen_parts():
    for chosen, wrong, near in (
        ("policy=dyna", "policy.rati=3", "policy.ratio"),
        ("planner=ilqr", "planner.candidate=3", "planner."),
        ("task=gym:CartPole-v1", "task.env.episode_step=3", "task.env.episode_steps"),
    ):
        with pytest.raises(BadConfig, match=rf"expected a key .* did you mean {near}") as error:
            load_config([chosen, wrong])
        assert "planner.candidates" not in str(error.value), "an option of cem"
    with pytest.raises(BadConfig, match=r"policy\.rati: expected a key .* did you mean policy\.ratio"):
        override_saved(load_config(["policy=dyna"]), ["policy.rati=3"])
    with pytest.raises(BadConfig, match=r"\+planner\.width for an option that its file does not list"):
        load_config(["planner.width=3"])


@pytest.mark.parametrize("key", ["data.bacth", "optimizer.lrr", "foo", "agent.explore_stdd"])
def test_what_nobody_reads_is_not_added(key):
    for load in (load_config, partial(override_saved, load_config([]))):
        with pytest.raises(BadConfig, match=rf"^{key}: expected a key of this configuration, got another"):
            load([f"+{key}=3"])


def test_what_parts_and_others_read_can_be_added():
    added = ["+agent.weights.mine=3", "+trainer.max_epochs=2", "+task.env.camera=1", "+planner.momentum=0.1"]
    added += ["+data.sampler.share=1", "++data.batch=3", "+agent.encoders.pixels.name=conv"]
    assert load_config(added)["agent"]["weights"]["mine"] == 3


def test_a_right_task_is_not_blamed_for_a_wrong_key():
    with pytest.raises(BadConfig) as error:
        load_config(["task=cheetah_run", "out=x"])
    assert "cheetah_run" not in str(error.value)


def test_what_help_offers_exists():
    for usage in (fit.COMMAND.help(), evaluate.COMMAND.help()):
        for group, names in re.findall(r"\b(\w+)=([\w|]+)", usage):
            if group in groups() and names.isidentifier() | ("|" in names):
                known = task_names() if group == "task" else groups()[group]
                assert set(names.split("|")) - {"NAME"} <= set(known), (group, names)
    for key in re.findall(r"\b([a-z_]+\.[a-z_.]+)=", fit.COMMAND.help().replace("group.key=", "")):
        assert key in configuration._known_keys(configuration._chosen([])), key


def test_overrides_of_a_saved_run():
    saved = load_config(["experiment=smoke"])
    config = override_saved(
        saved, ["planner=planet", "planner.horizon=4", "optimizer.eps=1e-3", "+planner.momentum=0.1"]
    )
    assert (config["planner"]["candidates"], config["planner"]["horizon"], config["planner"]["momentum"]) == (
        1000,
        4,
        0.1,
    )
    assert config["optimizer"]["eps"] == 1e-3
    assert saved["planner"]["candidates"] == 48 and override_saved(saved, []) == saved
    assert override_saved(saved, ["task=walker_walk"])["task"]["env"]["task"] == "walker_walk"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("planner.horizn=4", "did you mean planner.horizon"),
        ("planner=planett", "did you mean planet"),
        ("experiment=toy", "expected no experiment beside the configuration of a run"),
        ("~planner", "the run has its configuration"),
        ("planner.horizon=1,2", "the run has its configuration"),
        ("task=walker_wlak", "walker_walk"),
        ("planner.horizon=[", "planner.horizon"),
    ],
)
def test_wrong_overrides_of_a_saved_run(override, message):
    with pytest.raises(BadConfig, match=message):
        override_saved(load_config(["experiment=smoke"]), [override])


@pytest.mark.parametrize(
    "text",
    [
        "npz:/x?alignment=departure",
        "hdf5:/x?low=-2,-1&high=2,1&image_key=a/b",
        "data/a (copy), b's \\",
        "x\\' = {y}",
        "[a]",
        "2024",
        "1e3",
        "true",
        "plain/path with spaces",
    ],
)
def test_an_address_needs_no_quotes(text):
    override = f"data.uri={text}"
    assert load_config(["data=offline", override])["data"]["uri"] == text
    saved = load_config(["data=offline", "data.uri=x"])
    assert override_saved(saved, [override, f"run_dir={text}"])["run_dir"] == text
    assert override_saved(saved, [override])["data"]["uri"] == text


@pytest.mark.parametrize(("said", "meant"), [("'npz:/x?a=b'", "npz:/x?a=b"), ('"a,b"', "a,b"), ("null", None)])
def test_quotes_and_null_mean_what_they_did(said, meant):
    assert load_config(["data=offline", f"data.uri={said}"])["data"]["uri"] == meant


def test_the_argument_that_cannot_be_read_is_named_alone():
    with pytest.raises(BadConfig, match=r"in trainer.devices=a=b$"):
        load_config(["seed=3", "trainer.devices=a=b", "planner=cem"])


def test_a_part_of_the_agent_that_is_named_alone_takes_options():
    config = load_config(["experiment=smoke", "agent.encoder=conv", "+agent.encoder.padding=1"])
    assert config["agent"]["encoder"] == {"name": "conv", "padding": 1}
    again = override_saved(config, ["agent.encoder=patch", "+agent.encoder.channels=[8]"])
    assert again["agent"]["encoder"] == {"name": "patch", "channels": [8]}
    # as runs of the past have it
    assert not list(differences({"encoder": "conv"}, {"encoder": {"name": "conv"}}))
    assert list(differences({"encoder": "conv"}, {"encoder": {"name": "patch"}}))


def test_who_learns_from_recordings_acts_in_a_task_that_is_typed():
    offline = ["experiment=smoke", "data=offline", "data.uri=x"]
    assert load_config(offline)["task"]["source"] is None
    assert load_config([*offline, "task=toy_point"])["task"]["name"] == "toy_point"
    assert load_config(["experiment=smoke"])["task"]["name"] == "toy_point"
