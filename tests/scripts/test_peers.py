"""What is changed about keras_cv's models, and that it changes nothing else."""

import importlib.util
import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "synthetic" / "quickstart.textproto"
SIZE = (64, 128)


@pytest.fixture(scope="module")
def peers():
    pytest.importorskip("keras_cv")
    spec = importlib.util.spec_from_file_location("peers", ROOT / "scripts" / "peers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def config():
    import sp_transformer as spt

    return spt.load_config(CONFIG)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3)).astype(np.uint8)


def shake(model, seed=0):
    """Gives BatchNorm statistics and scales that folding cannot get right by chance."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        kind = variable.path.rsplit("/", 1)[-1]
        if kind in ("moving_variance", "gamma"):
            variable.assign(generator.uniform(0.5, 2.0, variable.shape))
        elif kind in ("moving_mean", "beta"):
            variable.assign(generator.normal(size=variable.shape))


def test_segformer_is_keras_cvs_and_gives_logits_for_rectangles(peers, config, images):
    peer = peers.build("segformer_b0", config, SIZE)
    # keras_cv states this count for the preset with 19 classes.
    trainable = sum(int(np.prod(v.shape)) for v in peer.model.trainable_variables)
    assert trainable == 3_719_027
    logits = peer.logits(images).numpy()
    assert logits.shape == (2, *SIZE, 19)
    assert logits.min() < 0 and np.ptp(logits.sum(-1)) > 1e-3
    np.testing.assert_array_equal(peer.labels(images), logits.argmax(-1))
    # No state goes from one image to the other.
    np.testing.assert_allclose(peer.logits(images[1:]).numpy(), logits[1:], atol=1e-4)


def test_keras_cvs_own_blocks_fail_on_rectangles_and_are_left_as_they_were(peers):
    import tensorflow as tf
    from keras_cv.models import MiTBackbone
    from keras_cv.src.layers import hierarchical_transformer_encoder as encoder_lib

    before = encoder_lib.SegFormerMultiheadAttention
    with peers.mended_for(SIZE):
        assert encoder_lib.SegFormerMultiheadAttention is not before
    assert encoder_lib.SegFormerMultiheadAttention is before
    # If this no longer fails, the mend is to be dropped.
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        MiTBackbone(
            include_rescaling=False,
            depths=[1, 1, 1, 1],
            embedding_dims=[8, 8, 10, 8],
            input_shape=(*SIZE, 3),
        )(tf.zeros([1, *SIZE, 3]))


def test_mended_blocks_compute_what_keras_cvs_do_on_squares(peers):
    from keras_cv.src.layers import hierarchical_transformer_encoder as encoder_lib

    x = np.random.default_rng(0).normal(size=(2, 64, 8)).astype(np.float32)
    # Without reduction, where keras_cv does not mix pixels with channels.
    original = encoder_lib.HierarchicalTransformerEncoder(8, 2, sr_ratio=1)
    with peers.mended_for((32, 32)):
        mended = encoder_lib.HierarchicalTransformerEncoder(8, 2, sr_ratio=1)
    original(x), mended(x)
    mended.set_weights(original.get_weights())
    np.testing.assert_allclose(mended(x), original(x), atol=1e-5)


def test_mended_reduction_sees_the_image_as_it_is(peers):
    """A reduced pixel is the mean of a 2x2 block of the rectangle, in NumPy."""
    import keras
    from keras_cv.src.layers import hierarchical_transformer_encoder as encoder_lib

    height, width, channels = 4, 8, 6
    with peers.mended_for((32, 64)):
        layer = encoder_lib.SegFormerMultiheadAttention(channels, 1, 2)
    x = np.random.default_rng(0).normal(size=(1, height * width, channels)).astype(np.float32)
    layer(x)
    identity = np.eye(channels, dtype=np.float32)
    layer.sr.set_weights([np.tile(identity / 4, (2, 2, 1, 1)), np.zeros(channels)])
    for dense in (layer.q, layer.k, layer.v, layer.proj):
        dense.set_weights([identity, np.zeros(channels)])
    blocks = x.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3)).reshape(-1, channels)
    centred = blocks - blocks.mean(-1, keepdims=True)
    reduced = centred / np.sqrt(blocks.var(-1, keepdims=True) + layer.norm.epsilon)
    products = x[0] @ reduced.T * channels**-0.5
    weights = np.exp(products - products.max(-1, keepdims=True))
    expected = weights / weights.sum(-1, keepdims=True) @ reduced
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x))[0], expected, atol=1e-4)


def test_deeplab_is_folded_exactly_and_then_refuses_to_train(peers, config, images):
    import keras_cv

    peer = peers.build("deeplab_v3_plus", config, SIZE)
    assert isinstance(peer.model, keras_cv.models.DeepLabV3Plus)
    shake(peer.model)
    before = peer.logits(images).numpy()
    assert before.shape == (2, *SIZE, 19) and before.min() < 0
    assert peers.fold_batch_norm(peer.model) == 28
    after = peer.logits(images).numpy()
    np.testing.assert_allclose(after, before, atol=1e-5 * np.abs(before).max())
    with pytest.raises(ValueError, match="folded"):
        peer.logits(images, training=True)


def test_only_batch_norm_right_behind_a_convolution_of_its_own_is_folded(peers):
    import keras

    inputs = keras.Input((8, 8, 3))
    shared = keras.layers.Conv2D(4, 1)(inputs)
    normed = keras.layers.BatchNormalization()(shared)
    x = keras.layers.Add()([shared, normed])
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(4, 3, use_bias=True, bias_initializer="normal")(x)
    x = keras.layers.BatchNormalization()(x)
    model = keras.Model(inputs, x)
    shake(model)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    before = model(images).numpy()
    assert peers.fold_batch_norm(model) == 1
    np.testing.assert_allclose(model(images), before, atol=1e-4)


def test_bfloat16_reaches_the_peers(peers, images):
    import keras

    import sp_transformer as spt

    config = spt.load_config(CONFIG, ["training { precision: BFLOAT16 }"])
    peer = peers.build("deeplab_v3_plus", config, SIZE)
    assert peer.model.get_layer("encoder_output_upsampling").output.dtype == "bfloat16"
    assert {variable.dtype for variable in peer.model.trainable_variables} == {"float32"}
    assert peer.logits(images).dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [("deeplab_v3", SIZE, "known: deeplab_v3_plus"), ("segformer_b0", (48, 80), "64x96")],
)
def test_faulty_peers_are_refused(peers, config, name, size, words):
    with pytest.raises(ValueError, match=words):
        peers.build(name, config, size)
