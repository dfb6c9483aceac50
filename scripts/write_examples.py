"""Writes images of a data set's evaluation split as PNG files, so that other commands have something to read."""

import pathlib

from absl import app, flags

FLAGS = flags.FLAGS

flags.DEFINE_string("config_file", None, "Experiment config that names the data set.")
flags.DEFINE_multi_string("override", [], "Textproto applied over the config; may be repeated.")
flags.DEFINE_string(
    "data_dir", None, "Root of the data set's files, for data sets that have files."
)
flags.DEFINE_string("output_dir", None, "Folder that the PNG files are written to.")
flags.DEFINE_integer("count", 8, "Number of images, from the start of the split.", lower_bound=1)
flags.mark_flags_as_required(["config_file", "output_dir"])


def main(argv):
    del argv
    import sp_transformer
    from sp_transformer.data import image_io, sources

    config = sp_transformer.load_config(
        FLAGS.config_file, FLAGS.override, FLAGS.data_dir, check_data=True
    )
    source = sources.create_source(config.data, config.data.eval_split)
    folder = pathlib.Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    count = min(FLAGS.count, len(source))
    for index in range(count):
        image, _ = source.read(index)
        path = folder / f"{source.name(index)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image_io.write_png(path, image)
    print(f"{count} images in {folder}")


if __name__ == "__main__":
    app.run(main)
