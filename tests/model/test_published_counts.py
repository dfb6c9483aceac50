"""Every shipped config builds; the published ones have the counts of docs/model.md: parameters exactly,
multiply-adds within 0.5 %."""

import gc

import keras
import pytest

import sp_transformer as spt
from sp_transformer.config import derived, loading
from sp_transformer.model import builder, summary
from sp_transformer.model.backbones import convnext
from sp_transformer.protos import model_pb2

# Config, trainable parameters, multiply-adds in G.
ROWS = [
    ("cityscapes/resnet50", 29_645_651, 253.2),
    ("cityscapes/resnet50_1ca", 28_591_955, 234.5),
    ("cityscapes/resnet50_16x32", 29_227_859, 240.1),
    ("cityscapes/resnet50_64x128", 31_316_819, 404.1),
    ("cityscapes/convnext_large", 202_273_875, 1499.8),
    ("ade20k/resnet50", 29_442_774, 78.2),
]
PARTS = {
    "backbone": 172.55,
    "hypercolumn": 29.64,
    "tokenizer": 37.44,
    "classifier": 13.10,
    "association": 0.49,
}


class Endpoints(keras.layers.Layer):
    """Stands in for a backbone that an earlier row has measured: endpoints of its shapes."""

    def __init__(self, channels):
        super().__init__(name="backbone")
        self.channels = channels

    def call(self, images, training=None):
        batch, height, width, _ = images.shape
        return {
            stride: keras.ops.zeros((batch, height // stride, width // stride, channels))
            for stride, channels in self.channels.items()
        }


@pytest.fixture(scope="module")
def measured():
    """{(backbone, input size): (trainable parameters, multiply-adds)}: each is traced once."""
    return {}


@pytest.mark.parametrize(("name", "parameters", "multiply_adds"), ROWS)
def test_row(name, parameters, multiply_adds, monkeypatch, measured):
    # Values do not matter here: draw none for 200 million weights.
    monkeypatch.setattr(convnext, "_truncated_normal", keras.initializers.Zeros)
    config = spt.load_config(f"configs/{name}.textproto")
    size = derived.input_size(config)
    backbone = (config.model.backbone.SerializeToString(), size)
    if backbone in measured:
        stand_in = Endpoints({2: 64, 8: 512, 32: 2048})
        monkeypatch.setattr(builder, "build_backbone", lambda *_: stand_in)
    model = spt.build_model(config)
    trainable = {part: n["trainable"] for part, n in summary.count_parameters(model).items()}
    with summary.paper_form(model):
        count = summary.model_multiply_adds(model, size)
    by_part = dict(count.by_part)
    if backbone in measured:
        assert trainable["backbone"] == by_part["backbone"] == 0
        trainable["backbone"], by_part["backbone"] = measured[backbone]
    measured[backbone] = trainable["backbone"], by_part["backbone"]
    assert sum(trainable.values()) == parameters
    assert sum(by_part.values()) / 1e9 == pytest.approx(multiply_adds, rel=0.005)
    if name == "cityscapes/resnet50":
        # The figure is 0.05G below this count, about the softmax over 9 channels; the sum agrees.
        for part, expected in PARTS.items():
            tolerance = {"abs": 0.06} if part == "association" else {"rel": 0.005}
            assert by_part[part] / 1e9 == pytest.approx(expected, **tolerance), part
    if name == "cityscapes/convnext_large":
        assert (count.total + count.grouped) / 1e9 == pytest.approx(1514.1, rel=0.005)
    del model
    gc.collect()


PUBLISHED = {f"configs/{name}.textproto" for name, _, _ in ROWS}
OTHERS = [
    path
    for path in loading.bundled_configs()
    if "/label_maps/" not in path and path not in PUBLISHED
]


def test_the_published_configs_are_shipped():
    assert set(loading.bundled_configs()) >= PUBLISHED


@pytest.mark.parametrize("path", OTHERS)
def test_config_builds(path, monkeypatch):
    monkeypatch.setattr(convnext, "_truncated_normal", keras.initializers.Zeros)
    config = spt.load_config(path)
    model = spt.build_model(config)
    assert all(part["trainable"] > 0 for part in summary.count_parameters(model).values())
    assert model.num_classes == derived.num_classes(config)
    height, width = derived.input_size(config)
    stride = config.model.tokenizer.superpixel_stride
    tokenizer = model.tokenizer
    rows, columns = (side // tokenizer.cell_size for side in tokenizer.pixel_grid)
    assert (rows, columns) == (height // stride, width // stride)
    if config.model.tokenizer.queries == model_pb2.TokenizerOptions.LEARNED:
        assert tokenizer.query_table.shape[:2] == (rows, columns)
