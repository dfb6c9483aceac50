"""Weight files of keras.applications and keras_cv, in each layout, give the features of those networks."""

import h5py
import keras
import numpy as np
import pytest

from sp_transformer.model.backbones import keras_cv_backbone
from sp_transformer.training.initialization import InitializationError

RESNET = (
    "stem_max_pool: true stride_in_first_conv: true conv_bias: true batch_norm_epsilon: 1.001e-5 "
    "input_normalization: CAFFE"
)
CONVNEXT = "input_normalization: IMAGENET"


def randomize(network, seed=0):
    rng = np.random.default_rng(seed)
    for variable in network.weights:
        shape = variable.shape
        if "variance" in variable.path:
            value = rng.uniform(0.5, 2, shape)
        elif len(shape) > 1:
            value = rng.normal(0, np.sqrt(1 / np.prod(shape[:-1])), shape)
        elif "gamma" in variable.name or "layer_scale" in variable.path:
            value = rng.uniform(0.3, 0.8, shape)
        else:
            value = rng.normal(0, 0.2, shape)
        variable.assign(value)
    return network


def save_legacy(network, path):
    """The layout of Keras 2, in which keras.applications' files are published."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in network.layers]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.10.0"
        for layer in network.layers:
            group = file.create_group(layer.name)
            # Keras 2 lists the trainable ones first.
            variables = [*layer.trainable_weights, *layer.non_trainable_weights]
            names = [f"{layer.name}/{i}_{v.name}:0" for i, v in enumerate(variables)]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, variable in zip(names, variables, strict=True):
                group.create_dataset(name, data=np.asarray(variable))


def save(network, folder, layout):
    if layout == "legacy":
        save_legacy(network, folder / "net_notop.h5")
        return folder / "net_notop.h5"
    network.save_weights(folder / "net.weights.h5")
    return folder / "net.weights.h5"


@pytest.mark.parametrize(("layout", "top"), [("legacy", False), ("weights", True)])
def test_applications_resnet50(tmp_path, initialized, images, layout, top):
    network = randomize(keras.applications.ResNet50(weights=None, include_top=top))
    path = save(network, tmp_path, layout)
    text = f'kind: KERAS_APPLICATIONS path: "{path}"'
    model, report = initialized("resnet50", text, RESNET, strides="2, 8, 16, 32")
    taps = {2: "conv1_bn", 8: "conv3_block4_add", 16: "conv4_block6_add", 32: "conv5_block3_add"}
    whole = keras.applications.ResNet50(weights=None, include_top=False)
    whole.set_weights(network.get_weights()[: len(whole.weights)])
    outputs = [whole.get_layer(name).output for name in taps.values()]
    inputs = keras.applications.resnet50.preprocess_input(np.float32(images))
    expected = keras.Model(whole.inputs, outputs)(inputs, training=False)
    endpoints = model(images, training=False)
    for stride, features in zip(taps, expected, strict=True):
        assert np.std(features) > 0.1
        np.testing.assert_allclose(endpoints[stride], features, atol=1e-4, rtol=2e-6)
    assert report.fits and len(report.loaded) == 318
    assert report.unused == (("predictions/bias", "predictions/kernel") if top else ())


@pytest.mark.parametrize(("layout", "top"), [("legacy", True), ("weights", False)])
def test_applications_convnext(tmp_path, initialized, images, layout, top):
    network = randomize(keras.applications.ConvNeXtTiny(weights=None, include_top=top))
    path = save(network, tmp_path, layout)
    text = f'kind: KERAS_APPLICATIONS path: "{path}"'
    model, report = initialized("convnext_tiny", text, CONVNEXT, strides="4, 32")
    whole = keras.applications.ConvNeXtTiny(weights=None, include_top=False)
    values = network.get_weights()
    whole.set_weights(values[: len(whole.weights)])
    norm = whole.layers[-1]
    stem = whole.get_layer("convnext_tiny_stem").output
    # The network normalises by itself.
    expected = keras.Model(whole.inputs, [stem, norm.input])(np.float32(images), training=False)
    endpoints = model(images, training=False)
    for stride, features in zip((4, 32), expected, strict=True):
        assert np.std(features) > 0.1
        np.testing.assert_allclose(endpoints[stride], features, atol=1e-4)
    assert report.fits and len(report.unused) == (4 if top else 2)


@pytest.mark.parametrize("preset", ["resnet18", "mobilenet_v3_small", "efficientnetv2_b0"])
def test_keras_cv(tmp_path, initialized, images, preset):
    network = randomize(keras_cv_backbone.build_network(preset))
    network.save_weights(tmp_path / "net.weights.h5")
    text = f'kind: KERAS_CV path: "{tmp_path / "net.weights.h5"}"'
    options = "input_normalization: ZERO_TO_ONE"
    model, report = initialized(f"keras_cv/{preset}", text, options, strides="4, 8")
    levels = network.pyramid_level_inputs
    outputs = [network.get_layer(levels[f"P{level}"]).output for level in (2, 3)]
    expected = keras.Model(network.inputs, outputs)(images / np.float32(255), training=False)
    endpoints = model(images, training=False)
    for stride, features in zip((4, 8), expected, strict=True):
        assert np.std(features) > 1e-3
        np.testing.assert_allclose(endpoints[stride], features, atol=1e-4)
    assert report.fits and report.unused


def test_files_of_other_kinds_and_networks(tmp_path, initialized):
    def load(path):
        initialized("resnet50", f'kind: KERAS_APPLICATIONS path: "{path}"', RESNET)

    other = tmp_path / "other.h5"
    other.write_bytes(b"PK\x03\x04 no HDF5")
    with pytest.raises(InitializationError, match="is no HDF5 file"):
        load(other)
    small = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    small.save_weights(tmp_path / "small.weights.h5")
    with pytest.raises(
        InitializationError, match=r"holds 2 arrays.*318 \(ResNet50 without its head\)"
    ):
        load(tmp_path / "small.weights.h5")
    torn = tmp_path / "torn.h5"
    torn.write_bytes((tmp_path / "small.weights.h5").read_bytes()[:900])
    with pytest.raises(InitializationError, match=r"torn\.h5 cannot be read, it is truncated"):
        load(torn)


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_a_network_with_as_many_arrays_of_other_shapes_is_refused(tmp_path, initialized):
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        for i in range(318):
            file[f"layers/dense_{i}/vars/0"] = np.zeros(3)
    path = tmp_path / "a.weights.h5"
    with pytest.raises(InitializationError, match="does not hold the weights of ResNet50 without"):
        initialized("resnet50", f'kind: KERAS_APPLICATIONS path: "{path}"', RESNET)
