"""The modes of the training program: train, evaluate, or both in turns."""

import json
import os

import tensorflow as tf

from sp_transformer.evaluation import evaluator
from sp_transformer.model import builder, inference, weights
from sp_transformer.training import loop


def run(mode, config, model_dir):
    """Runs `mode`: "train", "eval" or "train_and_eval".

    Args:
      mode: what to do.
      config: a validated ExperimentOptions.
      model_dir: directory of the run; evaluation writes to model_dir/eval.
    """
    if mode == "train":
        loop.train(config, model_dir)
    elif mode == "eval":
        _evaluate_newest(config, model_dir, Evaluation(config, model_dir))
    elif mode == "train_and_eval":
        evaluation = Evaluation(config, model_dir)
        summary = loop.train(config, model_dir, after_save=evaluation)
        if evaluation.last_step() != summary.steps:
            # A kill came between the last save and its evaluation.
            _evaluate_newest(config, model_dir, evaluation)
    else:
        raise ValueError(f"unknown mode {mode!r}; use train, eval or train_and_eval")


def _evaluate_newest(config, model_dir, evaluation):
    model = builder.build_model(config)
    evaluation(weights.restore_model(model, model_dir), model)


class Evaluation:
    """Evaluates a model as it is after `step`, into model_dir/eval: an `after_save` of the loop."""

    def __init__(self, config, model_dir):
        self._config = config
        self._model_dir = model_dir
        self._output_dir = os.path.join(model_dir, "eval")
        self._writer = None
        self._inference = None

    def last_step(self):
        """Step of the last evaluation that was written down, or None."""
        try:
            with open(os.path.join(self._output_dir, evaluator.METRICS_FILE)) as file:
                return json.load(file)["step"]
        except FileNotFoundError:
            return None

    def __call__(self, step, model):
        if self._inference is None or self._inference.model is not model:
            self._writer = tf.summary.create_file_writer(self._output_dir)
            self._inference = inference.Inference(model, self._config.data)
        metrics = evaluator.evaluate(
            self._config,
            model,
            self._output_dir,
            step=step,
            summary_writer=self._writer,
            checkpoint=weights.checkpoint_prefix(self._model_dir, step),
            inference=self._inference,
        )
        self._writer.flush()
        print(
            f"evaluated step {step}: mIoU {metrics['miou']:.4f} on {metrics['num_images']} images, "
            f"see {os.path.join(self._output_dir, 'metrics.json')}",
            flush=True,
        )
