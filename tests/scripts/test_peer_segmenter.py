"""keras_cv's models behind the interface of ours: one loop trains, saves and scores both."""

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import sp_transformer as spt
from sp_transformer.model.inference import Inference
from sp_transformer.training import optimizer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scripts():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        names = ("peer_segmenter", "peers")
        yield types.SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(ROOT / "scripts"))


@pytest.fixture(scope="module")
def config():
    size = "crop_height: 64 crop_width: 96 resize_height: 64 resize_width: 96"
    return spt.load_config(
        ROOT / "configs" / "camvid" / "recipe.textproto", overrides=[f"data {{ {size} }}"]
    )


@pytest.fixture(scope="module", params=["deeplab_v3_plus", "segformer_b0"])
def peer(request, scripts, config):
    pytest.importorskip("keras_cv")
    return scripts.peer_segmenter.build(request.param, config)


def images(height, width):
    return np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)


def test_the_loss_sees_the_logits_that_are_scored(peer):
    features = peer.features(images(64, 96))
    logits = peer.semantic_logits(features)
    assert logits.shape == (2, 64, 96, 11) and logits.dtype == tf.float32
    np.testing.assert_array_equal(peer.cell_semantic_logits(features), logits)
    np.testing.assert_array_equal(peer.labels(features), tf.argmax(logits, -1))
    labels = np.zeros((2, 64, 96), np.int32)
    assert peer.labels_by_cell(labels) is labels


def test_images_of_any_size_are_brought_to_that_of_training(peer, config):
    x = images(90, 120)
    labels = Inference(peer, config.data).labels(x)
    assert labels.shape == (2, 90, 120)


def test_all_its_weights_are_trained_and_the_backbone_is_known(peer, config):
    ours = optimizer.create_optimizer(config.training, peer)
    assert len(ours.variables) > 2 * len(peer.trainable_variables)
    of_backbone = {id(v) for v in peer.backbone.trainable_variables}
    all_of_it = {id(v) for v in peer.trainable_variables}
    assert of_backbone < all_of_it and len(of_backbone) > 40


@pytest.mark.parametrize(("suffix", "momentum"), [("", 0.99), ("_our_momentum", 0.9)])
def test_statistics_move_as_the_name_says(scripts, config, suffix, momentum):
    pytest.importorskip("keras_cv")
    assert config.model.backbone.batch_norm_momentum == 0.9
    peer = scripts.peer_segmenter.build("deeplab_v3_plus" + suffix, config)
    noise = np.random.default_rng(1).uniform(0, 255, (2, 64, 96, 3)).astype(np.float32)
    means = []
    for _ in range(2):
        peer(noise, training=True)
        moving = (v for v in peer.non_trainable_variables if v.path.endswith("moving_mean"))
        means.append(np.concatenate([np.array(v) for v in moving]))
    # From 0 by (1 - m) of the batch's mean, then by (1 - m) of what is left.
    assert means[0].size > 2000 and np.abs(means[0]).max() > 1e-3
    np.testing.assert_allclose(means[1], (1 + momentum) * means[0], rtol=1e-3, atol=1e-5)
