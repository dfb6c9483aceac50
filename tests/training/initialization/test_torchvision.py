"""State dicts of torchvision's networks give the features of those networks."""

import numpy as np
import pytest

from sp_transformer.training.initialization import InitializationError

RESNET = "stem_max_pool: true batch_norm_epsilon: 1e-5 input_normalization: IMAGENET"
CONVNEXT = "input_normalization: IMAGENET"
NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def resnet_state_dict(network):
    arrays = {"fc.weight": np.zeros((10, 8), np.float32), "fc.bias": np.zeros(10, np.float32)}
    for (stage, block, conv), variables in network.items():
        if not stage:
            parents = ("conv1", "bn1")
        elif conv:
            parents = (f"layer{stage - 1}.{block}.{kind}{conv}" for kind in ("conv", "bn"))
        else:
            parents = (f"layer{stage - 1}.{block}.downsample.{position}" for position in (0, 1))
        conv_name, norm_name = parents
        for variable, array in variables.items():
            if variable == "kernel":
                arrays[f"{conv_name}.weight"] = array.transpose(3, 2, 0, 1)
            else:
                arrays[f"{norm_name}.{NAMES[variable]}"] = array
        arrays[f"{norm_name}.num_batches_tracked"] = np.array(5)
    return arrays


def convnext_state_dict(network):
    arrays = {"classifier.2.bias": np.zeros(10, np.float32)}
    for (stage, block, layer), variables in network.items():
        if block is None:
            position = (
                ("conv", "norm").index(layer) if stage == 1 else ("norm", "conv").index(layer)
            )
            parent = f"features.{2 * stage - 2}.{position}"
        elif layer == "layer_scale":
            parent = f"features.{2 * stage - 1}.{block}.layer_scale"
            arrays[parent] = variables["gamma"][:, None, None]
            continue
        else:
            number = {"depthwise": 0, "norm": 2, "expand": 3, "reduce": 5}[layer]
            parent = f"features.{2 * stage - 1}.{block}.block.{number}"
        for variable, array in variables.items():
            if variable == "kernel" and layer == "depthwise":
                array = array.transpose(2, 3, 0, 1)
            elif variable == "kernel":
                array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
            arrays[f"{parent}.{NAMES[variable]}"] = array
    return arrays


def normalized(images):
    return (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]


@pytest.mark.parametrize(("name", "form"), [("resnet18", "write_legacy"), ("resnet50", "write")])
def test_resnet(tmp_path, initialized, references, torch_files, images, name, form):
    network = references.random_resnet(name, pooled=True)
    path = tmp_path / "net.pth"
    getattr(torch_files, form)(path, torch_files.tensors(resnet_state_dict(network)))
    text = f'kind: TORCHVISION path: "{path}"'
    model, report = initialized(name, text, RESNET, strides="2, 4, 8, 16, 32")
    depths = references.RESNET_DEPTHS[name]
    expected = references.resnet(network, normalized(images), depths, pooled=True, epsilon=1e-5)
    endpoints = model(images, training=False)
    assert sorted(endpoints) == [2, 4, 8, 16, 32]
    for stride, features in endpoints.items():
        assert 0.3 < np.std(expected[stride]) < 10
        np.testing.assert_allclose(features, expected[stride], atol=1e-4)
    assert len(report.loaded) == 5 * len(network)
    assert not report.missing and not report.mismatched and not report.unexpected
    assert {"fc.weight", "fc.bias", "bn1.num_batches_tracked"} <= set(report.unused)


def test_convnext(tmp_path, initialized, references, torch_files, images):
    network = references.random_convnext("convnext_tiny")
    torch_files.write(tmp_path / "net.pth", torch_files.tensors(convnext_state_dict(network)))
    text = f'kind: TORCHVISION path: "{tmp_path / "net.pth"}"'
    model, report = initialized("convnext_tiny", text, CONVNEXT, strides="4, 8, 16, 32")
    expected = references.convnext(network, normalized(images))
    for stride, features in model(images, training=False).items():
        assert np.std(expected[stride]) > 0.3
        np.testing.assert_allclose(features, expected[stride], atol=1e-4)
    assert report.unused == ("classifier.2.bias",) and report.fits


def test_a_larger_network_is_no_source_although_all_shapes_fit(
    tmp_path, initialized, references, torch_files
):
    """Such as ResNet-101's file for a ResNet-50."""
    arrays = resnet_state_dict(references.random_resnet("resnet18", pooled=True))
    arrays["layer3.2.conv1.weight"] = arrays["layer3.1.conv1.weight"]
    torch_files.write(tmp_path / "net.pth", torch_files.tensors(arrays))
    text = f'kind: TORCHVISION path: "{tmp_path / "net.pth"}"'
    with pytest.raises(
        InitializationError, match=r"only in the file \(1\):\n    layer3\.2\.conv1\.weight"
    ):
        initialized("resnet18", text, RESNET)
    # Stages behind our last endpoint are no fault, and neither is it one that was allowed.
    _, report = initialized("resnet18", text, RESNET, strides="2, 8")
    assert "layer3.2.conv1.weight" in report.unused
    _, report = initialized("resnet18", f"{text} strict: false", RESNET)
    assert report.unexpected == ("layer3.2.conv1.weight",)


def test_another_network_is_refused(tmp_path, initialized, references, torch_files):
    arrays = resnet_state_dict(references.random_resnet("resnet50", pooled=True))
    torch_files.write(tmp_path / "net.pth", torch_files.tensors(arrays))
    text = f'kind: TORCHVISION path: "{tmp_path / "net.pth"}"'
    with pytest.raises(InitializationError) as error:
        initialized("resnet18", text, RESNET)
    message = str(error.value)
    assert "backbone/stage2/0/convs/0/conv/kernel: [3, 3, 64, 64] here, [1, 1, 64, 64]" in message
    assert "set model.backbone.name to the network of torchvision" in message
    with pytest.raises(InitializationError, match=r"of which 0 of 178 .*\n.*missing .*\(178\)"):
        initialized("convnext_tiny", text, CONVNEXT)
