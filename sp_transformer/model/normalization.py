"""RGB values 0..255 -> the input that a backbone's weights were trained with."""

import numpy as np
from keras import ops

_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
_IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225])
_CAFFE_BGR_MEAN = np.array([103.939, 116.779, 123.68])

# name: (subtracted, divided by, channels reversed), on values 0..255
_FORMS = {
    "minus_one_to_one": (127.5, 127.5, False),
    "imagenet": (_IMAGENET_MEAN * 255, _IMAGENET_DEVIATION * 255, False),
    "caffe": (_CAFFE_BGR_MEAN, 1.0, True),
    "zero_to_one": (0.0, 255.0, False),
    "raw": (0.0, 1.0, False),
}

NORMALIZATIONS = tuple(_FORMS)


def normalize(images, form, dtype="float32"):
    """Normalises RGB images.

    Args:
      images: [B, Y, X, 3], values 0..255, of any number type.
      form: one of NORMALIZATIONS.
      dtype: of the result.

    Returns:
      [B, Y, X, 3]; its zero is the mean colour, except for "zero_to_one" and "raw".

    Raises:
      ValueError: if the form is unknown.
    """
    check(form)
    shift, scale, reverse = _FORMS[form]
    images = ops.cast(images, "float32")
    if reverse:
        images = ops.flip(images, axis=-1)
    return ops.cast((images - np.float32(shift)) / np.float32(scale), dtype)


def check(form):
    """Raises ValueError unless `form` is one of NORMALIZATIONS."""
    if form not in _FORMS:
        raise ValueError(
            f"input normalization must be one of {', '.join(NORMALIZATIONS)}; got {form!r}"
        )


def padding_value(form) -> float:
    """What a normalised image is padded with: mid-grey, the mean colour where the form has one."""
    return {"zero_to_one": 0.5, "raw": 127.5}.get(form, 0.0)
