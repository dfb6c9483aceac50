"""Superpixel Transformers for Efficient Semantic Segmentation (arXiv:2309.16889).

`load_config` and `build_model` are the two ways in; they are imported on first use, because importing TensorFlow takes
seconds and a faulty config should be refused before that.
"""

import importlib

from sp_transformer.version import __version__

_LAZY = {
    "ConfigError": "sp_transformer.config",
    "load_config": "sp_transformer.config",
    "build_model": "sp_transformer.model.builder",
}

__all__ = ["ConfigError", "__version__", "build_model", "load_config"]


def __getattr__(name):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
