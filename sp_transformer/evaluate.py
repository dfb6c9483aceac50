"""Scores a checkpoint on the evaluation split and writes OUTPUT_DIR/metrics.json.

Example: python -m sp_transformer.evaluate --model_dir runs/streets --output_dir runs/streets/scores
"""

from absl import flags

from sp_transformer import command_line


def define_flags(values: flags.FlagValues) -> None:
    """Defines this binary's flags in `values`."""
    command_line.define_config_flags(values)
    command_line.define_checkpoint_flags(values)
    flags.DEFINE_string(
        "output_dir",
        None,
        "Folder that metrics.json is written to, and the TensorBoard files of --summaries. "
        "Required.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "summaries",
        False,
        "Also writes scalars and evaluation.pictures pictures for TensorBoard into output_dir.",
        flag_values=values,
    )
    flags.adopt_module_key_flags(command_line, values)


def main(values: flags.FlagValues) -> int:
    """Evaluates as the flags say; returns the exit code."""
    command_line.require(values, "output_dir")
    path = command_line.weights_path(values)
    config = command_line.load_config(values, check_data=("eval_split",))
    # TensorFlow takes seconds to import: only once flags and config are known to be good.
    import tensorflow as tf

    from sp_transformer.evaluation import evaluator
    from sp_transformer.model import builder

    model = builder.build_model(config)
    step, checkpoint = command_line.restore(model, path)
    writer = tf.summary.create_file_writer(values.output_dir) if values.summaries else None
    evaluator.evaluate(
        config, model, values.output_dir, step, summary_writer=writer, checkpoint=checkpoint
    )
    return 0


if __name__ == "__main__":
    command_line.run(main, define_flags)
