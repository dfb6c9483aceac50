"""What the training program tells its caller by its exit code; docs/training.md explains each to users.

Without TensorFlow, so that the supervisor that restarts it stays small.
"""

DONE = 0
# An uncaught exception, which Python itself reports by this code.
FAILED = 1
# Flags, config, data or a model_dir that do not fit: another try fails in the same way.
USAGE = 2
# The loss has become NaN or infinite.
NOT_FINITE = 3
# The model_dir cannot be written: full, read-only, over quota.
CANNOT_WRITE = 4
# Evaluation waited for a checkpoint longer than it was told to.
TIMED_OUT = 5
# Another worker or a service was lost. Every worker ends so, and all of them are to be started again.
LOST_PEER = 75
# Ctrl-C, by the shells' convention 128 + SIGINT.
INTERRUPTED = 130
# SIGTERM: the state is saved, and the same command goes on from it. 128 + SIGTERM.
TERMINATED = 143
