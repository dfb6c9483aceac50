"""Training runs: a checkpoint's weights in the Keras model itself, built anew from the run's config.

Letters as in runtime.py.
"""

import os
import pathlib
import re

from sp_transformer import version
from sp_transformer.config import derived, load_config
from sp_transformer.serving import assets
from sp_transformer.serving.runtimes import runtime


def find_run(path) -> tuple[pathlib.Path, pathlib.Path] | None:
    """The config of a training run, and the checkpoint or model_dir to read; None if `path` is none.

    Args:
      path: a model_dir, or a checkpoint as MODEL_DIR/ckpt-STEP or one of its files.
    """
    weights = pathlib.Path(re.sub(r"\.(index|data-\d+-of-\d+)$", "", os.fspath(path)))
    if weights.is_dir():
        folder = weights
    elif pathlib.Path(f"{weights}.index").is_file():
        folder = weights.parent
    else:
        return None
    config = folder / assets.CONFIG
    return (config, weights) if config.is_file() else None


class RunDirectory(runtime.Runtime):
    """A training run's model.

    Attributes:
      config: its ExperimentOptions.
      model: the SPTransformer.
    """

    format = "run"

    def __init__(self, config_file, weights_path):
        """Builds the model and reads its weights, or their moving average where the config says that this is scored.

        Args:
          config_file: the run's config.textproto.
          weights_path: a checkpoint's prefix, or a model_dir, of which the newest readable checkpoint is taken.

        Raises:
          ValueError: if the config is faulty, or there is no checkpoint that fits.
        """
        self.config = load_config(config_file)
        self.label_map = derived.label_map(self.config)
        self.label_map_file = pathlib.Path(config_file)
        self.image_size = None
        # TensorFlow takes seconds to import: only once the config is known to be good.
        from sp_transformer.model import builder, inference, weights

        self.model = builder.build_model(self.config)
        averaged = self.config.evaluation.averaged_weights
        step = weights.restore_model(self.model, os.fspath(weights_path), averaged)
        self.about = {
            "sp_transformer": version.__version__,
            "step": step,
            "averaged_weights": averaged,
        }
        self._inference = inference.Inference(self.model, self.config.data)

    def _run(self, images):
        return {name: value.numpy() for name, value in self._inference.superpixels(images).items()}

    def _labels(self, images):
        return self._inference.labels(images).numpy()

    def _probabilities(self, images):
        return self._inference.probabilities(images).numpy()
