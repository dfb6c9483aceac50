"""Protobuf modules, generated from protos/*.proto when the package is built or installed."""
