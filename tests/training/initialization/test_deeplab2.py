"""Encoders in checkpoints as DeepLab2 writes them give the features of DeepLab2's networks."""

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.training.initialization import InitializationError

LAYERS = {
    "depthwise": "depthwise_conv",
    "norm": "norm",
    "expand": "pointwise_conv1",
    "reduce": "pointwise_conv2",
}


def tree(arrays):
    """The object with variables at the paths of {path: array}."""
    children = {}
    for path, array in arrays.items():
        head, _, rest = path.partition("/")
        children.setdefault(head, {})[rest] = array
    return tf.train.Checkpoint(
        **{
            name: tf.Variable(below[""]) if "" in below else tree(below)
            for name, below in children.items()
        }
    )


def resnet_arrays(network):
    arrays = {}
    for (stage, block, conv), variables in network.items():
        parts = ("_shortcut", "_conv1_bn_act", "_conv2_bn_act", "_conv3_bn")
        parent = f"_stage{stage}/_block{block + 1}/{parts[conv]}" if stage else "_stem"
        for variable, array in variables.items():
            layer = "_conv" if variable == "kernel" else "_batch_norm"
            arrays[f"{parent}/{layer}/{variable}"] = array
    return arrays


def convnext_arrays(network):
    arrays = {}
    for (stage, block, layer), variables in network.items():
        if block is None:
            position = (
                ("conv", "norm").index(layer) if stage == 1 else ("norm", "conv").index(layer)
            )
            parent = f"downsample_layers/{stage - 1}/layer_with_weights-{position}"
        else:
            parent = f"stages/{stage - 1}/layer_with_weights-{block}"
            if layer == "layer_scale":
                arrays[f"{parent}/layer_scale"] = variables["gamma"][None, None, None]
                continue
            parent = f"{parent}/{LAYERS[layer]}"
        for variable, array in variables.items():
            # The kernel of a grouped convolution.
            grouped = layer == "depthwise" and variable == "kernel"
            arrays[f"{parent}/{variable}"] = array.transpose(0, 1, 3, 2) if grouped else array
    return arrays


@pytest.fixture(scope="module")
def network(references):
    return references.random_resnet("resnet50", pooled=False)


@pytest.mark.parametrize("root", ["encoder/", "backbone/_encoder/", ""])
def test_resnet50(tmp_path, initialized, references, images, network, root):
    arrays = {root + name: array for name, array in resnet_arrays(network).items()}
    arrays |= {"global_step": np.array(3), "decoder/kernel": np.zeros(3, np.float32)}
    prefix = tree(arrays).write(str(tmp_path / "ckpt-1"))
    strides = "2, 4, 8, 16, 32" if root == "encoder/" else "2, 8"
    model, report = initialized("resnet50", f'kind: DEEPLAB2 path: "{prefix}"', strides=strides)
    expected = references.resnet(
        network,
        images / 127.5 - 1,
        references.RESNET_DEPTHS["resnet50"],
        pooled=False,
        epsilon=1e-3,
    )
    for stride, features in model(images, training=False).items():
        assert 0.3 < np.std(expected[stride]) < 10
        np.testing.assert_allclose(features, expected[stride], atol=1e-4)
    assert report.fits and {"global_step", "decoder/kernel"} <= set(report.unused)


@pytest.mark.parametrize("zero_padding", [True, False])
def test_convnext(tmp_path, initialized, references, images, zero_padding):
    network = references.random_convnext("convnext_tiny")
    arrays = {f"encoder/{name}": array for name, array in convnext_arrays(network).items()}
    tree(arrays).write(str(tmp_path / "ckpt-1"))
    text, backbone = f'kind: DEEPLAB2 path: "{tmp_path}"', "zero_padding: true"
    if not zero_padding:
        text, backbone = text + ' accepted_differences: "model.backbone.zero_padding"', ""
    model, report = initialized("convnext_tiny", text, backbone, strides="4, 8, 16, 32")
    expected = references.convnext(network, images / 127.5 - 1, zero_padding)
    for stride, features in model(images, training=False).items():
        assert np.std(expected[stride]) > 0.3
        np.testing.assert_allclose(features, expected[stride], atol=1e-4)
    assert report.fits and not report.unused


def test_optimizer_slots_are_no_variables(tmp_path, initialized, network):
    arrays = {f"encoder/{name}": array for name, array in resnet_arrays(network).items()}
    root = tree(arrays)
    kernel = root.encoder._stem._conv.kernel
    optimizer = tf.compat.v1.train.MomentumOptimizer(1.0, 0.9)
    optimizer.apply_gradients([(tf.ones_like(kernel), kernel)])
    prefix = tf.train.Checkpoint(encoder=root.encoder, optimizer=optimizer).write(
        str(tmp_path / "ckpt-1")
    )
    model, report = initialized("resnet50", f'kind: DEEPLAB2 path: "{prefix}"')
    np.testing.assert_array_equal(model.backbone.stem.conv.kernel, kernel)
    assert report.fits and any(".OPTIMIZER_SLOT" in key for key in report.unused)


def test_what_holds_no_such_encoder_is_refused(tmp_path, initialized, network):
    arrays = resnet_arrays(network)
    one = tree({f"encoder/{name}": array for name, array in arrays.items()})
    prefix = one.write(str(tmp_path / "ckpt-1"))
    with pytest.raises(InitializationError, match=r"no encoder convnext_tiny .*root are encoder;"):
        initialized("convnext_tiny", f'kind: DEEPLAB2 path: "{prefix}"', "zero_padding: true")
    stem = {"_stem/_conv/kernel": arrays["_stem/_conv/kernel"]}
    two = tree({f"{root}/{name}": array for root in "ab" for name, array in stem.items()})
    with pytest.raises(InitializationError, match="holds 2 encoders, below a/, b/"):
        initialized("resnet50", f'kind: DEEPLAB2 path: "{two.write(str(tmp_path / "two"))}"')
    more = tree(stem | {"_stage3/_block9/_shortcut/_conv/kernel": np.zeros(1, np.float32)})
    with pytest.raises(InitializationError, match=r"only in the file \(1\):\n    _stage3/_block9"):
        initialized("resnet50", f'kind: DEEPLAB2 path: "{more.write(str(tmp_path / "more"))}"')


def test_missing_torn_and_foreign_checkpoints(tmp_path, initialized, network):
    def load(path):
        initialized("resnet50", f'kind: DEEPLAB2 path: "{path}"')

    with pytest.raises(InitializationError, match=r"/nowhere is no checkpoint.*no file .*\.index"):
        load("/nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InitializationError, match="is a folder without checkpoints"):
        load(tmp_path / "empty")
    prefix = tree(resnet_arrays(network)).write(str(tmp_path / "ckpt-1"))
    for part in ("data-00000-of-00001", "index"):
        file = tmp_path / f"ckpt-1.{part}"
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(InitializationError, match="truncated or corrupt"):
            load(prefix)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.compat.v1.get_variable("resnet/kernel", [2])
        session.run(variable.initializer)
        saver = tf.compat.v1.train.Saver()
        old = saver.save(session, str(tmp_path / "old.ckpt"), write_meta_graph=False)
    with pytest.raises(InitializationError, match=r"is no TF2 checkpoint.*TensorFlow 1"):
        load(old)
