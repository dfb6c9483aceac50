"""Runs a model on images, videos or a camera and writes label maps, pictures and tables of superpixels.

Examples:
  python -m sp_transformer.predict --model exports/streets --input 'photos/**/*.jpg' --output_dir predictions
  python -m sp_transformer.predict --model exports/streets --input drive.mp4 --output_dir predictions
  python -m sp_transformer.predict --model exports/streets --input camera:0 --max_frames 300 --output_dir predictions
"""

from absl import flags

from sp_transformer import command_line
from sp_transformer.serving import outputs


def define_flags(values: flags.FlagValues) -> None:
    """Defines this binary's flags in `values`."""
    flags.DEFINE_string(
        "model",
        None,
        "Folder that sp_transformer.export wrote, of any format, or the model's file in it; or the model_dir or a "
        "checkpoint of a training run. Required.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "input",
        [],
        "An image, a video, a folder that is searched with its subfolders, a quoted glob ('**' for any depth), or a "
        "camera as camera:0 or its device. May be repeated. Required.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "output_dir",
        None,
        "Folder for NAME_labels.png (train ids) and the other outputs of each image NAME, and a legend.png of the "
        "classes; subfolders of the input are kept. Required.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "outputs",
        list(outputs.DEFAULT),
        f"What is written of each image or frame, of {', '.join(outputs.NAMES)}; json is the table of superpixels.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "resize",
        False,
        "Resizes images to the size that the model was exported for, and its labels back by nearest neighbour. "
        "Otherwise images of another size are skipped.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "max_megapixels",
        None,
        "Skips larger images. Default: those for which the free memory would not do, by an estimate.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "max_frames",
        None,
        "Ends each video and camera after this many frames.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_list(
        "pixel",
        None,
        "Y,X of a pixel: draws NAME_association.png, how it belongs to the superpixels around it. For a model_dir or a "
        "checkpoint.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "superpixel",
        None,
        "Id of a superpixel: draws NAME_assignment.png, the pixels that it takes, and NAME_attention.png, what it "
        "attends to. For a model_dir or a checkpoint.",
        lower_bound=0,
        flag_values=values,
    )


def main(values: flags.FlagValues) -> int:
    """Predicts as the flags say; returns the exit code: 0, 1 if something was skipped, 130 or 143 after a signal."""
    command_line.require(values, "model", "input", "output_dir")
    # TensorFlow takes seconds to import: only once the flags are known to be good.
    from sp_transformer.serving import predict

    options = predict.PredictOptions(
        outputs=tuple(values.outputs),
        resize=values.resize,
        max_megapixels=values.max_megapixels,
        max_frames=values.max_frames,
        pixel=_parse_pixel(values.pixel),
        superpixel=values.superpixel,
    )
    return predict.predict(values.model, values.input, values.output_dir, options).exit_code


def _parse_pixel(parts):
    if parts is None:
        return None
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise command_line.UsageError(
            f"--pixel={','.join(parts)} is no pixel; give Y,X as in --pixel=100,250"
        )
    return tuple(int(part) for part in parts)


if __name__ == "__main__":
    command_line.run(main, define_flags)
