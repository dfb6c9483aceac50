"""The shape-blind baselines, on data whose best answers are known."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

PATH = pathlib.Path(__file__).parents[2] / "scripts" / "baselines.py"


@pytest.fixture(scope="module")
def baselines():
    pytest.importorskip("sklearn")
    spec = importlib.util.spec_from_file_location("baselines", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ListSource:
    """Images and labels from memory."""

    def __init__(self, examples):
        self.examples = examples

    def __len__(self):
        return len(self.examples)

    def name(self, index):
        return f"image_{index}"

    def read(self, index):
        return self.examples[index]


def _halves(count, height=12, width=16, seed=0):
    """Left half class 0, right half class 1, one ignored row, colours without meaning."""
    generator = np.random.default_rng(seed)
    label = np.zeros((height, width), np.uint8)
    label[:, width // 2 :] = 1
    label[0] = 255
    return [
        (generator.integers(0, 256, (height, width, 3), dtype=np.uint8), label)
        for _ in range(count)
    ]


def test_mean_iou_by_hand(baselines):
    confusion = np.array([[3, 1, 0, 0], [2, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert baselines.mean_iou(confusion) == pytest.approx((3 / 6 + 4 / 7) / 2)
    # A class that is only predicted counts as zero.
    confusion[0, 2] = 2
    assert baselines.mean_iou(confusion) == pytest.approx((3 / 8 + 4 / 7 + 0) / 3)


def test_mean_iou_of_nothing(baselines):
    with pytest.raises(ValueError, match="no labelled pixel"):
        baselines.mean_iou(np.zeros((3, 3), np.int64))


def test_confusion_of_constant_equals_image_by_image(baselines):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 6, (9, 5, 7))  # 5 is no class: ignored.
    prediction = generator.integers(0, 5, (5, 7))
    counts = np.zeros((5, 5, 7), np.int32)
    expected = np.zeros((5, 5), np.int64)
    for label in labels:
        baselines.add_position_counts(counts, label)
        for true, guess in zip(label.ravel(), prediction.ravel(), strict=True):
            if true < 5:
                expected[true, guess] += 1
    result = baselines.confusion_of_constant(prediction, counts)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.int64


def test_both_are_perfect_where_position_tells_all(baselines):
    scores = baselines.score_baselines(ListSource(_halves(4)), ListSource(_halves(2, seed=1)), 3)
    assert scores["constant_per_position_miou"] == 1.0
    assert scores["color_position_miou"] > 0.95


def test_only_colour_tells(baselines):
    def examples(count, seed):
        generator = np.random.default_rng(seed)
        for _ in range(count):
            label = generator.integers(0, 2, (20, 20)).astype(np.uint8)
            yield np.repeat(label[..., None] * 200 + 20, 3, -1).astype(np.uint8), label

    scores = baselines.score_baselines(
        ListSource(list(examples(6, 0))), ListSource(list(examples(3, 1))), 2
    )
    assert scores["color_position_miou"] > 0.99
    assert scores["constant_per_position_miou"] < 0.5


def test_best_constant_beats_the_most_frequent_class(baselines):
    # Class 1 is rare everywhere, yet claiming the one place it occurs at is worth its false alarms.
    counts = np.zeros((2, 4, 4), np.int32)
    counts[0] = 10
    counts[:, 0, 0] = 6, 4
    best = baselines.best_constant_prediction(counts)
    assert best[0, 0] == 1 and best.sum() == 1
    frequent = baselines.mean_iou(baselines.confusion_of_constant(counts.argmax(0), counts))
    assert baselines.mean_iou(baselines.confusion_of_constant(best, counts)) > frequent


def test_best_constant_is_best_of_all_on_a_small_grid(baselines):
    generator = np.random.default_rng(4)
    counts = generator.integers(0, 9, (2, 2, 4)).astype(np.int32)
    scores = []
    for code in range(2**8):
        prediction = np.array([(code >> bit) & 1 for bit in range(8)]).reshape(2, 4)
        scores.append(baselines.mean_iou(baselines.confusion_of_constant(prediction, counts)))
    found = baselines.best_constant_prediction(counts)
    score = baselines.mean_iou(baselines.confusion_of_constant(found, counts))
    assert score == pytest.approx(max(scores), abs=0.02)


def test_sizes_that_differ_go_to_the_most_common(baselines):
    train = _halves(3) + _halves(1, height=24, width=32)
    held_out = _halves(1, height=9, width=20, seed=1)
    scores = baselines.score_baselines(ListSource(train), ListSource(held_out), 2)
    assert scores["constant_per_position_miou"] == 1.0


def test_resize_nearest_odd_sizes(baselines):
    labels = np.arange(15).reshape(3, 5)
    np.testing.assert_array_equal(baselines.resize_nearest(labels, (6, 10))[::2, ::2], labels)
    np.testing.assert_array_equal(baselines.resize_nearest(labels, (1, 1)), [[7]])


def test_features_of_a_pixel(baselines):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    features = baselines.pixel_features(image)
    assert features.shape == (4, 5, 8)
    np.testing.assert_allclose(features[2, 3, 3:6], image[1:4, 2:5].mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(features[2, 3, 6:], [0.5, 0.6])


def test_faults_are_named(baselines):
    image, label = _halves(1)[0]
    labelled, bare = ListSource([(image, label)]), ListSource([(image, None)])
    with pytest.raises(ValueError, match="image_0 has no labels"):
        baselines.score_baselines(labelled, bare, 2)
    void = ListSource([(image, np.full_like(label, 255))])
    with pytest.raises(ValueError, match="no labelled pixel"):
        baselines.score_baselines(void, void, 2)


def test_from_config_to_json(baselines, tmp_path, capsys):
    for split, seed in (("train", 0), ("val", 1)):
        for i, (image, label) in enumerate(_halves(3, seed=seed)):
            (tmp_path / split).mkdir(exist_ok=True)
            Image.fromarray(image).save(tmp_path / split / f"{i}_rgb.png")
            Image.fromarray(label).save(tmp_path / split / f"{i}_ids.png")
    config = PATH.parents[1] / "configs" / "synthetic" / "quickstart.textproto"
    splits = "".join(
        f'splits {{ name: "{split}" images: "{split}/*_rgb.png" labels: "{split}/*_ids.png" }}'
        for split in ("train", "val")
    )
    classes = 'classes { name: "a" color: "#102030" } classes { name: "b" color: "#203040" }'
    dataset = f'dataset: "folder" folder {{ {splits} }} label_map {{ {classes} }}'
    output = tmp_path / "out" / "baselines.json"
    baselines.main(
        [
            f"--config_file={config}",
            f"--override=data {{ {dataset} }}",
            f"--data_dir={tmp_path}",
            "--max_train_images=2",
            f"--output_json={output}",
        ]
    )
    scores = json.loads(output.read_text())
    names = {"constant_per_position_miou", "color_position_miou"}
    assert set(scores) == names | {"most_frequent_per_position_miou"}
    assert scores["constant_per_position_miou"] == 1.0
    assert "constant_per_position_miou: 1.0000" in capsys.readouterr().out
