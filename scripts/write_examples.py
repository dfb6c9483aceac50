"""Writes images of a data set's evaluation split, and their labels, as PNG files for other commands to read."""

import pathlib

from absl import app, flags

FLAGS = flags.FLAGS

flags.DEFINE_string("config_file", None, "Experiment config that names the data set.")
flags.DEFINE_multi_string("override", [], "Textproto applied over the config; may be repeated.")
flags.DEFINE_string(
    "data_dir", None, "Root of the data set's files, for data sets that have files."
)
flags.DEFINE_string("output_dir", None, "Folder that the PNG files are written to.")
flags.DEFINE_string(
    "labels_dir",
    None,
    "Folder that the labels are written to under the images' names, as predict's --ground_truth takes them; for data "
    "sets without an id_map, whose label files hold train ids.",
)
flags.DEFINE_integer("count", 8, "Number of images, from the start of the split.", lower_bound=1)
flags.mark_flags_as_required(["config_file", "output_dir"])


def main(argv):
    del argv
    import sp_transformer
    from sp_transformer.config import derived
    from sp_transformer.data import image_io, sources

    config = sp_transformer.load_config(
        FLAGS.config_file, FLAGS.override, FLAGS.data_dir, check_data=True
    )
    if FLAGS.labels_dir and derived.label_map(config).id_map:
        raise SystemExit(
            "--labels_dir: labels would be written as train ids, which the id_map of this config maps once more; give "
            "predict the data set's own label files by --ground_truth"
        )
    source = sources.create_source(config.data, config.data.eval_split)
    count = min(FLAGS.count, len(source))
    for index in range(count):
        for folder, pixels in zip(
            (FLAGS.output_dir, FLAGS.labels_dir), source.read(index), strict=True
        ):
            if folder:
                image_io.write_png(pathlib.Path(folder) / f"{source.name(index)}.png", pixels)
    print(f"{count} images in {FLAGS.output_dir}")


if __name__ == "__main__":
    app.run(main)
