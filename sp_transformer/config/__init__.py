"""Textprotos -> validated ExperimentOptions. Importing this never imports TensorFlow."""

from sp_transformer.config.errors import ConfigError
from sp_transformer.config.loading import load_config

__all__ = ["ConfigError", "load_config"]
