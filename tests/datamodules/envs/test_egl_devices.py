"""Which device draws: by UUID, by CUDA's number, by place, and never one that is not there."""

import os

import pytest

from datamodules.envs import gl
from datamodules.envs.egl_devices import EGLDevice, egl_device, list_egl_devices

FIRST, SECOND = "11111111-0000-0000-0000-000000000000", "22222222-0000-0000-0000-00000000000a"


@pytest.mark.parametrize("uuid", [SECOND, SECOND.upper(), f"GPU-{SECOND}"])
def test_a_gpu_is_known_by_its_uuid_whatever_cuda_visible_devices_says(uuid):
    """CUDA_VISIBLE_DEVICES=3 makes GPU 3 number 0; EGL lists all of them, in another order, and the CPU."""
    devices = [EGLDevice(), EGLDevice(uuid=FIRST, cuda=0), EGLDevice(uuid=SECOND, cuda=1)]
    assert egl_device(devices, number=0, uuid=uuid) == 2


def test_without_uuids_cuda_s_number_counts():
    assert egl_device([EGLDevice(), EGLDevice(cuda=1), EGLDevice(cuda=0)], number=0, uuid=SECOND) == 2


@pytest.mark.parametrize(("count", "number", "index"), [(4, 2, 2), (1, 1, 0), (1, 0, 0), (0, 3, 0)])
def test_where_egl_knows_neither_the_place_counts_or_the_only_device(count, number, index):
    assert egl_device([EGLDevice()] * count, number=number, uuid=None) == index


def test_more_ranks_than_devices_draw_with_what_there_is(monkeypatch):
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "before")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    gl.choose_backend(gpu=(63, SECOND))

    assert os.environ["MUJOCO_EGL_DEVICE_ID"] == "0" and 0 < len(list_egl_devices()) < 63
