import threading

import pytest

from datamodules.envs.processes import spawn


@pytest.mark.parametrize("error", [OSError, RuntimeError, SystemExit])
def test_what_a_start_raises_reaches_the_thread_that_asked(error):
    def start():
        raise error("on purpose")

    caught = []

    def ask():
        for _ in range(2):  # and the spawner lives on
            try:
                spawn(start)
            except BaseException as raised:  # noqa: BLE001 - what it is is the question
                caught.append(type(raised))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(60)
    assert caught == [error, error]
