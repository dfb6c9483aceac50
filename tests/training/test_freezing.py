"""What is frozen gets no gradient, no decay and no new statistics; what is not is trained as ever."""

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model import weights
from sp_transformer.training import freezing, run_directory


def values(model):
    return {name: np.array(v) for name, v in weights.named_variables(model).items()}


@pytest.mark.parametrize("field", ["freeze_backbone", "freeze_batch_norm"])
def test_only_what_is_not_frozen_is_trained(config, tiny, make_run, tmp_path, field):
    setattr(config.training, field, True)
    config.training.weight_decay = 0.5
    run = make_run(tmp_path)
    before = values(run.model)
    run.train()
    frozen = "backbone/" if field == "freeze_backbone" else "backbone/norm/"
    for name, value in values(run.model).items():
        assert np.array_equal(value, before[name]) == name.startswith(frozen), name
    listed = (tmp_path / run_directory.VARIABLES_FILE).read_text()
    assert "backbone/norm/gamma" not in listed and "head/kernel" in listed
    assert ("backbone/conv/kernel" in listed) == (field == "freeze_batch_norm")


def test_frozen_batch_norm_uses_its_moving_statistics_in_training(config, tiny):
    model = tiny.build_model(dropout=0.0)
    images = tf.random.uniform([2, 12, 20, 3], 0, 255)
    assert not np.allclose(
        model.backbone(images, training=True), model.backbone(images, training=False), atol=1e-3
    )
    config.training.freeze_batch_norm = True
    freezing.freeze(model, config.training)
    np.testing.assert_array_equal(
        model.backbone(images, training=True), model.backbone(images, training=False)
    )


def test_a_resume_with_something_else_frozen_is_refused(config, make_run, tmp_path):
    config.training.steps = 2
    config.training.freeze_backbone = True
    make_run(tmp_path).train()
    config.training.steps = 4
    make_run(tmp_path).train()
    config.training.freeze_backbone = False
    with pytest.raises(
        run_directory.RunMismatchError, match=r"training\.freeze_backbone: True before, False now"
    ):
        make_run(tmp_path)


def test_no_operation_of_a_frozen_backbone_has_a_gradient(tiny_run):
    """Neither has it in the graph, so that no activation of it is kept for one."""
    import sp_transformer as spt

    model = spt.build_model(tiny_run.config)

    def backward_convolutions():
        @tf.function
        def gradients(images):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(
                    model.cell_semantic_logits(model.features(images, training=True))
                )
            return tape.gradient(loss, [v.value for v in model.trainable_variables])

        graph = gradients.get_concrete_function(tf.TensorSpec([1, 64, 96, 3])).graph
        return sum("Conv2DBackprop" in operation.type for operation in graph.get_operations())

    assert backward_convolutions() > 20
    model.backbone.trainable = False
    assert backward_convolutions() == 0
