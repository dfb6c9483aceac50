"""Inspects the images and labels of a config's splits, before an hour is spent on training.

Prints a report; with --output_dir also writes report.txt, report.json, contact_sheet.png and, where ids do not fit the
classes, suggested_label_map.textproto.

Exit codes: 0 nothing found; 1 faults, files that training refuses (or skips, by data.skip_corrupt); 2 faulty flags or
config; 3 no faults but doubts, such as the same image in two splits.

Example: python -m sp_transformer.inspect_data --config_file configs/camvid/resnet18.textproto --data_dir DATA \
  --output_dir inspection
"""

import os
import sys

from absl import flags

from sp_transformer import command_line

_INTERRUPTED = 130


def define_flags(values: flags.FlagValues) -> None:
    """Defines this binary's flags in `values`."""
    command_line.define_config_flags(values)
    flags.DEFINE_string(
        "output_dir",
        None,
        "Folder that the report and the contact sheet are written to. Without it the report is only printed.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "max_images",
        0,
        "Images to look at in each split, spread evenly over it; 0 for all.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_list(
        "splits",
        None,
        "Splits to look at, separated by commas. Default: the config's train_split and eval_split.",
        flag_values=values,
    )
    flags.adopt_module_key_flags(command_line, values)


def main(values: flags.FlagValues) -> int:
    """Inspects as the flags say; returns the exit code."""
    command_line.require(values, "config_file")
    config = command_line.load_config(values)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from sp_transformer.data import inspection_run

    try:
        return inspection_run.run(config, values.splits, values.max_images, values.output_dir)
    except KeyboardInterrupt:
        print("\ninspect_data: interrupted", file=sys.stderr)
        return _INTERRUPTED


if __name__ == "__main__":
    command_line.run(main, define_flags)
