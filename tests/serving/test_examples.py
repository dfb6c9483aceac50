"""Images for verification and calibration: of the split, or drawn, and of the size that an export takes."""

import numpy as np

from sp_transformer.config import derived
from sp_transformer.protos import experiment_pb2
from sp_transformer.serving import examples


def test_images_are_those_of_the_split_with_an_odd_one_at_the_end(config):
    found, words = examples.verification_examples(config, None, 3)
    assert words == "split 'val'"
    assert [example.image.shape for example in found] == [(33, 38, 3)] * 2 + [(28, 35, 3)]
    # The config's classes are not those that streets are drawn with.
    assert all(example.labels is None for example in found)


def test_without_the_split_streets_are_drawn(tmp_path):
    config = experiment_pb2.ExperimentOptions()
    config.data.dataset = "cityscapes"
    config.data.data_dir = str(tmp_path / "absent")
    config.data.crop_height, config.data.crop_width = 48, 64
    found, words = examples.verification_examples(config, (40, 70), 2)
    assert words == "drawn streets" and len(found) == 2
    for example in found:
        assert example.image.shape == (40, 70, 3) and example.labels.shape == (40, 70)
        # What is padded has no truth.
        assert (example.labels[:, 64:] == derived.drawn_label_map().ignore_label).all()
        assert (example.labels[:, :64] < 19).any()
        np.testing.assert_array_equal(example.image[:, 64:], example.image[:, 58:64][:, ::-1])


def test_calibration_takes_the_end_of_the_split(config):
    found = list(examples.calibration_examples(config, (33, 38), 4))
    first, _ = examples.verification_examples(config, (33, 38), 4)
    assert len(found) == 4
    assert not any(np.array_equal(a.image, b.image) for a, b in zip(found, first, strict=True))
