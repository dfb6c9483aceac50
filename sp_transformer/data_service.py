"""Runs one server of a tf.data service, on whose machines training batches are prepared (data.data_service).

One dispatcher, and a worker on each machine that is to prepare batches; every worker needs the data and the config of
the run. They serve until they are stopped.

Example: python -m sp_transformer.data_service --role dispatcher --port 5000
python -m sp_transformer.data_service --role worker --port 5001 --host 10.0.0.3 --dispatcher grpc://10.0.0.2:5000 \
  --config_file configs/cityscapes/resnet50.textproto --data_dir DATA
python -m sp_transformer.train --config_file configs/cityscapes/resnet50.textproto --data_dir DATA --model_dir RUN \
  --override 'data { data_service: "grpc://10.0.0.2:5000" deterministic: false }'
"""

import os

from absl import flags

from sp_transformer import command_line


def define_flags(values: flags.FlagValues) -> None:
    """Defines this binary's flags in `values`."""
    command_line.define_config_flags(values)
    flags.DEFINE_enum(
        "role",
        None,
        ["dispatcher", "worker"],
        "Which server: the dispatcher, or a worker. Required.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "port",
        0,
        "Port to listen at; 0 takes a free one, which is printed.",
        lower_bound=0,
        upper_bound=65535,
        flag_values=values,
    )
    flags.DEFINE_string(
        "host",
        "localhost",
        "Name or address by which the training hosts reach this worker.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "dispatcher",
        None,
        'Address of the dispatcher, "grpc://HOST:PORT". Required for a worker.',
        flag_values=values,
    )
    flags.adopt_module_key_flags(command_line, values)


def main(values: flags.FlagValues) -> int:
    """Serves as the flags say; returns the exit code once the server is stopped."""
    command_line.require(values, "role")
    config = None
    if values.role == "worker":
        command_line.require(values, "config_file", "dispatcher")
        config = command_line.load_config(values, check_data=("train_split",))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from sp_transformer.data import data_service_server

    if values.role == "dispatcher":
        data_service_server.dispatch(values.port)
    else:
        data_service_server.work(config, values.dispatcher, values.host, values.port)
    return 0


if __name__ == "__main__":
    command_line.run(main, define_flags)
