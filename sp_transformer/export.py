"""Writes a checkpoint as a SavedModel that plain TensorFlow runs, and checks that it labels images
as the model does.

Example: python -m sp_transformer.export --model_dir runs/streets --export_dir exports/streets
"""

from absl import flags

from sp_transformer import command_line


def define_flags(values: flags.FlagValues) -> None:
    """Defines this binary's flags in `values`."""
    command_line.define_config_flags(values)
    command_line.define_checkpoint_flags(values)
    flags.DEFINE_string(
        "export_dir",
        None,
        "Folder that the SavedModel is written to; it must be new or empty. Required.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Replaces the SavedModel that export_dir already holds, once the new one is written and "
        "checked.",
        flag_values=values,
    )
    flags.adopt_module_key_flags(command_line, values)


def main(values: flags.FlagValues) -> int:
    """Exports as the flags say; returns the exit code."""
    command_line.require(values, "export_dir")
    path = command_line.weights_path(values)
    config = command_line.load_config(values)
    # TensorFlow takes seconds to import: only once flags and config are known to be good.
    from sp_transformer.model import builder
    from sp_transformer.serving import export

    # Before the model is built, which takes longer.
    export.check_export_dir(values.export_dir, values.overwrite)
    model = builder.build_model(config)
    step, checkpoint = command_line.restore(model, path)
    export.export_saved_model(
        config,
        model,
        values.export_dir,
        overwrite=values.overwrite,
        checkpoint=checkpoint,
        step=step,
    )
    return 0


if __name__ == "__main__":
    command_line.run(main, define_flags)
