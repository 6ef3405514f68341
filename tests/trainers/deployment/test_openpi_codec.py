import math

import msgpack
import numpy as np
import pytest

from trainers.deployment.openpi_codec import BadMessage, pack, unpack


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "|u1", "<i8", "|b1", "<f2", ">i4"])
def test_arrays_survive(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    got = unpack(pack({"observation/image": array, "prompt": "go", "n": 3, "x": np.float32(1.5)}))
    np.testing.assert_array_equal(got["observation/image"], array)
    assert got["observation/image"].dtype == array.dtype
    assert (got["prompt"], got["n"], got["x"]) == ("go", 3, 1.5)


def test_not_contiguous_empty_and_scalar_arrays_survive():
    for array in (np.arange(6).reshape(2, 3).T, np.zeros((0, 3)), np.array(2.5), np.arange(10)[::-2]):
        np.testing.assert_array_equal(unpack(pack({"a": array}))["a"], array)


def array(**changes):
    fields = {b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": "<f4", b"shape": [2]}
    return msgpack.packb({"a": {**fields, **{key.encode(): value for key, value in changes.items()}}})


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"junk",
        msgpack.packb([1, 2]),
        msgpack.packb({1: 2}),
        msgpack.packb({"a": msgpack.ExtType(4, b"x")}),
        b"\x81\xa1a" + b"\x91" * 5000 + b"\xc0",
        array(dtype="|O"),
        array(dtype="O8"),
        array(dtype="f4,f4"),
        array(dtype="<c8"),
        array(dtype="|V4"),
        array(dtype="<M8[s]"),
        array(dtype=4),
        array(shape=[3]),
        array(shape=[-2]),
        array(shape=[2**40, 2**40]),
        array(shape=[1] * 40),
        array(shape=2),
        array(shape=[2.0]),
        array(data="text"),
        array(data=None),
        msgpack.packb({"a": {b"__npgeneric__": True, b"dtype": "<f4", b"data": "x"}}),
        msgpack.packb({"a": {b"__npgeneric__": True, b"dtype": "|i1", b"data": 300}}),
        msgpack.packb({"a": {b"__npgeneric__": True, b"dtype": "|u1", b"data": -1}}),
    ],
)
def test_hostile_frames_are_refused(frame):
    with pytest.raises(BadMessage):
        unpack(frame)


def test_what_is_too_deep_is_said():
    with pytest.raises(BadMessage, match=r"^message: expected msgpack, got \w+"):
        unpack(b"\x81\xa1a" * 2000 + b"\xc0")


def test_a_number_that_is_too_large_for_its_type_is_infinite():
    sent = {b"__npgeneric__": True, b"dtype": "<f2", b"data": 2**63}
    assert math.isinf(unpack(msgpack.packb({"a": sent}))["a"])


def test_size_is_capped():
    with pytest.raises(BadMessage, match="expected at most 100 bytes"):
        unpack(pack({"a": np.zeros(200)}), limit=100)


def test_objects_are_not_sent():
    for wrong in (np.array([None]), np.zeros(2, complex), object(), np.zeros(1, [("a", "f4")])):
        with pytest.raises(BadMessage):
            pack({"a": wrong})


def test_random_bytes_never_raise_anything_else():
    rng, good = np.random.default_rng(0), pack({"a": np.arange(5.0), "b": [1, {"c": "d"}]})
    for _ in range(3000):
        frame = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            frame[rng.integers(len(frame))] = rng.integers(256)
        try:
            unpack(bytes(frame))
        except BadMessage:
            continue
    assert math.isfinite(unpack(good)["a"].sum())
