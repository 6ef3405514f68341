"""General Dyna: how its parts come together in an agent."""

import pytest

from tests.conftest import A, random_batch, small_agent
from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.heads.scalar import ScalarHead
from worldmodel.parts import part_names
from worldmodel.policies.dyna import GeneralDyna
from worldmodel.policies.dyna_q import LatentDynaQ
from worldmodel.policy_spec import PolicySpec


def spec_of(agent) -> PolicySpec:
    D = agent.dynamics.latent_dim
    return PolicySpec(
        latent_dim=D,
        action_dim=A,
        discount=agent.discount,
        build_actor=lambda options: SquashedNormalActor(latent_dim=D, action_dim=A, hidden=16),
        build_value=lambda inputs: ScalarHead(latent_dim=inputs, scale=100.0, hidden=16),
        return_scale=100.0,
    )


def agent_with(policy: str = "dyna", dynamics: str = "rssm_gaussian", **options):
    agent = small_agent(dynamics)
    kind = GeneralDyna if policy == "dyna" else LatentDynaQ
    agent.policy = kind(spec=spec_of(agent), **options)
    return agent


CHOICES = [
    {"learner": {"name": learner}, "target": {"name": target}}
    for learner in part_names("worldmodel.actor_critics")
    for target in part_names("worldmodel.value_targets")
]


@pytest.mark.parametrize("options", [*CHOICES, {"ratio": 0.0}, {"rollout": {"name": "by_updates"}}])
def test_one_update_moves_every_weight_and_nothing_of_the_model(options) -> None:
    agent = agent_with(**options)
    batch = random_batch()
    loss = agent.policy_losses(batch, agent.observe(batch))
    loss.total.backward()
    groups = agent.parameter_groups()
    assert all(w.grad is None for w in groups["model"])
    assert all(w.grad is not None and w.grad.isfinite().all() for name in ("actor", "value") for w in groups[name])
    assert {id(w) for name in ("actor", "value") for w in groups[name]} == {
        id(w) for w in agent.policy.parameters() if w.requires_grad
    }
    agent.after_step()


@pytest.mark.parametrize("policy", ["dyna", "dyna_q"])
@pytest.mark.parametrize("dynamics", ["ensemble", "laplace", "variational"])
def test_no_imagined_row_is_a_number_too(policy: str, dynamics: str) -> None:
    assert agent_with(policy, dynamics, ratio=0.0).losses(random_batch()).total.isfinite()


@pytest.mark.parametrize("policy", ["dyna", "dyna_q"])
@pytest.mark.parametrize("dynamics", ["rssm_categorical", "deterministic", "ensemble"])
def test_any_dynamics_and_planner_work_with_it(policy: str, dynamics: str) -> None:
    agent = agent_with(policy, dynamics)
    batch = random_batch()
    assert agent.losses(batch).total.isfinite()
    for act_with in ("planner", "actor"):
        agent.act_with = act_with
        frames = {"pixels": batch.pixels[:, 0]}
        decision = agent.act(frames, batch.is_first[:, 0], agent.initial_carry(3))
        assert decision.action.abs().amax() <= 1 and decision.predicted_return.isfinite().all()


@pytest.mark.parametrize("policy", ["dyna", "dyna_q"])
def test_windows_without_a_step_are_refused(policy: str) -> None:
    agent, batch = agent_with(policy), random_batch(T=3)
    batch.is_first[:] = True
    with pytest.raises(ValueError, match=r"data.length: expected windows in which a step may teach"):
        agent.policy_losses(batch, agent.observe(batch))


def test_recorded_and_imagined_rows_are_mixed_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    for ratio in (0.0, 1.0, 3.0):
        agent = agent_with(ratio=ratio, rollout={"name": "by_updates", "longest": 3, "updates": 1})
        agent.policy.length.made += 1  # branches of three decisions: a third as many
        batch = random_batch()
        learn = agent.policy.learner.actor_loss
        watched = lambda *rows, learn=learn: (counts.append(len(rows[0])), learn(*rows))[1]  # noqa: E731
        monkeypatch.setattr(agent.policy.learner, "actor_loss", watched)
        agent.policy_losses(batch, agent.observe(batch))
    assert counts == [18, 36, 72]  # 3 windows of 7 rows have 18 steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learner": {"name": "ppo"}}, r"learner\.name: expected one of max_q, soft, got 'ppo'"),
        ({"target": {}}, r"target\.name: expected one of mve, .*steve, td, got None"),
        ({"target": {"name": "td", "depth": 3}}, r"target\.depth: no option of target=td; it takes none"),
        ({"rollout": {"name": "by_updates", "longest": 0}}, r"^rollout\.longest: expected a whole number"),
        ({"ratio": -1.0}, "ratio: expected a finite number"),
    ],
)
def test_options_out_of_range(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        agent_with(**options)
