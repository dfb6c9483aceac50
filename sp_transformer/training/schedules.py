"""The learning rate over the steps of a run."""

import keras
import tensorflow as tf


class WarmupPolynomial(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warmup from 0, then polynomial decay counted from step 0 (DeepLab2).

        learning_rate * step / warmup_steps                         while step < warmup_steps
        (learning_rate - end) * (1 - step / steps)^power + end      after that

    As the decay is counted from step 0, the rate falls from `learning_rate` onto the curve when
    warmup ends. From `steps` on it stays at `end`.

    Args:
      learning_rate: base rate.
      steps: number of steps of the run.
      warmup_steps: steps of warmup; 0 for none.
      power: exponent of the decay.
      end_learning_rate: rate at the end.
    """

    def __init__(self, learning_rate, steps, warmup_steps=0, power=0.9, end_learning_rate=0.0):
        super().__init__()
        if steps < 1:
            raise ValueError(
                f"a schedule over {steps} steps is empty; training.steps must be at least 1"
            )
        self.base_learning_rate = learning_rate
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.power = power
        self.end_learning_rate = end_learning_rate

    def __call__(self, step):
        """Float32 rate of the update that takes the run from `step` to step + 1."""
        step = tf.cast(step, tf.int32)
        # The remainder is taken in integers: in float32, 1 - step / steps has lost its digits by
        # the end of a run.
        remaining = tf.cast(tf.maximum(self.steps - step, 0), tf.float32) / float(self.steps)
        rate = (self.base_learning_rate - self.end_learning_rate) * tf.pow(remaining, self.power)
        rate += self.end_learning_rate
        if not self.warmup_steps:
            return rate
        warmup = self.base_learning_rate * (tf.cast(step, tf.float32) / float(self.warmup_steps))
        return tf.where(step < self.warmup_steps, warmup, rate)

    def get_config(self):
        return {
            "learning_rate": self.base_learning_rate,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "power": self.power,
            "end_learning_rate": self.end_learning_rate,
        }
