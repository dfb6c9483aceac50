"""Writes a model's predictions for a split as a benchmark takes them, checks the folder and zips it.

Example: python -m sp_transformer.submit --model_dir runs/cityscapes --data_dir DATA --split test --output_dir test_set

writes test_set/berlin_000000_000019_labelIds.png and so on, and test_set.zip.
"""

import time

from absl import flags

from sp_transformer import command_line


def define_flags(values: flags.FlagValues) -> None:
    """Defines this binary's flags in `values`."""
    command_line.define_config_flags(values)
    command_line.define_checkpoint_flags(values)
    flags.DEFINE_string(
        "output_dir",
        None,
        "New or empty folder for the predictions; the archive OUTPUT_DIR.zip comes beside it. "
        "Required.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "split",
        None,
        "Split to predict, with or without labels; default: the config's data.eval_split.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "format",
        "auto",
        ["auto", "cityscapes", "ade20k", "train_ids"],
        "Names and ids of the files: Cityscapes' label ids, ADE20K's 1 to 150, or train ids under the "
        "images' own names; auto takes that of data.dataset, or train ids.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "mode",
        None,
        "Which of evaluation.modes predicts (multi-scale, windows and so on); default: the first.",
        flag_values=values,
    )
    flags.adopt_module_key_flags(command_line, values)


def main(values: flags.FlagValues) -> int:
    """Predicts as the flags say; returns the exit code."""
    command_line.require(values, "output_dir")
    path = command_line.weights_path(values)
    config = command_line.load_config(values)
    modes = [mode for mode in config.evaluation.modes if mode.name == values.mode]
    if values.mode and not modes:
        known = ", ".join(mode.name for mode in config.evaluation.modes) or "none"
        raise command_line.UsageError(
            f"--mode {values.mode!r} is none of evaluation.modes, which are: {known}"
        )
    modes = modes or list(config.evaluation.modes[:1])
    del config.evaluation.modes[:]
    config.evaluation.modes.extend(modes)
    # TensorFlow takes seconds to import: only once flags and config are known to be good.
    from sp_transformer.data import sources
    from sp_transformer.evaluation import submission
    from sp_transformer.model import builder, inference

    split = values.split or config.data.eval_split
    form = submission.SubmissionFormat(values.format, config)
    source = sources.create_source(config.data, split)
    folder = submission.SubmissionFolder(values.output_dir, form)
    model = builder.build_model(config)
    command_line.restore(model, path, config.evaluation.averaged_weights)
    start = time.monotonic()
    count = submission.predict_into(folder, config, source, inference.Inference(model, config.data))
    archive = folder.finish(source.name(index) for index in range(len(source)))
    print(
        f"{count} images of split {split!r} predicted in {time.monotonic() - start:.0f} s, checked "
        f"as {form.name} and zipped: {archive}"
    )
    return 0


if __name__ == "__main__":
    command_line.run(main, define_flags)
