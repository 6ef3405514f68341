import numpy as np
import pytest
import torch
from PIL import Image

from trainers.run_folder import video

B, T, C, h, w = 2, 5, 3, 8, 8


def _decode(path):
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), stream.average_rate


@pytest.mark.parametrize("size", [(64, 64), (33, 47)])
def test_mp4_comes_back(tmp_path, size):
    ramp = np.linspace(20, 230, 12).astype(np.uint8)
    frames = np.broadcast_to(ramp[:, None, None, None], (12, *size, 3)).copy()
    found, rate = _decode(video.write_mp4(tmp_path / "videos" / "a.mp4", frames, fps=12.5))
    assert found.shape == (12, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert float(rate) == 12.5
    assert np.abs(found.mean(axis=(1, 2, 3)) - ramp).max() < 4
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (4, 8, 8), (4, 3, 8, 8)])
def test_mp4_refuses_other_shapes(tmp_path, shape):
    with pytest.raises(ValueError, match="uint8 \\[T, H, W, 3\\]"):
        video.write_mp4(tmp_path / "a.mp4", np.zeros(shape, dtype=np.uint8), fps=10)


def test_png_comes_back(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, size=(5, 7, 3), dtype=np.uint8)
    path = video.write_png(tmp_path / "a.png", image)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), image)


def test_strip_shows_real_above_imagined_above_error():
    real, imagined = torch.full((B, T, C, h, w), 0.2), torch.full((B, T, C, h, w), 0.8)
    frames = video.open_loop_strip(real, imagined, context=2, scale=3)
    tile = 3 * h + 4
    assert frames.shape == (T, 3 * tile, B * tile, 3)
    assert frames.dtype == np.uint8
    middle = [int(frames[0, row * tile + tile // 2, tile // 2, 0]) for row in range(3)]
    assert middle == [51, 204, 204]  # 0.2, 0.8 and (0.8 - 0.2) / 2 + 0.5


def test_border_turns_red_when_the_model_is_alone():
    frames = video.open_loop_strip(torch.zeros(B, T, C, h, w), torch.zeros(B, T, C, h, w), context=2)
    red, green = frames[:, 0, 0, 0].astype(int), frames[:, 0, 0, 1].astype(int)
    assert ((green > red) == np.array([True, True, False, False, False])).all()


def test_no_error_is_grey():
    real = torch.rand(B, T, C, h, w, generator=torch.Generator().manual_seed(0))
    frames = video.open_loop_strip(real, real, context=0, scale=1)
    tile = h + 4
    assert np.unique(frames[:, 2 * tile + 2 : 3 * tile - 2, 2 : tile - 2]).tolist() == [128]


def test_columns_do_not_leak_into_each_other():
    real, imagined = torch.zeros(B, T, C, h, w), torch.zeros(B, T, C, h, w)
    before = video.open_loop_strip(real, imagined, context=1)
    imagined[1] += 0.5
    after = video.open_loop_strip(real, imagined, context=1)
    half = before.shape[2] // 2
    np.testing.assert_array_equal(before[:, :, :half], after[:, :, :half])
    assert (before[:, :, half:] != after[:, :, half:]).any()


def test_non_finite_pixels_are_drawn_as_black():
    imagined = torch.full((1, T, C, h, w), float("nan"))
    frames = video.open_loop_strip(torch.zeros(1, T, C, h, w), imagined, context=1, scale=1)
    tile = h + 4
    assert [int(frames[0, tile // 2, column * tile + tile // 2, 0]) for column in range(3)] == [0, 0, 128]


@pytest.mark.parametrize(
    ("shape", "context", "message"),
    [((B, T, C, h, w + 1), 2, "expected two"), ((B, T, C, h, w), 6, "0..5"), ((B, T, C, h, w), -1, "0..5")],
)
def test_strip_refuses(shape, context, message):
    with pytest.raises(ValueError, match=message):
        video.open_loop_strip(torch.zeros(B, T, C, h, w), torch.zeros(shape), context=context)


@pytest.mark.parametrize(
    ("length", "context", "columns"), [(50, 5, 12), (50, 25, 6), (3, 1, 12), (20, 0, 8), (20, 20, 8)]
)
def test_still_has_both_sides_of_the_context_and_no_more_columns(length, context, columns):
    moments = video._moments(length, context=context, columns=columns)
    assert len(moments) == len(set(moments)) == min(columns, length)
    assert moments == sorted(moments) and moments[0] == 0 and moments[-1] == length - 1
    assert {t for t in (context - 1, context) if 0 <= t < length} <= set(moments)


def test_still_and_filmstrip_are_pictures():
    real = torch.zeros(B, T, C, h, w)
    still = video.open_loop_still(real, real, context=2, columns=4, samples=2, scale=2)
    tile = 2 * h + 4
    assert still.shape == (2 * 3 * tile + video.GAP, 4 * tile, 3)
    frames = np.zeros((9, h, w, 3), dtype=np.uint8) + np.arange(9, dtype=np.uint8)[:, None, None, None]
    strip = video.filmstrip(frames, columns=5)
    assert strip.shape == (h, 5 * (w + 1) - 1, 3)
    assert strip[0, :: w + 1, 0].tolist() == [0, 2, 4, 6, 8] and (strip[:, w :: w + 1] == video.NEUTRAL).all()
    assert video.filmstrip(frames[:1]).shape == (h, w, 3)
