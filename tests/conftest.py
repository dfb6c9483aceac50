"""A run of the smallest real model, for tests of whole binaries. Costs seconds: unit tests use
stand-ins instead."""

import contextlib
import gc
import importlib.util
import pathlib
import resource
import sys
import types

import pytest

TINY = """
experiment_name: "tests/tiny"
model {
  channels: 16
  backbone { name: "resnet18" }
  hypercolumn { max_hidden_channels: 16 }
  tokenizer { superpixel_stride: 32 layers: 1 }
  classifier { layers: 1 feed_forward_width: 16 }
}
data {
  dataset: "synthetic_streets"
  synthetic_streets { height: 40 width: 72 train_images: 2 val_images: 3 }
  crop_height: 64
  crop_width: 96
}
training { steps: 10 warmup_steps: 1 batch_size: 2 }
evaluation { batch_size: 2 }
"""

# What the programs that measure the training input are tried on.
TINY_INPUT = """
data {
  dataset: "synthetic_streets"
  synthetic_streets { height: 48 width: 96 train_images: 5 val_images: 1 }
  crop_height: 32 crop_width: 64
  augmentation { min_scale: 0.5 max_scale: 2 color_policy: "jitter" }
}
model { backbone { name: "resnet18" } tokenizer { superpixel_stride: 32 } }
training { batch_size: 4 }
"""


# Python collects no garbage by itself, `free_memory` does. A test of faulty data leaves an iterator of tf.data in the
# cycle of its error and its frame, while other elements are still read in TensorFlow's threads. A collection that
# begins in one of those destroys the iterator, which waits for that very thread: for ever, and with it ends all
# collection in the process (seen: 2,400 graphs, 12 GiB). On the main thread the wait is a short one. A threshold, as
# programs under test switch collection off and on again.
gc.set_threshold(0)

# Growth of the process at which garbage is collected, and its peak when that was last done; KiB.
_GROWTH = 100 * 1024
_peak = 0


@contextlib.contextmanager
def _gradients_forgotten():
    """Takes back the gradients that were registered inside it.

    `tf.custom_gradient` registers one for each of its operations in a graph, for good, and each holds that whole graph:
    over the suite, gigabytes. TensorFlow has no public way to take one back.
    """
    before = set(_registered_gradients())
    yield
    gradients = _registered_gradients()
    for name in set(gradients) - before:
        if name.startswith("CustomGradient-"):
            del gradients[name]


def _registered_gradients():
    """TensorFlow's gradients by name: nothing while it is not imported."""
    ops = sys.modules.get("tensorflow.python.framework.ops")
    return ops.gradient_registry._registry if ops else {}


@pytest.fixture(autouse=True, scope="module")
def forget_gradients_of_fixtures():
    """Frees the graphs of a file's fixtures behind its last test."""
    with _gradients_forgotten():
        yield


@pytest.fixture(autouse=True)
def free_memory():
    """Frees the graphs of a test behind it, and the models where the process has grown.

    Models are reference cycles, of which Python lets gigabytes pile up, and what TensorFlow once had it keeps.
    """
    global _peak
    with _gradients_forgotten():
        yield
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _peak + _GROWTH:
        gc.collect()
        _peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture(scope="session")
def input_config_file(tmp_path_factory):
    """Path of a config of tiny drawn streets."""
    path = tmp_path_factory.mktemp("config") / "input.textproto"
    path.write_text(TINY_INPUT)
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A model_dir with a checkpoint of step 7, and the config and an Inference of the model that it
    holds.

    The classifier's weights are blown up, so that an untrained model predicts several classes.
    """
    import tensorflow as tf
    from google.protobuf import text_format

    import sp_transformer as spt
    from sp_transformer.model import weights
    from sp_transformer.model.inference import Inference

    model_dir = pathlib.Path(tmp_path_factory.mktemp("run"))
    textproto = model_dir / "tiny.textproto"
    textproto.write_text(TINY)
    config = spt.load_config(textproto)
    tf.keras.utils.set_random_seed(0)
    model = spt.build_model(config)
    for variable in [*model.tokenizer.trainable_variables, *model.classifier.trainable_variables]:
        variable.assign(variable + tf.random.normal(variable.shape, stddev=0.5))
    checkpoint = tf.train.Checkpoint(
        model=weights.model_weights(model), step=tf.Variable(7, dtype=tf.int64)
    )
    checkpoint.write(str(model_dir / "ckpt-7"))
    (model_dir / "config.textproto").write_text(text_format.MessageToString(config))
    return types.SimpleNamespace(
        model_dir=model_dir, config=config, inference=Inference(model, config.data)
    )


@pytest.fixture(scope="session")
def faulty_data():
    """The module tests/faulty_data.py: a small data set with planted faults."""
    path = pathlib.Path(__file__).parent / "faulty_data.py"
    spec = importlib.util.spec_from_file_location("faulty_data", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
