"""One device, several, and several processes: the same global batch leads to the same weights.

Each of the faults that go unnoticed elsewhere fails here: a loss that is not divided by the global batch, gradients
summed twice, clipping before the sum, an optimizer out of the scope, BatchNorm that is not synchronised.
"""

import numpy as np
import pytest

SGD_TOLERANCE = 1e-6
# Adam divides small gradients by their own size: rounding becomes a step.
ADAMW_TOLERANCE = 1e-3


def measure(run_driver, folder, processes):
    """{name: results of replica_driver.measure} for {name: its arguments}, all of them at once."""
    driver = run_driver.Driver()
    pids = {}
    try:
        for name, arguments in processes.items():
            target = str(folder / f"{name}.npz")
            log = folder / f"{name}.txt"
            pids[name] = driver.start("measure_replicas", log, target=target, **arguments)
        for name, pid in pids.items():
            assert driver.wait(pid) == 0, f"{name}: {driver.text(pid)}"
    finally:
        driver.close()
    return {name: dict(np.load(folder / f"{name}.npz")) for name in processes}


@pytest.fixture(scope="module")
def measured(run_driver, tmp_path_factory):
    ports = run_driver.Driver.free_ports(2)
    processes = {
        "1": {"cases": ["sgd", "adamw", "sp_transformer", "masks"]},
        "2": {"replicas": 2, "cases": ["sgd", "adamw", "sp_transformer", "masks"]},
        "4": {"replicas": 4, "cases": ["sgd", "adamw"]},
        "worker 0": {"task": 0, "ports": ports, "cases": ["sgd", "adamw"]},
        "worker 1": {"task": 1, "ports": ports, "cases": ["sgd", "adamw"]},
    }
    return measure(run_driver, tmp_path_factory.mktemp("replicas"), processes)


def difference(one, other, prefix, leave_out=()):
    """Largest absolute difference of the arrays under a prefix."""
    names = [name for name in one if name.startswith(prefix)]
    assert names and names == [name for name in other if name.startswith(prefix)]
    kept = [name for name in names if name not in leave_out]
    return max(np.abs(one[name].astype(np.float64) - other[name]).max() for name in kept)


def cancelling_biases(names):
    """Keys' biases cancel in a softmax over the keys: their gradient is rounding alone."""
    return [name for name in names if "key" in name and name.endswith("bias")]


def check_equal(one, several, case, tolerance):
    np.testing.assert_allclose(several[f"{case}/losses"], one[f"{case}/losses"], rtol=1e-5)
    np.testing.assert_allclose(several[f"{case}/norms"], one[f"{case}/norms"], rtol=1e-4)
    out = cancelling_biases(one)
    assert difference(one, several, f"{case}/weights/", out) < tolerance
    # Weights, BatchNorm's statistics and moments: the same on all replicas, to the bit.
    assert several[f"{case}/spread"] == 0.0


@pytest.mark.parametrize("name", ["2", "4", "worker 0", "worker 1"])
def test_sgd_equals_one_device(measured, name):
    one = measured["1"]
    check_equal(one, measured[name], "sgd", SGD_TOLERANCE)
    # Clipping took place, and BatchNorm moved: or the comparison would tell nothing of them.
    assert (one["sgd/norms"] > 0.5).all()
    assert np.abs(one["sgd/weights/backbone/norm/moving_mean"]).max() > 1e-3


@pytest.mark.parametrize("name", ["2", "4", "worker 0", "worker 1"])
def test_adamw_and_averages_equal_one_device(measured, name):
    check_equal(measured["1"], measured[name], "adamw", ADAMW_TOLERANCE)
    assert difference(measured["1"], measured[name], "adamw/averages/") < ADAMW_TOLERANCE


def test_the_real_model_on_its_input_pipeline_equals_one_device(measured):
    check_equal(measured["1"], measured["2"], "sp_transformer", SGD_TOLERANCE)
    assert any("moving_variance" in name for name in measured["1"])
    # Three images on two replicas: one of them has nothing to do in the end.
    for score in ("confusion_matrix", "miou"):
        np.testing.assert_array_equal(
            measured["2"][f"sp_transformer/{score}"], measured["1"][f"sp_transformer/{score}"]
        )
    assert measured["1"]["sp_transformer/miou"] > 0


def test_no_replica_searches_the_graph_of_another(measured):
    # What TensorFlow does for each BatchNorm if it is left to it: tracing a ResNet-50 then takes minutes.
    assert measured["2"]["sp_transformer/walked"] < 3 * measured["1"]["sp_transformer/walked"]


def test_two_workers_end_with_the_same_bits(measured):
    for case in ("sgd", "adamw"):
        assert difference(measured["worker 0"], measured["worker 1"], f"{case}/weights/") == 0.0


def test_replicas_draw_masks_of_their_own(measured):
    single, (first, again) = measured["1"]["masks/draws"], measured["2"]["masks/draws"]
    # The first replica draws what one device does.
    np.testing.assert_array_equal(single[:, 0], [first[0], again[0]])
    for draws in (first, again):
        # Drop path: whole rows; dropout: single elements of what is left.
        rows = draws.any(axis=2)
        assert not np.array_equal(rows[0], rows[1])
        both = rows[0] & rows[1]
        assert abs(np.corrcoef(draws[0][both].ravel(), draws[1][both].ravel())[0, 1]) < 0.1
    assert not np.array_equal(first[1], again[1])
    # The state that a checkpoint holds is the same on all replicas, and that of one device.
    np.testing.assert_array_equal(
        measured["2"]["masks/states"][:, 0], measured["1"]["masks/states"][:, 0]
    )
    np.testing.assert_array_equal(
        measured["2"]["masks/states"][:, 1], measured["1"]["masks/states"][:, 0]
    )


@pytest.mark.slow
def test_rematerialization_on_two_replicas(run_driver, tmp_path):
    processes = {"2": {"replicas": 2, "cases": ["sp_transformer", "rematerialized"]}}
    results = measure(run_driver, tmp_path, processes)["2"]
    assert results["rematerialized/walked"] < 2 * results["sp_transformer/walked"]
    renamed = {
        name.replace("rematerialized/", "sp_transformer/"): value
        for name, value in results.items()
        if name.startswith("rematerialized/")
    }
    check_equal(results, renamed, "sp_transformer", SGD_TOLERANCE)
