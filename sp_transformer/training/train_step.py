"""One training step on every replica, and the compiled loop around it."""

import tensorflow as tf

from sp_transformer.training import losses


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

    Raises:
      ValueError: if the strategy cannot split the batch, cannot be compiled, or is not the one that
        the optimizer was created in.
    """

    def __init__(self, model, optimizer, options, ignore_label, strategy):
        replicas = strategy.num_replicas_in_sync
        if options.batch_size % replicas:
            raise ValueError(
                f"training.batch_size {options.batch_size} does not divide by the {replicas} "
                f"replicas; the nearest that do are {options.batch_size // replicas * replicas} and "
                f"{(options.batch_size // replicas + 1) * replicas}"
            )
        compiled_anyway = isinstance(strategy, tf.distribute.TPUStrategy)
        if options.jit_compile and replicas > 1 and not compiled_anyway:
            raise ValueError(
                f"training.jit_compile works on one device, and this strategy has {replicas} "
                "replicas; set training.jit_compile to false"
            )
        if optimizer._distribution_strategy is not strategy:
            # Silent otherwise: every replica would go its own way.
            raise ValueError("the optimizer was not created in the scope of the training strategy")
        self._model = model
        self._optimizer = optimizer
        self._options = options
        self._ignore_label = ignore_label
        self._strategy = strategy
        self._step = self._replica_step
        if options.jit_compile and not compiled_anyway:
            self._step = tf.function(self._replica_step, jit_compile=True)

    def _replica_step(self, images, labels):
        """Updates the weights once; images [b,Y,X,3], labels [b,Y,X] are this replica's share.

        Returns:
          Float32 scalars: this replica's part of the loss, and the norm of the global batch's
          gradient before clipping.
        """
        options, variables = self._options, self._model.trainable_variables
        with tf.GradientTape() as tape:
            features = self._model.features(images, training=True)
            per_image = losses.top_k_cross_entropy(
                self._model.cell_semantic_logits(features),
                self._model.labels_by_cell(labels),
                self._ignore_label,
                options.top_k_fraction,
                options.class_weights,
            )
            loss = tf.reduce_sum(per_image) / float(options.batch_size)
        # A variable that the loss does not depend on (an unused end of a backbone) has no gradient,
        # and stays as it is.
        pairs = [
            (gradient, variable)
            for gradient, variable in zip(
                tape.gradient(loss, [v.value for v in variables]), variables, strict=True
            )
            if gradient is not None
        ]
        gradients = [tf.convert_to_tensor(gradient) for gradient, _ in pairs]
        replicas = self._strategy.num_replicas_in_sync
        if replicas > 1:
            context = tf.distribute.get_replica_context()
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        norm = tf.linalg.global_norm(gradients)
        if options.gradient_clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, options.gradient_clip_norm, norm)
        if replicas > 1:
            # Keras sums over the replicas once more.
            gradients = [gradient / replicas for gradient in gradients]
        self._optimizer.apply(gradients, [variable for _, variable in pairs])
        return loss, norm

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
