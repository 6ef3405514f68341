import numpy as np
import pytest
import torch

from datamodules.envs.errors import WorkerLost
from datamodules.envs.pool import EnvPool
from datamodules.envs.protocol import Fault
from datamodules.envs.seeds import episode_seed
from datamodules.envs.supervised import FaultLimit
from datamodules.replay import Replay
from datamodules.rollout import Episode
from tests.conftest import small_agent
from trainers.acting.agent_policy import AgentPolicy
from trainers.acting.collect import Collector
from trainers.acting.evaluation import Evaluator
from trainers.acting.exploration import Exploration
from trainers.acting.windows import window_batch
from trainers.process.clock import Clock
from trainers.process.distributed import gather_over_ranks, sum_over_ranks
from trainers.process.interrupt import Interrupted
from worldmodel.interfaces import ActionNoise


@pytest.fixture(scope="module")
def pool():
    with EnvPool(source="toy", kwargs={"size": 16, "episode_steps": 5}, count=2) as pool:
        yield pool


def collector(pool, *, rank=0, std=0.3, random=0.0, **options):
    replay = Replay(spec=pool.spec, capacity=400, streams=2)
    exploration = Exploration(std=std, random=random, decisions=5)
    return Collector(pool, replay, envs=2, seed=3, rank=rank, clock=Clock(), exploration=exploration, **options), replay


def rows(replay):
    """Actions of the first environment's rows, [n, A]."""
    return replay._stream_table.gather(np.zeros((1, 3), int), replay.rows // 2).action[0]


def test_rounds_are_counted_and_stored(pool):
    collect, replay = collector(pool)
    assert len(collect.seed_episodes(3)) == 6
    assert collect.counters == {"env_steps": 30, "decisions": 30, "episodes": 6, "faults": 0}
    episodes, policy = collect.collect(small_agent())
    assert collect.counters == {"env_steps": 40, "decisions": 40, "episodes": 8, "faults": 0}
    assert (replay.rows, replay.episodes, replay.env_steps) == (8 * 6, 8, 40)
    assert [len(e.rewards) for e in episodes] == [5, 5]
    # one prediction per decision, for every environment
    assert np.stack(policy.predicted).shape == (5, 2)


def test_every_episode_has_a_seed_of_its_own(pool):
    seeds = []
    for rank in (0, 1):
        collect, _ = collector(pool, rank=rank)
        seeds += [e.seed for e in collect.seed_episodes(2)] + [e.seed for e in collect.collect(small_agent())[0]]
    assert len(set(seeds)) == 12
    assert seeds[0] == episode_seed(3, 0, 0, 0)


def test_a_state_continues_as_if_nothing_had_happened(pool):
    agent = small_agent()
    whole, replay = collector(pool)
    whole.seed_episodes(1)
    whole.collect(agent)
    state, counters = whole.state_dict(), whole.counters
    whole.collect(agent)
    after, resumed_replay = collector(pool)
    after.load_state_dict(state)
    after.counters = counters
    after.collect(agent)
    assert after.counters == whole.counters
    last = rows(replay)[12:]
    assert torch.equal(last, rows(resumed_replay)) and last.any()


@pytest.mark.parametrize("seeding", [True, False])
def test_a_round_that_is_broken_off_counts_for_nothing(pool, seeding):
    looks = []
    collect, replay = collector(pool, should_stop=lambda: looks.append(1) or len(looks) > 10 + 3)
    collect.seed_episodes(2)
    before = collect.counters
    with pytest.raises(Interrupted):
        collect.seed_episodes(1) if seeding else collect.collect(small_agent())
    # three decisions, and none after the signal
    assert len(looks) == 14 and replay.env_steps == 2 * (10 + 3)
    assert collect.counters == before and collect.state_dict()["fresh"]["env_steps"] == 0


def test_a_fault_closes_its_episode_as_truncated(pool, monkeypatch):
    collect, replay = collector(pool)
    original, calls = pool.step, []

    def failing(actions):
        found = original(actions)
        calls.append(1)
        return found | ({1: Fault(1, "death", "killed")} if len(calls) == 3 and 1 in found else {})

    monkeypatch.setattr(pool, "step", failing)
    episodes = collect.seed_episodes(1)
    assert [e.fault is not None for e in episodes] == [False, True]
    assert collect.counters == {"env_steps": 7, "decisions": 7, "episodes": 2, "faults": 1, "faults/death": 1}
    assert (replay.rows, replay.episodes) == (6 + 3, 2) and not replay.is_open(1)


def test_sums_and_gathers_of_one_process():
    assert sum_over_ranks([1, 2]) == [1, 2] and gather_over_ranks("x") == ["x"]


def test_evaluation_repeats_and_needs_no_luck(pool):
    agent = small_agent()
    torch.manual_seed(1)
    first = Evaluator(lambda count: pool, envs=2, seed=0).run(agent, episodes=3)
    torch.manual_seed(2)
    again = Evaluator(lambda count: pool, envs=2, seed=0).run(agent, episodes=3)
    assert first.returns == again.returns and first.seeds == again.seeds and len(set(first.seeds)) == 3
    assert (first.env_steps, first.decisions, first.faults) == (15, 15, 0)
    assert first.filmed.pixels.shape == (6, 3, 16, 16) and first.filmed.action.shape == (6, 2)
    assert first.return_mean == pytest.approx(np.mean(first.returns))
    assert first.returns[0] == pytest.approx(first.filmed.reward.sum(), rel=1e-6)


def test_evaluation_opens_as_many_environments_as_it_needs(pool):
    opened = []

    def open_pool(count):
        opened.append(EnvPool(source="toy", kwargs={"size": 16, "episode_steps": 2}, count=count))
        return opened[-1]

    evaluator = Evaluator(open_pool, envs=2, seed=0)
    for episodes in (1, 1, 3):
        assert len(evaluator.run(small_agent(), episodes=episodes).returns) == episodes
    assert [len(p.pids) for p in opened] == [1, 2]
    evaluator.close()
    evaluator.close()


def test_evaluation_can_be_broken_off(pool):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 3

    evaluator = Evaluator(lambda count: pool, envs=2, seed=0)
    with pytest.raises(Interrupted):
        evaluator.run(small_agent(), episodes=2, should_stop=stop)
    # and repeated as if nothing had happened
    whole = evaluator.run(small_agent(), episodes=2)
    assert len(whole.returns) == 2


def test_window_of_an_evaluation(pool):
    evaluation = Evaluator(lambda count: pool, envs=1, seed=0).run(small_agent(), episodes=1)
    assert evaluation.filmed is not None
    batch = window_batch([(evaluation.filmed, 0, 4)])
    assert batch.pixels.shape == (1, 4, 3, 16, 16) and batch.is_first.tolist() == [[True, False, False, False]]
    assert torch.equal(batch.action[0], torch.from_numpy(evaluation.filmed.action[:4])) and not batch.action[0, 0].any()
    assert not window_batch([(evaluation.filmed, 2, 5)]).is_first.any()


def test_an_episode_starts_empty():
    assert Episode(0, 1).rewards == [] and Episode(0, 1).rewards is not Episode(0, 1).rewards


def test_noise_acts_alone_until_rewards_are_found(pool, monkeypatch):
    def round_of(seed):
        torch.manual_seed(seed)
        agent = small_agent()
        collect, replay = collector(pool, std=0.0, random=1.0)
        collect.collect(agent)
        alone = rows(replay)
        collect.collect(agent)
        return alone, rows(replay)[6:]

    ones = round_of(0), round_of(1)
    assert torch.equal(ones[0][0], ones[1][0]) and ones[0][0].std() > 0.5  # whoever the agent is
    assert not torch.equal(ones[0][1], ones[1][1])  # ten rewards, each another one, are more than five decisions
    monkeypatch.setattr(Replay, "rewarded_rows", lambda _: 0)
    ones = round_of(0), round_of(1)
    assert torch.equal(ones[0][1], ones[1][1])


def test_the_carry_holds_what_was_executed():
    agent, frames = small_agent(), torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    noise = torch.tensor([[0.9, -0.2], [0.1, 0.3], [7.0, -7.0]])
    choose = lambda exploration: agent.act(  # noqa: E731
        {"pixels": frames}, torch.ones(3, dtype=torch.bool), agent.initial_carry(3), exploration=exploration,
        generator=[torch.Generator().manual_seed(i) for i in range(3)],
    )  # fmt: skip
    alone = torch.tensor([True, False, True])
    plain, disturbed = choose(None).action, choose(ActionNoise(noise, alone))
    expected = torch.stack([noise[0], (plain[1] + noise[1]).clamp(-1, 1), torch.tensor([1.0, -1.0])])
    torch.testing.assert_close(disturbed.action, expected)
    assert torch.equal(disturbed.carry.action, disturbed.action)
    torch.testing.assert_close(choose(ActionNoise(noise)).action, (plain + noise).clamp(-1, 1))


def test_an_action_does_not_depend_on_who_is_ready_with_it():
    agent, frames = small_agent(), np.random.default_rng(0).integers(0, 256, (3, 12, 3, 16, 16), np.uint8)

    def acted(schedule):
        """Actions of each environment, [3, 4 to 12, A], when those that `schedule` names act at each call."""
        generators = [torch.Generator().manual_seed(i) for i in range(3)]
        exploration = Exploration(std=0.3, pink=0.6, silent=0.3, random=0.5, decisions=5)
        policy = AgentPolicy(agent, generators=generators, clock=Clock(), exploration=exploration)
        time, found = [0, 0, 0], ([], [], [])
        for ready in schedule:
            now = {"pixels": np.stack([frames[i, time[i]] for i in range(3)])}
            actions = policy(now, np.array([t == 0 for t in time]), np.array(ready, bool))
            for i in np.flatnonzero(ready):
                found[i].append(actions[i])
                time[i] += 1
        return found

    together = acted([(True, True, True)] * 6)
    apart = acted([(1, 0, 1), (0, 0, 1), (0, 1, 0), (1, 1, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1), (1, 1, 1)])
    for mine, others in zip(together, apart, strict=True):
        np.testing.assert_array_equal(mine, others[:6])
    assert not np.array_equal(together[0], together[1])


def test_an_episode_that_ended_in_nan_leaves_nothing_to_the_next():
    agent, both = small_agent(), np.ones(2, bool)
    pixels = {"pixels": np.zeros((2, 3, 16, 16), np.uint8)}
    policy = AgentPolicy(agent, generators=[torch.Generator() for _ in range(2)], clock=Clock())
    policy(pixels, both, both)
    with torch.inference_mode():
        policy._carry.belief[0] = torch.nan
    assert np.isnan(policy._carry.belief[0]).all()
    policy(pixels, np.array([True, False]), both)
    assert policy._carry.belief.isfinite().all()


class Diverged:
    """An agent whose first environment gets NaN from a call on."""

    def __init__(self, agent, at):
        self.agent, self.at, self.calls = agent, at, 0

    def __getattr__(self, name):
        return getattr(self.agent, name)

    def initial_carry(self, batch):
        return self.agent.initial_carry(batch)

    def act(self, *args, **kwargs):
        decision = self.agent.act(*args, **kwargs)
        self.calls += 1
        if self.calls > self.at:
            decision.action[0] = torch.nan
        return decision


def test_an_agent_that_diverges_is_counted_and_ends_the_run_with_its_cause(pool):
    told = []
    collect, replay = collector(pool, report=told.append, limit=FaultLimit(most=2))
    agent = Diverged(small_agent(), at=3)
    for _ in range(2):
        episodes, _ = collect.collect(agent)
        assert [e.fault is not None for e in episodes] == [True, False]
    counters = collect.counters
    assert (counters["faults"], counters["faults/action"]) == (2, 2) and len(told) == 2
    # three decisions in the first round and none in the second; five of the other environment in each
    assert (counters["decisions"], counters["episodes"]) == (3 + 10, 4)
    assert (replay.env_steps, replay.episodes) == (counters["env_steps"], counters["episodes"])
    assert rows(replay).isfinite().all()
    with pytest.raises(WorkerLost, match=r"failed 3 times in 300 s.*action: expected finite values"):
        collect.collect(agent)


def test_counters_and_faults_by_kind_continue(pool):
    collect, _ = collector(pool)
    collect._close_faulty(Fault(0, "timeout", ""))
    collect.seed_episodes(1)
    again, _ = collector(pool)
    again.counters = collect.counters
    assert again.counters == collect.counters and again.counters["faults/timeout"] == 1
    assert "faults/death" not in again.counters
