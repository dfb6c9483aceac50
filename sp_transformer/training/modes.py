"""The modes of the training program: train, evaluate, or both in turns."""

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
        model = builder.build_model(config)
        step = weights.restore_model(model, model_dir)
        Evaluation(config, model_dir)(step, model)
    elif mode == "train_and_eval":
        loop.train(config, model_dir, after_save=Evaluation(config, model_dir))
    else:
        raise ValueError(f"unknown mode {mode!r}; use train, eval or train_and_eval")


class Evaluation:
    """Evaluates a model as it is after `step`, into model_dir/eval: an `after_save` of the loop."""

    def __init__(self, config, model_dir):
        self._config = config
        self._model_dir = model_dir
        self._output_dir = os.path.join(model_dir, "eval")
        self._writer = tf.summary.create_file_writer(self._output_dir)
        self._inference = None

    def __call__(self, step, model):
        if self._inference is None:
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
