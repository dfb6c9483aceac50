#!/usr/bin/env bash
# From nothing to a running model: trains on synthetic streets, evaluates, exports and predicts. About 10 minutes on 2 cores
# after installation. An interrupted run goes on where it stopped; a finished one is kept and the next one starts anew.
#
#   scripts/quickstart.sh [--override 'training { steps: 50 }' ...]      overrides go to every command
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

use_environment quickstart "$root" "scikit-learn>=1.6"

runs="${SP_TRANSFORMER_RUNS:-$root/runs}"
mkdir -p "$runs"
runs="$(cd "$runs" && pwd)"
number=1
while [ -e "$runs/quickstart-$number/finished" ]; do number=$((number + 1)); done
run="$runs/quickstart-$number"
mkdir -p "$run"
config="$root/configs/synthetic/quickstart.textproto"
# Away from the source tree, so that what runs is the installed package.
cd "$run"

step() { printf '\n== %s\n' "$*"; }

step "Training on synthetic streets (model and logs: $run/model)"
python -m sp_transformer.train --config_file "$config" --model_dir "$run/model" --mode train "$@"

step "Evaluating on streets that were never trained on"
python -m sp_transformer.evaluate --config_file "$config" --model_dir "$run/model" \
  --output_dir "$run/evaluation" "$@"

step "Scoring two predictors that have no model"
python "$root/scripts/baselines.py" --config_file "$config" --output_json "$run/baselines.json" "$@"

step "Exporting a SavedModel"
python -m sp_transformer.export --config_file "$config" --model_dir "$run/model" \
  --export_dir "$run/export" --overwrite "$@"

step "Predicting held-out streets with the exported model"
python "$root/scripts/write_examples.py" --config_file "$config" --output_dir "$run/streets" \
  --labels_dir "$run/labels" --count 8 "$@"
python -m sp_transformer.predict --model "$run/export" --input "$run/streets" \
  --ground_truth "$run/labels" --output_dir "$run/predictions"

python - "$run" <<'PYTHON'
import json
import pathlib
import sys

run = pathlib.Path(sys.argv[1])
model = json.loads((run / "evaluation" / "metrics.json").read_text())["miou"]
baselines = json.loads((run / "baselines.json").read_text())
constant = baselines["constant_per_position_miou"]
print(f"""
Held-out mIoU on the synthetic streets
  best constant class per position           {constant:.3f}
  per-pixel colour-and-position classifier   {baselines["color_position_miou"]:.3f}
  this model                                 {model:.3f}  ({model / constant:.1f} times the first)

Pictures        {run / "predictions"}
Exported model  {run / "export"}
TensorBoard     tensorboard --logdir {run / "model"}
Your own photographs:
  python -m sp_transformer.predict --model {run / "export"} --input PHOTOS --output_dir OUT
""")
PYTHON
touch "$run/finished"
