"""Keeping the best checkpoint where training's own deleting does not reach it."""

import json
import os
import uuid

import pytest
import tensorflow as tf

from sp_transformer.model import weights
from sp_transformer.training import best


@pytest.fixture(params=["disk", "ram"])
def model_dir(request, tmp_path):
    path = str(tmp_path) if request.param == "disk" else f"ram://{uuid.uuid4().hex}/run"
    tf.io.gfile.makedirs(path)
    with tf.io.gfile.GFile(os.path.join(path, "config.textproto"), "w") as file:
        file.write('experiment_name: "a"')
    return path


def save(model_dir, step, value=None):
    """Writes a checkpoint whose weight is `value`, or the step."""
    value = tf.Variable(float(step if value is None else value))
    checkpoint = tf.train.Checkpoint(model=value, step=tf.Variable(step, dtype=tf.int64))
    return checkpoint.write(weights.checkpoint_prefix(model_dir, step))


def offer(model_dir, step, miou, split="val", num_images=5):
    metrics = {"step": step, "miou": miou, "split": split, "num_images": num_images}
    return best.offer(model_dir, weights.checkpoint_prefix(model_dir, step), metrics)


def kept(model_dir):
    """Step and weight of each checkpoint in best."""
    return [
        (step, float(weights.read(prefix).get_tensor("model/.ATTRIBUTES/VARIABLE_VALUE")))
        for step, prefix in weights.list_checkpoints(os.path.join(model_dir, "best"))
    ]


def test_only_a_higher_score_takes_the_place(model_dir):
    assert best.recorded(model_dir) is None
    for step, miou, taken in [(4, 0.3, True), (8, 0.5, True), (12, 0.5, False), (16, 0.4, False)]:
        save(model_dir, step)
        assert offer(model_dir, step, miou) is taken
    assert kept(model_dir) == [(8, 8.0)]
    assert best.recorded(model_dir) == {"step": 8, "miou": 0.5, "split": "val", "num_images": 5}
    names = sorted(tf.io.gfile.listdir(os.path.join(model_dir, "best")))
    assert names == [
        "best.json",
        "ckpt-8.data-00000-of-00001",
        "ckpt-8.index",
        "config.textproto",
    ]


def test_the_copy_outlives_what_training_does_to_the_original(model_dir):
    prefix = save(model_dir, 4)
    assert offer(model_dir, 4, 0.3)
    save(model_dir, 4, value=99)
    assert kept(model_dir) == [(4, 4.0)]
    for name in tf.io.gfile.glob(prefix + ".*"):
        tf.io.gfile.remove(name)
    assert kept(model_dir) == [(4, 4.0)]


def test_a_copy_that_was_cut_off_leaves_the_best_before(model_dir, monkeypatch):
    save(model_dir, 4)
    assert offer(model_dir, 4, 0.3)
    save(model_dir, 8)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(best.files, "copy", killed)
        with pytest.raises(KeyboardInterrupt):
            offer(model_dir, 8, 0.5)
    assert kept(model_dir) == [(4, 4.0)] and best.recorded(model_dir)["step"] == 4
    with monkeypatch.context() as patch:
        # The checkpoint is there, and its record is not.
        patch.setattr(best.files, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            offer(model_dir, 8, 0.5)
    assert kept(model_dir) == [(4, 4.0), (8, 8.0)]
    assert offer(model_dir, 8, 0.5)
    assert kept(model_dir) == [(8, 8.0)]


def test_scores_of_other_images_do_not_compare(model_dir, caplog):
    save(model_dir, 4)
    save(model_dir, 8)
    assert offer(model_dir, 4, 0.9, num_images=1)
    assert offer(model_dir, 8, 0.2, num_images=5)
    assert "step 8 takes the place of step 4" in caplog.text


def test_a_checkpoint_that_is_gone_is_said_and_a_damaged_record_is_none(model_dir):
    with pytest.raises(tf.errors.NotFoundError):
        offer(model_dir, 4, 0.3)
    folder = os.path.join(model_dir, "best")
    tf.io.gfile.makedirs(folder)
    for text in ("", "{", "[]", json.dumps({"step": 3})):
        path = os.path.join(folder, best.RECORD_FILE)
        if tf.io.gfile.exists(path):
            tf.io.gfile.remove(path)
        with tf.io.gfile.GFile(path, "w") as file:
            file.write(text)
        assert best.recorded(model_dir) is None
