"""Prepares a data set once as sharded records, which training and evaluation read faster than its own files.

The config may be the one that is trained with: give the folder of records as --data_dir afterwards, and nothing else
changes. A run that was stopped goes on where it was when the same command is given again.

Example: python -m sp_transformer.prepare_data --config_file configs/cityscapes/resnet50.textproto \
  --data_dir DOWNLOADS --output_dir cityscapes_records --verify
"""

import os
import sys

from absl import flags, logging

from sp_transformer import command_line

# As sp_transformer.data.preparation_plan.ENCODINGS, which imports more than a faulty flag should wait for.
ENCODINGS = ("auto", "tiles", "png", "webp", "jpeg")
_MEGABYTE = 1e6


def define_flags(values: flags.FlagValues) -> None:
    """Defines this binary's flags in `values`."""
    command_line.define_config_flags(values)
    flags.DEFINE_string(
        "output_dir",
        None,
        "Folder that the records are written to, local or as gs://BUCKET/FOLDER. Required.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "splits",
        None,
        "Splits to prepare, separated by commas. Default: all that the data set has in data_dir.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "encoding",
        "auto",
        list(ENCODINGS),
        "How images are stored. auto: JPEG files as they are, all else as tiles; tiles, png, webp: all images so, "
        "without loss; jpeg: with loss, at --quality. See docs/data.md.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "quality",
        95,
        "Quality of --encoding=jpeg.",
        lower_bound=1,
        upper_bound=100,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_shards",
        0,
        "Files for each split. Default: one for every 64 images.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_workers",
        0,
        "Processes that read and encode. Default: one for each core.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "verify",
        False,
        "Afterwards reads every image of records and source again and compares them pixel for pixel, and every file "
        "with its checksum. Exits with code 1 if anything differs.",
        flag_values=values,
    )
    flags.adopt_module_key_flags(command_line, values)


def main(values: flags.FlagValues) -> int:
    """Prepares as the flags say; returns the exit code."""
    command_line.require(values, "config_file", "output_dir")
    if values.splits is not None and not (values.splits and all(values.splits)):
        raise command_line.UsageError(
            "--splits is empty or has an empty name; separate names by commas"
        )
    config = command_line.load_config(values)
    if logging.get_verbosity() == logging.INFO:
        # The default, at which tfds tells at length what it does; --verbosity=1 shows it.
        logging.set_verbosity(logging.WARNING)

    # TensorFlow takes seconds to import: only once flags and config are known to be good.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from sp_transformer.data import preparation, preparation_plan, verification

    workers = values.num_workers or _cores()
    splits = tuple(values.splits or ())
    if config.data.dataset == "tfds":
        from sp_transformer.data import tfds_source

        tfds_source.ensure_prepared(config.data.tfds, config.data.data_dir)
    with _Progress("preparing") as progress:
        manifest = preparation.prepare(
            config.data,
            values.output_dir,
            splits,
            values.encoding,
            values.quality,
            values.num_shards,
            workers,
            progress,
        )
    print(summary(manifest))
    print(f"Records: {values.output_dir} (give it as --data_dir)")
    if not values.verify:
        return 0
    with _Progress("verifying") as progress:
        faults = verification.verify(config.data, values.output_dir, splits, workers, progress)
    for fault in faults:
        print(f"DIFFERS: {fault}")
    if faults:
        return 1
    compared = "labels and sizes" if values.encoding in preparation_plan.LOSSY else "every pixel"
    print(f"Verified: {compared} of every image equal the source's, every file its checksum.")
    return 0


def summary(manifest: dict) -> str:
    """Splits, sizes and classes of records, as aligned text."""
    lines = [f"{'split':<12}{'images':>8}{'shards':>8}{'MB':>10}  sizes"]
    for name, split in manifest["splits"].items():
        sizes = [f"{count} of {size}" for size, count in split["sizes"].items()]
        more = f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
        lines.append(
            f"{name:<12}{split['num_examples']:>8}{len(split['files']):>8}"
            f"{split['bytes'] / _MEGABYTE:>10.1f}  {', '.join(sizes[:3])}{more}"
        )
    labelled = {name: split for name, split in manifest["splits"].items() if split["has_labels"]}
    if labelled:
        lines += ["", f"{'share of pixels (%)':<24}" + "".join(f"{name:>12}" for name in labelled)]
        for label in (*manifest["label_map"]["classes"], None):
            shares = [_share(split, label) for split in labelled.values()]
            lines.append(f"{label or '(ignored)':<24}" + "".join(f"{s:>12.3f}" for s in shares))
    return "\n".join(lines)


def _share(split, label):
    counted = split["label_pixels"]
    total = sum(counted.values()) + split["ignored_pixels"]
    return 100 * (counted[label] if label else split["ignored_pixels"]) / total


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


class _Progress:
    """A bar with images/s and the time left, on standard error."""

    def __init__(self, title):
        self._title = title
        self._bar = None

    def __enter__(self):
        return self

    def __call__(self, done, total):
        from tqdm import tqdm

        if self._bar is None:
            # A terminal's line is drawn over; a log's are not, and should not become thousands.
            interval = 0.5 if sys.stderr.isatty() else 10
            self._bar = tqdm(
                total=total, desc=self._title, unit=" images", mininterval=interval, initial=done
            )
        self._bar.update(done - self._bar.n)

    def __exit__(self, kind, error, traceback):
        if self._bar is not None:
            self._bar.close()


if __name__ == "__main__":
    command_line.run(main, define_flags)
