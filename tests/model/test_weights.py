"""Names of variables, and restoring exactly the weights that were saved or nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model import weights


class Block(keras.layers.Layer):
    def __init__(self, width):
        super().__init__()
        self.dense = keras.layers.Dense(width)
        self.scale = self.add_weight(shape=(width,), initializer="ones", name="layer_scale")

    def call(self, x):
        return self.dense(x) * self.scale


class Model(keras.Model):
    def __init__(self, width=4, blocks=2, head="head"):
        super().__init__()
        self.norm = keras.layers.BatchNormalization()
        self.blocks = [Block(width) for _ in range(blocks)]
        self.by_stride = {"8": keras.layers.Dense(width)}
        self.dropout = keras.layers.Dropout(0.5)
        self.inner = keras.Sequential([keras.layers.Dense(width), keras.layers.Dense(width)])
        setattr(self, head, keras.layers.Dense(3))
        self._head_name = head

    def call(self, x, training=False):
        x = self.norm(x, training=training)
        for block in self.blocks:
            x = block(x)
        x = self.inner(self.dropout(self.by_stride["8"](x), training=training))
        return getattr(self, self._head_name)(x)


def make_model(**kwargs):
    model = Model(**kwargs)
    model(tf.zeros([1, 4]))
    return model


def randomize(model, seed):
    rng = np.random.default_rng(seed)
    for variable in weights.named_variables(model).values():
        variable.assign(rng.normal(size=variable.shape))
    return model


def save(model, directory, step):
    checkpoint = tf.train.Checkpoint(
        model=weights.model_weights(model), step=tf.Variable(step, dtype=tf.int64)
    )
    return checkpoint.write(str(directory / f"ckpt-{step}"))


def assert_equal(first, second):
    first, second = weights.named_variables(first), weights.named_variables(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_names_follow_attributes_and_cover_all_variables():
    make_model()  # Moves Keras' counters of layers on.
    model = make_model()
    names = weights.named_variables(model)
    assert {
        "norm/moving_mean",
        "blocks/0/dense/kernel",
        "blocks/1/scale",
        "by_stride/8/bias",
        "head/kernel",
    } <= names.keys()
    states = [v for v in model.variables if "seed_generator" in v.path]
    assert len(names) == len(model.variables) - len(states) and len(states) == 1
    assert names.keys() == weights.named_variables(make_model()).keys()


def test_every_variable_is_restored_without_an_optimizer(tmp_path):
    saved = randomize(make_model(), 1)
    prefix = save(saved, tmp_path, 7)
    for path in (tmp_path, prefix, prefix + ".index", prefix + ".data-00000-of-00001"):
        model = randomize(make_model(), 2)
        assert weights.restore_model(model, path) == 7
        assert_equal(model, saved)


def test_takes_the_newest_checkpoint_by_number(tmp_path):
    for step in (9, 10, 100):
        save(randomize(make_model(), step), tmp_path, step)
    (tmp_path / "checkpoint").write_text("garbage")
    model = make_model()
    assert weights.restore_model(model, tmp_path) == 100
    assert_equal(model, randomize(make_model(), 100))


@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
def test_a_torn_checkpoint_falls_back_to_the_one_before(tmp_path, caplog, part):
    for step in (9, 10):
        save(randomize(make_model(), step), tmp_path, step)
    torn = tmp_path / f"ckpt-10.{part}"
    torn.write_bytes(torn.read_bytes()[:50])
    model = make_model()
    assert weights.restore_model(model, tmp_path) == 9
    assert_equal(model, randomize(make_model(), 9))
    assert "ckpt-10" in caplog.text
    with pytest.raises(weights.CheckpointError, match="ckpt-10 cannot be read"):
        weights.restore_model(model, tmp_path / "ckpt-10")


def test_a_flipped_byte_is_found(tmp_path):
    save(make_model(), tmp_path, 1)
    data = tmp_path / "ckpt-1.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(weights.CheckpointError, match=r"none of the checkpoints(.|\n)*ckpt-1"):
        weights.restore_model(make_model(), tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        *("AbortedError", "CancelledError", "DeadlineExceededError", "UnavailableError"),
        *("UnauthenticatedError", "UnknownError", "InternalError", "ResourceExhaustedError"),
        "OpError",
    ],
)
def test_a_lost_storage_is_no_torn_checkpoint(tmp_path, kind):
    """OpError itself is what TensorFlow's reader makes of any fault that it does not know by its text."""
    for step in (9, 10):
        save(make_model(), tmp_path, step)
    raised = getattr(tf.errors, kind)
    code = (tf.errors.UNKNOWN,) if kind == "OpError" else ()

    def restore(prefix):
        raise raised(None, None, "HTTP response code 503", *code)

    with pytest.raises(raised, match="503"):
        weights.restore_latest(tmp_path, restore)


def test_a_storage_that_is_away_holds_no_less_checkpoints(tmp_path, monkeypatch):
    def away(path):
        raise tf.errors.UnavailableError(None, None, "HTTP response code 503")

    save(make_model(), tmp_path, 9)
    monkeypatch.setattr(tf.io.gfile, "stat", away)
    with pytest.raises(tf.errors.UnavailableError):
        weights.list_checkpoints(tmp_path)


def test_errors_say_that_there_is_no_checkpoint(tmp_path):
    with pytest.raises(weights.CheckpointError, match=r"no checkpoint in .*no file ckpt-STEP"):
        weights.restore_model(make_model(), tmp_path)
    with pytest.raises(weights.CheckpointError, match=r"no checkpoint .*/nowhere/ckpt-5"):
        weights.restore_model(make_model(), tmp_path / "nowhere" / "ckpt-5")


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({"blocks": 3}, r"only in this model \(3\):\n    blocks/2/dense/bias \[4\]"),
        ({"blocks": 1}, r"only in the checkpoint \(3\):\n    blocks/1/dense/bias \[4\]"),
        ({"width": 5}, r"blocks/0/dense/bias: \[5\] here, \[4\] in the checkpoint"),
        ({"head": "classifier"}, r"classifier/bias \[3\](.|\n)*only in the checkpoint"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_and_changes_nothing(tmp_path, other, text):
    save(make_model(), tmp_path, 1)
    model = randomize(make_model(**other), 2)
    with pytest.raises(weights.CheckpointError, match=r"another model(.|\n)*" + text):
        weights.restore_model(model, tmp_path)
    assert_equal(model, randomize(make_model(**other), 2))


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    tf.train.Checkpoint(weights=tf.Variable(1.0)).write(str(tmp_path / "ckpt-1"))
    with pytest.raises(weights.CheckpointError, match="no checkpoint of a training run"):
        weights.restore_model(make_model(), tmp_path)


def test_a_variable_without_a_name_is_refused():
    class Hidden:
        def __init__(self):
            self.layer = keras.layers.Dense(1)

    class Holder(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            hidden = Hidden()
            hidden.layer.build((1, 4))
            self.hidden = hidden

        @property
        def variables(self):
            return self.hidden.layer.variables

    with pytest.raises(ValueError, match="no attribute of the model leads to"):
        weights.named_variables(Holder())
