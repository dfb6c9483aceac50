"""Scores a checkpoint on the evaluation split and writes OUTPUT_DIR/metrics.json.

Example: python -m sp_transformer.evaluate --model_dir runs/streets --output_dir runs/streets/scores

With --predictions it scores label PNGs that lie in a folder, whoever made them, and needs no checkpoint.
"""

from absl import flags

from sp_transformer import command_line
from sp_transformer.config import evaluation_validation
from sp_transformer.training import devices


def define_flags(values: flags.FlagValues) -> None:
    """Defines this binary's flags in `values`."""
    command_line.define_config_flags(values)
    command_line.define_checkpoint_flags(values)
    flags.DEFINE_string(
        "output_dir",
        None,
        "Folder that metrics.json is written to, with the TensorBoard files of --summaries and what "
        "else is asked for. Required.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "summaries",
        False,
        "Also writes scalars and evaluation.pictures pictures for TensorBoard into output_dir.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "superpixels",
        False,
        "Also measures the superpixels (boundary recall, achievable accuracy and so on) beside their "
        "connected components and SLIC's, into superpixels.json and a table; evaluation.superpixels "
        "holds the settings.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "failure_analysis",
        False,
        "Also scores by distance to a boundary and by size of the object, into metrics.json and two "
        "tables; evaluation.failure_analysis holds the settings.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "report",
        False,
        "Also writes report.html, one file that shows the numbers, classes, confusions, and the worst and best images "
        "beside their truth; evaluation.report holds the settings.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "predictions",
        None,
        "Scores the label PNGs in this folder instead of a checkpoint, as `sp_transformer.submit` or "
        "another program wrote them. Needs --config_file.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "predictions_format",
        "auto",
        ["auto", "cityscapes", "ade20k", "train_ids"],
        "How the files of --predictions are named and what their ids mean; auto takes the data set's "
        "official form, or train ids where there is none.",
        flag_values=values,
    )
    devices.define_flags(values)
    flags.adopt_module_key_flags(command_line, values)
    flags.adopt_module_key_flags(devices, values)


def main(values: flags.FlagValues) -> int:
    """Evaluates as the flags say; returns the exit code."""
    command_line.require(values, "output_dir")
    path = None if values.predictions else command_line.weights_path(values)
    _check_flags(values)
    wanted_devices = devices.from_flags(values, trains=False)
    config = command_line.load_config(values, check_data=("eval_split",))
    config.evaluation.superpixels.enabled |= values.superpixels
    config.evaluation.failure_analysis.enabled |= values.failure_analysis
    config.evaluation.report.enabled |= values.report
    if values.superpixels or values.failure_analysis or values.report:
        # They need the predictions; the scores are the same.
        config.evaluation.count_on_device = False
    if values.predictions:
        # What needs a model cannot be asked of its predictions.
        config.evaluation.superpixels.enabled = False
    if config.evaluation.superpixels.enabled:
        from sp_transformer.evaluation import superpixel_scores

        superpixel_scores.check_installed(config.evaluation.superpixels)
    # TensorFlow takes seconds to import: only once flags and config are known to be good.
    import tensorflow as tf

    from sp_transformer.data import storage
    from sp_transformer.evaluation import evaluator, submission
    from sp_transformer.model import builder
    from sp_transformer.training import distribution

    # Before the model is built; the evaluator asks again.
    storage.check_writable(values.output_dir)
    if values.predictions:
        form = submission.SubmissionFormat(values.predictions_format, config)
        stored = submission.StoredPredictions(
            values.predictions, form, evaluation_validation.STORED_MODE
        )
        evaluator.evaluate(config, None, values.output_dir, predictor=stored)
        return 0
    strategy = distribution.create_strategy(wanted_devices)
    with strategy.scope():
        model = builder.build_model(config)
        step, checkpoint = command_line.restore(model, path, config.evaluation.averaged_weights)
    writer = tf.summary.create_file_writer(values.output_dir) if values.summaries else None
    evaluator.evaluate(
        config,
        model,
        values.output_dir,
        step,
        summary_writer=writer,
        checkpoint=checkpoint,
        strategy=strategy,
    )
    return 0


def _check_flags(values) -> None:
    """Raises UsageError for flags that contradict --predictions."""
    if not values.predictions:
        if values.predictions_format != "auto":
            raise command_line.UsageError("--predictions_format is that of --predictions; give it")
        return
    for name in ("checkpoint", "model_dir", "summaries", "superpixels", "averaged_weights"):
        if values[name].value:
            raise command_line.UsageError(
                f"--{name} needs a model, and --predictions takes the place of one; give either"
            )
    if not values.config_file:
        raise command_line.UsageError(
            "--predictions needs --config_file, which says where the data and what the classes are"
        )


if __name__ == "__main__":
    command_line.run(main, define_flags)
