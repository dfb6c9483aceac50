"""SIGTERM in and out of blocks where everything is saved."""

import os
import signal
import threading

import pytest

from sp_transformer.training import termination


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_is_noted_and_the_handler_of_before_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with termination.Termination() as terminated:
        assert not terminated.requested
        terminate()
        assert terminated.requested
    assert signal.getsignal(signal.SIGTERM) is before


def test_ends_at_once_where_everything_is_saved():
    with termination.Termination() as terminated:
        went_on = []
        with pytest.raises(SystemExit) as error, terminated.at_once():
            went_on.append(terminate())
        assert error.value.code == 143 and not went_on
        # One that came before counts, too.
        with pytest.raises(SystemExit), terminated.at_once():
            went_on.append("began")
        assert not went_on
        # Behind it, it is noted again.
        terminate()


def test_other_threads_are_left_alone():
    noted = []

    def run():
        with termination.Termination() as terminated:
            noted.append(terminated.requested)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert noted == [False]
