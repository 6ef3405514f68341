"""Reading ahead changes nothing but when an item is read."""

import threading

import pytest

from datamodules.read_ahead import read_ahead


def test_the_next_item_is_read_while_this_one_is_worked_on():
    begun = threading.Event()

    def items():
        yield 1
        begun.set()
        yield 2

    ahead = read_ahead(items())
    assert next(ahead) == 1 and begun.wait(30)
    assert list(ahead) == [2]


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield None
        raise ArithmeticError("on purpose")

    ahead = read_ahead(items())
    assert next(ahead) is None
    with pytest.raises(ArithmeticError, match="on purpose"):
        next(ahead)


def test_whoever_stops_early_reads_one_too_many_and_no_more():
    read = []
    ahead = read_ahead(read.append(k) or k for k in range(9))
    assert next(ahead) == 0
    ahead.close()
    assert read == [0, 1]


def test_nothing_of_nothing():
    assert list(read_ahead(iter(()))) == []
