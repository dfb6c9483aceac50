"""Runs an exported SavedModel on images and writes label maps, coloured overlays and superpixel outlines.

Example: python -m sp_transformer.predict --model exports/streets --input 'photos/**/*.jpg' --output_dir predictions
"""

from absl import flags

from sp_transformer import command_line


def define_flags(values: flags.FlagValues) -> None:
    """Defines this binary's flags in `values`."""
    flags.DEFINE_string(
        "model",
        None,
        "SavedModel folder that sp_transformer.export wrote. Required.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "input",
        [],
        "An image, a folder that is searched with its subfolders, or a quoted glob ('**' for any "
        "depth). May be repeated. Required.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "output_dir",
        None,
        "Folder for NAME_labels.png (train ids), NAME_overlay.png and NAME_superpixels.png of "
        "each image, and a legend.png of the classes; subfolders of the input are kept. Required.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> int:
    """Predicts as the flags say; returns the exit code: 1 if some images were skipped, else 0."""
    command_line.require(values, "model", "input", "output_dir")
    # TensorFlow takes seconds to import: only once the flags are known to be good.
    from sp_transformer.serving import predict

    summary = predict.predict(values.model, values.input, values.output_dir)
    return 1 if summary.failed else 0


if __name__ == "__main__":
    command_line.run(main, define_flags)
