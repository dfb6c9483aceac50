"""One device, several, and several processes: the same global batch leads to the same weights.

Each of the faults that go unnoticed elsewhere fails here: a loss that is not divided by the global batch, gradients summed
twice, clipping before the sum, an optimizer out of the scope, BatchNorm that is not synchronised.
"""

import socket

import numpy as np
import pytest

SGD_TOLERANCE = 1e-6
# Adam divides small gradients by their own size: rounding becomes a step.
ADAMW_TOLERANCE = 1e-3


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def measured(run_driver, tmp_path_factory):
    """{"1", "2", "4", "worker0", "worker1": results of replica_driver.measure}."""
    folder = tmp_path_factory.mktemp("replicas")
    driver = run_driver.Driver()
    ports = free_ports(2)
    arguments = {
        "1": {},
        "2": {"replicas": 2},
        "4": {"replicas": 4, "cases": ["sgd"]},
        "worker0": {"task": 0, "ports": ports, "cases": ["sgd"]},
        "worker1": {"task": 1, "ports": ports, "cases": ["sgd"]},
    }
    try:
        pids = {
            name: driver.start(
                "measure_replicas",
                folder / f"{name}.txt",
                target=str(folder / f"{name}.npz"),
                **own,
            )
            for name, own in arguments.items()
        }
        for name, pid in pids.items():
            code = driver.wait(pid)
            assert code == 0, f"{name}: {driver.text(pid)}"
    finally:
        driver.close()
    return {name: dict(np.load(folder / f"{name}.npz")) for name in arguments}


def difference(one, other, prefix, leave_out=()):
    """Largest absolute difference of the arrays under a prefix."""
    names = [name for name in one if name.startswith(prefix)]
    assert names and names == [name for name in other if name.startswith(prefix)]
    return max(
        np.abs(one[name].astype(np.float64) - other[name]).max()
        for name in names
        if not any(part in name for part in leave_out)
    )


def cancelling_biases(names):
    """Keys' biases: they cancel in a softmax over the keys, so that their gradient is rounding alone."""
    return [name for name in names if "key" in name and name.endswith("bias")]


@pytest.mark.parametrize("name", ["2", "4", "worker0", "worker1"])
def test_weights_losses_and_statistics_equal_one_device(measured, name):
    one, several = measured["1"], measured[name]
    np.testing.assert_allclose(several["sgd/losses"], one["sgd/losses"], rtol=2e-6)
    np.testing.assert_allclose(several["sgd/norms"], one["sgd/norms"], rtol=2e-5)
    # Clipping took place, or the case would not tell when.
    assert (one["sgd/norms"] > 0.5).any()
    assert difference(one, several, "sgd/weights/") < SGD_TOLERANCE
    statistics = [key for key in one if key.startswith("sgd/") and "moving_mean" in key]
    assert statistics
    assert several["sgd/spread"] == 0.0


def test_adamw_and_its_averages_equal_one_device(measured):
    one, two = measured["1"], measured["2"]
    out = cancelling_biases(one)
    assert difference(one, two, "adamw/weights/", out) < ADAMW_TOLERANCE
    assert difference(one, two, "adamw/averages/", out) < ADAMW_TOLERANCE
    # The averages are no copies of the weights.
    moved = [
        np.abs(one[key] - one[key.replace("averages/", "weights/")]).max()
        for key in one
        if key.startswith("adamw/averages/")
    ]
    assert max(moved) > 1e-3
    assert two["adamw/spread"] == 0.0


@pytest.mark.parametrize("name", ["1", "2"])
def test_rematerialization_changes_no_number(measured, name):
    results = measured[name]
    np.testing.assert_allclose(results["rematerialized/losses"], results["sgd/losses"], rtol=2e-6)
    kept = {
        key.replace("rematerialized/", "sgd/"): v
        for key, v in results.items()
        if key.startswith("rematerialized/")
    }
    assert difference(results, kept, "sgd/weights/") < SGD_TOLERANCE


def test_replicas_draw_masks_of_their_own(measured):
    (single,) = measured["1"]["drop_path/masks"]
    first, second = measured["2"]["drop_path/masks"]
    np.testing.assert_array_equal(first, single)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    # The generators themselves move on together: a checkpoint holds one state for all.
    assert measured["2"]["drop_path/spread"] == 0.0


def test_two_workers_end_with_the_same_weights(measured):
    assert difference(measured["worker0"], measured["worker1"], "sgd/weights/") == 0.0
