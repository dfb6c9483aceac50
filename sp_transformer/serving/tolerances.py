"""How far an export may differ from its checkpoint: the one place where that is written.

The limits of all forms but the exact one come from measurements, docs/export.md.
"""

import dataclasses

from sp_transformer.protos import training_pb2
from sp_transformer.serving import export_options


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """What a verification lets pass.

    Attributes:
      equal_labels: least share of pixels whose label equals the checkpoint's.
      equal_superpixels: the same of superpixel ids, and of their superpixels' classes.
      miou: largest difference of the mIoU of both.
      probabilities: largest share of the probability that lies on other classes than in the checkpoint, the mean of
        all pixels; and largest mean difference of the superpixels' confidence.
    """

    equal_labels: float
    equal_superpixels: float
    miou: float
    probabilities: float


# The same operations on the same machine.
EXACT = Tolerance(1.0, 1.0, 0.0, 1e-6)
# Rounding decides between two classes that are as good as equally likely. Compiled by XLA (jit_compile), measured on
# CamVid val with a ResNet-18: 99.99998% of labels, 99.9995% of superpixels, mIoU to 1e-7.
ROUNDED = Tolerance(0.9999, 0.9999, 0.0005, 1e-4)
# Weights or activations of 8 significant bits. Measured on CamVid val with two ResNet-18 that compute in bfloat16:
# 99.75% and 99.78% of labels, 95.8% and 96.6% of superpixels, mIoU to 0.0002 and 0.0006. In other models four times as
# many labels may differ, and twice as many superpixels. Probability on other classes: 0.0015; in the quantised forms
# below 0.00015, 0.003 and 0.005 (8 frames each).
BFLOAT16 = Tolerance(0.99, 0.92, 0.005, 0.02)
QUANTIZED = {
    export_options.FLOAT16: Tolerance(0.995, 0.995, 0.005, 0.005),
    export_options.DYNAMIC_RANGE: Tolerance(0.95, 0.85, 0.02, 0.05),
    export_options.INT8: Tolerance(0.9, 0.8, 0.03, 0.1),
}


def tolerance(config, options, on_accelerator=False) -> Tolerance:
    """The Tolerance of an export of a model of `config` with these ExportOptions.

    Args:
      config: the ExperimentOptions.
      options: the ExportOptions.
      on_accelerator: whether both processes compute on one, whose library may choose other algorithms in each.
    """
    if options.quantization in QUANTIZED:
        return QUANTIZED[options.quantization]
    exact = (
        options.format == export_options.SAVED_MODEL
        and not options.inference_form
        and not options.jit_compile
        # Shapes that are known let TensorFlow order a few operations otherwise.
        and options.image_size is None
        and not on_accelerator
    )
    if exact:
        return EXACT
    stored = options.stablehlo.weights_dtype if options.stablehlo else "float32"
    computed = config.training.precision == training_pb2.TrainingOptions.BFLOAT16
    return BFLOAT16 if computed or stored == "bfloat16" else ROUNDED
