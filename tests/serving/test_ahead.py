"""Work done ahead: its order, its bounds, its errors."""

import threading
import time

import pytest

from sp_transformer.serving.ahead import Ahead


def test_results_come_in_the_order_of_the_calls_whichever_ends_first():
    with Ahead(workers=4, max_items=10) as calls:
        for delay in (0.05, 0.0, 0.02, 0.0):
            calls.submit(lambda delay: time.sleep(delay) or delay, delay)
        assert [calls.take() for _ in range(4)] == [0.05, 0.0, 0.02, 0.0]
        assert len(calls) == 0


def test_there_is_room_for_so_many_calls_and_so_much_cost_but_always_for_one():
    with Ahead(workers=1, max_items=3, max_cost=10) as calls:
        assert calls.has_room(1000)
        calls.submit(int, cost=6)
        assert calls.has_room(4) and not calls.has_room(5)
        calls.submit(int, cost=1)
        calls.submit(int, cost=1)
        assert not calls.has_room(0)
        calls.take()
        assert calls.has_room(8) and not calls.has_room(9)


def test_an_error_is_raised_where_the_result_is_taken_and_frees_its_room():
    def fail():
        raise OSError("disk full")

    with Ahead(workers=1, max_items=1) as calls:
        calls.submit(fail)
        with pytest.raises(OSError, match="disk full"):
            calls.take()
        assert calls.has_room()


def test_what_is_done_is_taken_without_waiting_for_the_rest():
    go_on = threading.Event()
    with Ahead(workers=2, max_items=5) as calls:
        calls.submit(lambda: "first")
        calls.submit(go_on.wait, 10)
        calls.submit(lambda: "third")
        deadline = time.monotonic() + 10
        taken = []
        while not taken and time.monotonic() < deadline:
            taken = list(calls.take_done())
        assert taken == ["first"] and len(calls) == 2
        go_on.set()


def test_the_end_waits_for_calls_that_have_begun_and_drops_the_others():
    begun, done = threading.Event(), []

    def work():
        begun.set()
        time.sleep(0.05)
        done.append(1)

    with Ahead(workers=1, max_items=5) as calls:
        calls.submit(work)
        calls.submit(done.append, 2)
        begun.wait(10)
    assert done == [1]
