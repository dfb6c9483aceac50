import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from sp_transformer.model import builder, summary
from sp_transformer.model.inference import Inference
from sp_transformer.model.sp_transformer import SPTransformer
from sp_transformer.protos import experiment_pb2

# Small, but with every stage: strides 2, 8 and 16, cells of 2x2 features, a grid of odd height.
SMALL = """
data { dataset: "synthetic_streets" crop_height: 48 crop_width: 64 }
model {
  channels: 16
  backbone { name: "resnet18" }
  hypercolumn { stride: 8 endpoint_strides: 2 endpoint_strides: 8 endpoint_strides: 16 }
  tokenizer { superpixel_stride: 16 position_embedding_stride: 2 }
  classifier { layers: 1 feed_forward_width: 24 }
}
"""


def small_config(extra=""):
    config = text_format.Parse(SMALL, experiment_pb2.ExperimentOptions())
    return text_format.Merge(extra, config)


def randomize(model, seed=0):
    """Fresh weights leave residual branches at zero; random ones make every part count."""
    generator = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        noise = generator.normal(size=variable.shape) * 0.1
        variable.assign_add(noise)


@pytest.fixture(scope="module")
def model():
    model = builder.build_model(small_config())
    randomize(model)
    return model


def images(height, width, batch=2, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


def test_outputs_and_consumers_agree(model):
    x = images(48, 64)
    out = model(x, training=False)
    assert out["semantic_logits"].shape == (2, 48, 64, 19)
    assert out["superpixel_logits"].shape == (2, 3, 4, 19)
    features = model.features(x, return_endpoints=True)
    assert {s: e.shape[1:3] for s, e in features["endpoints"].items()} == {
        2: (24, 32),
        8: (6, 8),
        16: (3, 4),
    }
    np.testing.assert_array_equal(model.semantic_logits(features), out["semantic_logits"])
    np.testing.assert_array_equal(
        model.labels(features), tf.argmax(out["semantic_logits"], -1, tf.int32)
    )
    ids = model.hard_superpixels(features).numpy()
    # Every pixel belongs to one of the 9 cells around its own.
    rows, columns = np.mgrid[0:48, 0:64] // 16
    assert (np.abs(ids // 4 - rows) <= 1).all() and (np.abs(ids % 4 - columns) <= 1).all()


def test_classes_are_mixed_from_superpixels(model, reference):
    features = model.features(images(48, 64, batch=1))
    scale = 16**-0.5
    logits = reference.association_logits(
        model.pixel_map(features),
        features["superpixel_features"],
        (48, 64),
        "aligned",
        scale,
        -1e9,
    )
    expected = reference.project(logits, features["superpixel_logits"].numpy())
    np.testing.assert_allclose(model.semantic_logits(features), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(
        model.hard_superpixels(features), reference.hard_superpixels(logits, (3, 4))
    )


def test_uint8_and_float_images_give_the_same(model):
    x = images(48, 64)
    np.testing.assert_array_equal(
        model(x)["semantic_logits"], model(x.astype(np.float32))["semantic_logits"]
    )


@pytest.mark.parametrize("size", [(48, 64), (16, 16), (80, 32), (64, 112)])
def test_known_and_unknown_sizes_give_the_same(model, size):
    x = tf.constant(images(*size))
    inference = Inference(model, small_config().data)
    known = tf.function(lambda x: model(x)["semantic_logits"]).get_concrete_function(x)(x)
    np.testing.assert_allclose(inference.logits(x), known, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(47, 64), (48, 65), (1, 1), (33, 70)])
def test_other_sizes_are_padded_with_grey_and_cropped(model, size):
    x = images(*size).astype(np.float32)
    height, width = (-(-side // 16) * 16 for side in size)
    padded = np.full((2, height, width, 3), 127.5, np.float32)
    padded[:, : size[0], : size[1]] = x
    expected = model(padded)
    actual = model(x)
    crop = expected["semantic_logits"][:, : size[0], : size[1]]
    np.testing.assert_array_equal(actual["semantic_logits"], crop)
    np.testing.assert_array_equal(actual["superpixel_logits"], expected["superpixel_logits"])
    labels, ids = Inference(model, small_config().data).labels_and_superpixels(images(*size))
    assert labels.shape == ids.shape == (2, *size)


def test_training_refuses_sizes_that_need_padding(model):
    with pytest.raises(ValueError, match=r"height 40 are not a multiple of 16.*32 and 48"):
        model.features(tf.zeros([1, 40, 64, 3]), training=True)
    with pytest.raises(ValueError, match=r"width 8 are not a multiple of 16.*fits is 16$"):
        model.features(tf.zeros([1, 48, 8, 3]), training=True)


def test_resized_inference_keeps_the_size_of_the_image(model):
    x = images(75, 101)
    data = experiment_pb2.ExperimentOptions().data
    data.resize_height, data.resize_width = 48, 64
    inference = Inference(model, data)
    small = tf.image.resize(tf.constant(x, tf.float32), (48, 64))
    expected = tf.image.resize(model(small)["semantic_logits"], (75, 101))
    np.testing.assert_allclose(inference.logits(x), expected, rtol=1e-4, atol=1e-5)
    labels, ids = inference.labels_and_superpixels(x)
    np.testing.assert_array_equal(labels, tf.argmax(inference.logits(x), -1))
    np.testing.assert_array_equal(labels, inference.labels(x))
    assert ids.shape == (2, 75, 101)


@pytest.mark.parametrize("alignment", ["ALIGNED", "RELATIVE"])
def test_gather_equals_fold_over_the_same_variables(alignment):
    options = f"model {{ association {{ alignment: {alignment} }} }}"
    fold = builder.build_model(small_config(options))
    gather = builder.build_model(
        small_config(options + "model { tokenizer { implementation: GATHER } }")
    )
    randomize(fold)
    assert [v.path for v in fold.variables] == [v.path for v in gather.variables]
    gather.set_weights(fold.get_weights())
    x = tf.constant(images(48, 64), tf.float32)
    results = []
    for model in fold, gather:
        with tf.GradientTape() as tape:
            logits = model.semantic_logits(model.features(x, training=True))
            loss = tf.reduce_mean(tf.square(logits))
        results.append((logits, tape.gradient(loss, model.trainable_variables)))
    (fold_logits, fold_gradients), (gather_logits, gather_gradients) = results
    np.testing.assert_allclose(fold_logits, gather_logits, rtol=1e-3, atol=1e-4)
    largest = max(np.abs(g).max() for g in gather_gradients)
    for actual, expected in zip(fold_gradients, gather_gradients, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-2, atol=1e-5 * largest)


@pytest.mark.parametrize(
    "options",
    [
        "tokenizer { queries: CELL_MEAN position_embedding: false }",
        "tokenizer { projection: LINEAR feed_forward_width: 8 heads: 4 layers: 1 }",
        "tokenizer { superpixel_stride: 8 }",
        "hypercolumn { stride: 4 }",
        "association { scale: 1 }",
        'backbone { name: "convnext_tiny" drop_path_rate: 0.2 }'
        " hypercolumn { max_hidden_channels: 8 }",
    ],
)
def test_every_option_trains(options):
    config = small_config()
    if "convnext" in options:
        del config.model.hypercolumn.endpoint_strides[:]
        config.model.hypercolumn.endpoint_strides.extend([4, 8])
    text_format.Merge(f"model {{ {options} }}", config)
    model = builder.build_model(config)
    with tf.GradientTape() as tape:
        features = model.features(tf.constant(images(48, 64)), training=True)
        logits = model.semantic_logits(features)
        labels = tf.zeros(logits.shape[:3], tf.int32)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    ):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all(), variable.path


def test_bfloat16_keeps_weights_logits_and_softmax_in_float32():
    model = builder.build_model(small_config("training { precision: BFLOAT16 }"))
    assert all(v.dtype == "float32" for v in model.trainable_variables)
    assert model.tokenizer.compute_dtype == "bfloat16"
    x = images(48, 64)
    out = model(x)
    assert out["semantic_logits"].dtype == out["superpixel_logits"].dtype == tf.float32
    assert model.features(x)["pixel_features"].dtype == tf.bfloat16
    exact = builder.build_model(small_config())
    exact.set_weights(model.get_weights())
    difference = np.abs(exact(x)["semantic_logits"] - out["semantic_logits"])
    assert difference.mean() < 0.05 * np.abs(exact(x)["semantic_logits"]).mean()


def test_bfloat16_leaves_fractions_of_images_to_normalization():
    model = builder.build_model(small_config("training { precision: BFLOAT16 }"))
    randomize(model)
    x = np.random.default_rng(0).uniform(128, 255, (1, 48, 64, 3)).astype(np.float32)
    called = model(x)["semantic_logits"]
    np.testing.assert_array_equal(called, model.semantic_logits(model.features(x)))
    # bfloat16 would hold whole numbers only up there.
    assert np.abs(called - model(np.round(x))["semantic_logits"]).max() > 0


def test_building_leaves_the_global_policy_alone():
    import keras

    before = keras.config.dtype_policy().name
    builder.build_model(small_config("training { precision: BFLOAT16 }"))
    assert keras.config.dtype_policy().name == before


@pytest.mark.parametrize("form", ["MINUS_ONE_TO_ONE", "IMAGENET", "CAFFE", "ZERO_TO_ONE", "RAW"])
def test_input_normalization(form):
    from sp_transformer.model import normalization

    pixel = np.array([[[[255, 0, 127.5]]]])
    red, green, blue = {
        "MINUS_ONE_TO_ONE": (1, -1, 0),
        "IMAGENET": ((1 - 0.485) / 0.229, -0.456 / 0.224, (0.5 - 0.406) / 0.225),
        "CAFFE": (127.5 - 103.939, -116.779, 255 - 123.68),
        "ZERO_TO_ONE": (1, 0, 0.5),
        "RAW": (255, 0, 127.5),
    }[form]
    np.testing.assert_allclose(
        normalization.normalize(pixel, form.lower())[0, 0, 0], [red, green, blue], rtol=1e-5
    )


def test_unknown_input_normalization_is_named_at_once(model):
    parts = (getattr(model, part) for part in summary.PARTS)
    with pytest.raises(ValueError, match=r"minus_one_to_one, imagenet.*got 'imagnet'"):
        SPTransformer(*parts, input_normalization="imagnet")


def test_association_by_cell_makes_the_logits_of_the_loss(model):
    features = model.features(images(48, 64))
    weights, classes = model.association_by_cell(features)
    np.testing.assert_allclose(tf.reduce_sum(weights, axis=2), 1, rtol=1e-5)
    mixed = tf.matmul(weights, classes, transpose_a=True)
    np.testing.assert_allclose(mixed, model.cell_semantic_logits(features), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokenizer", ["", "projection: LINEAR feed_forward_width: 8"])
def test_zero_initialized_branches_leave_tokens_as_they_are(tokenizer):
    options = f"model {{ zero_initialized_branches: true tokenizer {{ {tokenizer} }} }}"
    model = builder.build_model(small_config(options))
    x = images(48, 64)
    superpixels = model.superpixel_tokens(x)
    queries = np.broadcast_to(model.tokenizer.query_table, superpixels.shape)
    np.testing.assert_allclose(superpixels, queries, atol=1e-6)
    np.testing.assert_allclose(
        model(x)["superpixel_logits"],
        model.classifier.logits(model.classifier.norm(superpixels)),
        rtol=1e-4,
        atol=1e-5,
    )
    default = builder.build_model(small_config())
    assert np.abs(default.superpixel_tokens(x) - default.tokenizer.query_table).max() > 1e-2
