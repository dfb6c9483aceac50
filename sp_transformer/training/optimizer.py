"""AdamW with a learning rate of its own for the backbone."""

import dataclasses
import types

import keras
import tensorflow as tf

from sp_transformer.training import schedules


def is_decayed(variable):
    """Whether weight decay applies: to convolution and dense kernels only.

    Biases, norms, layer scales, learned queries and position embeddings are left alone (DeepLab2;
    docs/model.md, "Training").
    """
    return variable.name == "kernel" or variable.name.endswith("_kernel")


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What an update of one variable is multiplied by, and how strongly the variable decays."""

    multiplier: float
    weight_decay: float


class SummedGradients:
    """Mixin of Keras optimizers: `apply` takes gradients that are already summed over the replicas.

    Keras would sum them itself, and clip each replica's part before it does. It would also visit every replica anew for
    every variable; here all variables are updated in one visit.
    """

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        variables = [v.value if isinstance(v, keras.Variable) else v for v in trainable_variables]

        def update(_, gradients, rate):
            for gradient, variable in zip(gradients, variables, strict=True):
                self.update_step(gradient, variable, rate)

        def update_on_replicas(strategy, gradients, rate):
            # The variable only says which replicas there are.
            strategy.extended.update(variables[0], update, args=(gradients, rate), group=False)

        tf.__internal__.distribute.interim.maybe_merge_call(
            update_on_replicas, self._distribution_strategy, list(grads), learning_rate
        )


class BackboneAdamW(SummedGradients, keras.optimizers.AdamW):
    """AdamW whose learning rate, and so whose weight decay, is scaled for the backbone.

    Scaling gradients instead would do nothing: Adam divides the scale out again.

    Args:
      learning_rate: a `LearningRateSchedule`.
      backbone_variables: the variables with the scaled rate.
      backbone_multiplier: factor on their learning rate.
      weight_decay: decoupled decay, multiplied by the variable's own learning rate; for the
        variables that `is_decayed` names.
      **kwargs: those of `keras.optimizers.AdamW`.
    """

    def __init__(
        self,
        learning_rate,
        backbone_variables=(),
        backbone_multiplier=1.0,
        weight_decay=0.0,
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.backbone_multiplier = backbone_multiplier
        self._backbone_keys = frozenset(self._var_key(v) for v in backbone_variables)
        self._rules = types.MappingProxyType({})

    def build(self, var_list):
        """Creates the moments of `var_list` and settles each variable's multiplier and decay."""
        if self.built:
            return
        super().build(var_list)
        # A proxy, because Keras would track a plain dict and put it into the checkpoint.
        self._rules = types.MappingProxyType(
            {
                self._get_variable_index(variable): _Rule(
                    self.backbone_multiplier if self._in_backbone(variable) else 1.0,
                    self.weight_decay if is_decayed(variable) else 0.0,
                )
                for variable in var_list
            }
        )

    def _in_backbone(self, variable):
        return self._var_key(variable) in self._backbone_keys

    def _apply_weight_decay(self, variables):
        """Nothing: `update_step` decays, as only it knows a variable's own learning rate."""

    def update_step(self, gradient, variable, learning_rate):
        """Decays `variable`, then takes Adam's step, both with the variable's own learning rate."""
        rule = self._rules[self._get_variable_index(variable)]
        learning_rate = keras.ops.cast(learning_rate, variable.dtype) * rule.multiplier
        if rule.weight_decay:
            self.assign_sub(variable, variable * (learning_rate * rule.weight_decay))
        super().update_step(gradient, variable, learning_rate)

    def learning_rates(self, step):
        """Dict of the rates (floats) of the update that takes the run from `step` to step + 1."""
        rate = float(self._learning_rate(step))
        return {
            "learning_rate": rate,
            "backbone_learning_rate": rate * self.backbone_multiplier,
        }


def create_optimizer(options, model):
    """The optimizer that `options` describe, with all its variables.

    Args:
      options: `TrainingOptions`.
      model: a built model with an attribute `backbone`.

    Returns:
      A built `BackboneAdamW`. Clipping is left to the training step: Keras would clip before the
      replicas' gradients are summed.
    """
    schedule = schedules.WarmupPolynomial(
        learning_rate=options.learning_rate,
        steps=options.steps,
        warmup_steps=options.warmup_steps,
        power=options.poly_power,
        end_learning_rate=options.poly_end_learning_rate,
    )
    optimizer = BackboneAdamW(
        learning_rate=schedule,
        backbone_variables=model.backbone.trainable_variables,
        backbone_multiplier=options.backbone_learning_rate_multiplier,
        weight_decay=options.weight_decay,
        beta_1=options.beta_1,
        beta_2=options.beta_2,
        epsilon=options.epsilon,
        name="adamw",
    )
    optimizer.build(model.trainable_variables)
    return optimizer
