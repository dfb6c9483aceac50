"""One inspection from a config to its reports: what the program inspect_data calls."""

from __future__ import annotations

import pathlib
import sys

from sp_transformer.data import inspection, inspection_report


def run(config, splits=(), max_images=0, output_dir=None) -> int:
    """Inspects, prints and writes.

    Args:
      config: a validated ExperimentOptions.
      splits: names of splits; default: the config's train_split and eval_split.
      max_images: images to look at in each split; 0 for all.
      output_dir: folder for the reports and the contact sheet, or None.

    Returns:
      The exit code, see `inspection_report.exit_code`.

    Raises:
      ValueError: if a split does not exist or holds no pair of files.
    """
    splits = splits or [config.data.train_split, config.data.eval_split]
    progress = inspection_report.Progress(sys.stderr)
    found = inspection.inspect(config, splits, max_images, progress)
    print(inspection_report.text(found, config), end="", flush=True)
    if output_dir:
        inspection_report.write(found, config, max_images, output_dir)
        _write_sheet(found, config, pathlib.Path(output_dir, inspection_report.CONTACT_SHEET))
        print(f"Written to {output_dir}: {', '.join(sorted(_written(output_dir)))}")
    return inspection_report.exit_code(found)


def _write_sheet(found, config, path):
    # It needs TensorFlow, which takes seconds to import.
    from sp_transformer.data import contact_sheet

    path.unlink(missing_ok=True)
    sheet = contact_sheet.draw(config, found)
    if sheet is not None:
        sheet.save(path)


def _written(output_dir):
    names = (
        inspection_report.REPORT_TEXT,
        inspection_report.REPORT_JSON,
        inspection_report.SUGGESTED_MAP,
        inspection_report.CONTACT_SHEET,
    )
    return [name for name in names if pathlib.Path(output_dir, name).exists()]
