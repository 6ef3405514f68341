import threading

import numpy as np

from datamodules.envs.protocol import Step
from datamodules.replay import Replay
from datamodules.storage.durable import synchronized
from worldmodel.spec import EnvSpec

SPEC = EnvSpec(task="count", images={"pixels": (1, 8, 8)}, action_dim=1, action_repeat=1, episode_steps=20)


class Account:
    """Loses money when two threads are inside at once."""

    def __init__(self):
        self.lock, self.balance = threading.RLock(), 0

    @synchronized
    def pay_in(self, pause):
        before = self.balance
        pause()
        self.balance = before + 1
        return self.balance


def test_a_second_thread_waits_until_the_first_has_left():
    account, inside, go_on = Account(), threading.Event(), threading.Event()
    first = threading.Thread(target=account.pay_in, args=(lambda: (inside.set(), go_on.wait(60)),))
    first.start()
    assert inside.wait(60)
    second = threading.Thread(target=account.pay_in, args=(lambda: None,))
    second.start()
    second.join(0.05)
    assert second.is_alive() and account.balance == 0
    go_on.set()
    first.join(), second.join()
    assert account.balance == 2
    assert account.pay_in(lambda: account.pay_in(lambda: None)) == 3, "its own thread may enter again"


def row(episode, t):
    pixels = np.full(SPEC.pixels, episode % 200, np.uint8)
    pixels[0, 0, 0] = t
    return Step({"pixels": pixels}, float(episode), t == 0, t == 20, False, int(t > 0))


def test_windows_drawn_while_rows_arrive_are_whole():
    replay = Replay(spec=SPEC, capacity=100)  # the ring turns all the time
    for t in range(21):
        replay.append(0, row(0, t), np.zeros(1, np.float32))
    done, failures = threading.Event(), []

    def collect():
        try:
            for episode in range(1, 400):
                for t in range(21):
                    replay.append(0, row(episode, t), np.zeros(1, np.float32))
        except Exception as error:  # noqa: BLE001 - shown by the main thread
            failures.append(error)
        done.set()

    thread = threading.Thread(target=collect)
    thread.start()
    drawn = 0
    while not done.is_set() or drawn < 20:
        batch = replay.sample(32, 5)
        times, episodes = batch.pixels[:, :, 0, 0, 0].int(), batch.pixels[:, :, 0, 7, 7].int()
        assert (times.diff() == 1).all() and (episodes == episodes[:, :1]).all()
        assert (batch.reward.int() % 200 == episodes).all()
        drawn += 1
    thread.join()
    assert not failures
