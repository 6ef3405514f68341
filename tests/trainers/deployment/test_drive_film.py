import av
import numpy as np
import pytest

from trainers.deployment.drive_film import FRAMES, DriveFilm
from worldmodel.spec import EnvSpec


def spec(**images):
    return EnvSpec("robot", images=images, action_dim=1, action_repeat=1, episode_steps=100)


def lengths(path):
    with av.open(str(path)) as film:
        return sum(1 for _ in film.decode(video=0)), float(film.streams.video[0].average_rate)


@pytest.mark.parametrize(("seen", "kept", "fps"), [(7, 7, 20), (FRAMES + 1, FRAMES // 2 + 1, 10), (2000, 500, 5)])
def test_a_long_episode_is_shown_whole_at_its_own_speed(tmp_path, seen, kept, fps):
    film = DriveFilm(spec(pixels=(3, 8, 8)))
    for t in range(seen):
        film.add({"pixels": np.full((8, 8, 3), t * 255 // seen, np.uint8), "joints": np.zeros(2, np.float32)})
    still, moving = film.write(tmp_path, 20.0)
    assert still.name == "drive.png" and lengths(moving) == (kept, fps)
    first, last = film._frames[0]["pixels"], film._frames[-1]["pixels"]
    assert first.max() == 0 and last.min() > 250 * (seen - 8) / seen


def test_large_frames_are_fewer_and_all_images_are_beside_each_other(tmp_path):
    film = DriveFilm(spec(front=(3, 480, 640), wrist=(1, 240, 240)))
    for _ in range(150):
        film.add({"front": np.zeros((480, 640, 3), np.uint8), "wrist": np.zeros((240, 240, 1), np.uint8)})
    assert sum(frame["front"].nbytes for frame in film._frames) < 100_000_000
    film._frames = film._frames[:2]
    _, moving = film.write(tmp_path, 20.0)
    with av.open(str(moving)) as video:
        assert (video.streams.video[0].height, video.streams.video[0].width) == (480, 640 + 480)


def test_without_an_image_or_a_frame_there_is_no_film(tmp_path):
    nothing = DriveFilm(spec(pixels=(3, 8, 8)))
    states = DriveFilm(
        EnvSpec("robot", images={}, vectors={"state": 2}, action_dim=1, action_repeat=1, episode_steps=9)
    )
    states.add({"state": np.zeros(2, np.float32)})
    assert nothing.write(tmp_path, 20.0) == states.write(tmp_path, 20.0) == []
