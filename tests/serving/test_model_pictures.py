"""Which image the model is shown for pictures of association and attention."""

import types

import numpy as np
import pytest

from sp_transformer.pictures import model_views
from sp_transformer.protos import experiment_pb2
from sp_transformer.serving import model_pictures


class Seen(Exception):
    """Ends the call once the model was given its image."""


def test_it_is_the_one_that_predictions_are_made_of(monkeypatch):
    config = experiment_pb2.ExperimentOptions()
    config.data.resize_height, config.data.resize_width = 24, 32
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    prediction = types.SimpleNamespace(image=image, superpixels=np.zeros((48, 64), np.int32))
    seen = {}

    def association(model, image, pixel):
        seen.update(image=image, pixel=pixel)
        raise Seen

    monkeypatch.setattr(model_views, "association_of_pixel", association)
    runtime = types.SimpleNamespace(model=object(), config=config)
    with pytest.raises(Seen):
        model_pictures.ModelPictures(runtime, pixel=(31, 20))(prediction)
    # Bilinear without smoothing: half the size is the mean of 2x2 pixels.
    blocks = image.astype(float).reshape(24, 2, 32, 2, 3)
    np.testing.assert_allclose(seen["image"], blocks.mean((1, 3)), atol=1e-3)
    assert seen["pixel"] == (15, 10)


def test_names_are_those_of_what_was_asked_for():
    assert model_pictures.drawn() == ()
    assert model_pictures.drawn(pixel=(0, 0)) == ("association",)
    assert model_pictures.drawn(superpixel=0) == ("assignment", "attention")
