"""One training step on every replica, and the compiled loop around it."""

import functools

import tensorflow as tf

from sp_transformer.model import rematerialization, replica_sums
from sp_transformer.training import distribution, losses
from sp_transformer.training import optimizer as optimizers


class TrainLoop:
    """Runs training steps inside one `tf.function`.

    The loss of a step is the sum of the per-image losses over the global batch, divided by its
    size: the same number whatever the number of replicas.

    Args:
      model: a built model with `features`, `cell_semantic_logits` and `labels_by_cell`.
      optimizer: a built `BackboneAdamW`, created in the scope of `strategy`.
      options: `TrainingOptions`.
      ignore_label: train id that the loss leaves out.
      strategy: the `tf.distribute.Strategy` that model and optimizer were built under.
      averages: `WeightAverages` of the model, or None.

    Raises:
      ValueError: if the strategy cannot split the batch, cannot be compiled, or is not the one that
        the optimizer was created in.
    """

    def __init__(self, model, optimizer, options, ignore_label, strategy, averages=None):
        distribution.check_strategy(options, strategy)
        if optimizer._distribution_strategy is not strategy:
            # Silent otherwise: every replica would go its own way.
            raise ValueError("the optimizer was not created in the scope of the training strategy")
        if not isinstance(optimizer, optimizers.SummedGradients):
            raise ValueError(
                f"{type(optimizer).__name__} would sum the gradients over the replicas once more; "
                "make it a subclass of SummedGradients"
            )
        self._model = model
        self._optimizer = optimizer
        self._options = options
        self._ignore_label = ignore_label
        self._strategy = strategy
        self._averages = averages
        by_xla = options.jit_compile or distribution.is_tpu(strategy)
        self._compilation = functools.partial(rematerialization.compiled_by_xla, by_xla)
        # No Python of the step depends on tensors, and converting it takes a fifth of the tracing.
        self._step = tf.autograph.experimental.do_not_convert(self._replica_step)
        if options.jit_compile and not distribution.is_tpu(strategy):
            self._step = tf.function(self._replica_step, jit_compile=True, autograph=False)

    def _replica_step(self, images, labels):
        """Updates the weights once; images [b,Y,X,3], labels [b,Y,X] are this replica's share.

        Returns:
          Float32 scalars: this replica's part of the loss, and the norm of the global batch's
          gradient before clipping.
        """
        loss, gradients = self._loss_and_gradients(images, labels)
        # A variable that the loss does not depend on (an unused end of a backbone) has no gradient,
        # and stays as it is.
        pairs = [
            (gradient, variable)
            for gradient, variable in zip(gradients, self._model.trainable_variables, strict=True)
            if gradient is not None
        ]
        options = self._options
        gradients = [gradient for gradient, _ in pairs]
        gradients = replica_sums.over_replicas(gradients)
        norm = tf.linalg.global_norm(gradients)
        if options.gradient_clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, options.gradient_clip_norm, norm)
        self._optimizer.apply(gradients, [variable for _, variable in pairs])
        if self._averages is not None:
            self._averages.update(self._optimizer.iterations.value)
        return loss, norm

    def _loss_and_gradients(self, images, labels):
        """This replica's part of the loss, and of its gradient by each trainable variable (None: does not depend)."""
        parts = self._options.gradient_accumulation_steps
        image_parts, label_parts = tf.split(images, parts), tf.split(labels, parts)
        loss, gradients = self._part(image_parts[0], label_parts[0])
        for image_part, label_part in zip(image_parts[1:], label_parts[1:], strict=True):
            # Unrolled, as synchronised BatchNorm cannot meet inside a loop of TensorFlow's; and one after the other, as
            # parts that run side by side would save no memory.
            done = [gradient for gradient in gradients if gradient is not None]
            with self._compilation():
                image_part, label_part = rematerialization.ordered_after(
                    done, [image_part, label_part]
                )
            part_loss, part_gradients = self._part(image_part, label_part)
            loss += part_loss
            gradients = [
                None if total is None else total + gradient
                for total, gradient in zip(gradients, part_gradients, strict=True)
            ]
        return loss, gradients

    def _part(self, images, labels):
        """The same of some of this replica's images."""
        options = self._options
        # What is computed again is computed while the gradient is taken.
        with self._compilation():
            with tf.GradientTape() as tape:
                per_image = self._losses(images, labels)
                loss = tf.reduce_sum(per_image) / float(options.batch_size)
            values = [variable.value for variable in self._model.trainable_variables]
            gradients = tape.gradient(loss, values)
        return loss, [None if g is None else tf.convert_to_tensor(g) for g in gradients]

    def _losses(self, images, labels):
        """[b] float32, the loss of each image."""
        options = self._options
        features = self._model.features(images, training=True)
        labels = self._model.labels_by_cell(labels)
        per_image = losses.top_k_cross_entropy(
            self._model.cell_semantic_logits(features),
            labels,
            self._ignore_label,
            options.top_k_fraction,
            options.class_weights,
        )
        if options.superpixel_loss_weight:
            per_image += options.superpixel_loss_weight * losses.superpixel_cross_entropy(
                *self._model.association_by_cell(features),
                labels,
                self._ignore_label,
                options.class_weights,
            )
        return per_image

    @tf.function
    def _run(self, iterator, count):
        step_losses = tf.TensorArray(tf.float32, size=count)
        norms = tf.TensorArray(tf.float32, size=count)
        for i in tf.range(count):
            batch = next(iterator)
            loss, norm = self._strategy.run(self._step, args=(batch["image"], batch["label"]))
            step_losses = step_losses.write(
                i, self._strategy.reduce(tf.distribute.ReduceOp.SUM, loss, axis=None)
            )
            norms = norms.write(
                i, self._strategy.reduce(tf.distribute.ReduceOp.MEAN, norm, axis=None)
            )
        return step_losses.stack(), norms.stack()

    def __call__(self, iterator, count):
        """Takes `count` steps on the next batches of `iterator`.

        Returns:
          NumPy float32 arrays [count]: the losses and the gradient norms of the steps.
        """
        step_losses, norms = self._run(iterator, tf.constant(count, tf.int32))
        return step_losses.numpy(), norms.numpy()
