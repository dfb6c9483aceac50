"""What `training` must satisfy before anything is built."""

from sp_transformer.config import checks, registries


def check_training_options(faults, config) -> None:
    """Adds what is wrong with config.training to `faults`."""
    _check_batch(faults, config.training)
    _check_optimisation(faults, config.training)
    _check_rematerialization(faults, config)
    _check_loss(faults, config)
    _check_intervals(faults, config.training)


def _check_batch(faults, training):
    per_replica = training.batch_size_per_replica
    checks.not_negative(faults, "training.batch_size_per_replica", per_replica, "batch_size counts")
    reference = training.learning_rate_reference_batch_size
    path = "training.learning_rate_reference_batch_size"
    checks.not_negative(faults, path, reference, "learning_rate as it is")
    parts = training.gradient_accumulation_steps
    checks.positive(faults, "training.gradient_accumulation_steps", parts)
    name = "batch_size_per_replica" if per_replica > 0 else "batch_size"
    images = getattr(training, name)
    if images > 0 and parts > 0:
        checks.divides(
            faults, "training.gradient_accumulation_steps", parts, f"training.{name}", images
        )


def _check_rematerialization(faults, config):
    name = config.model.backbone.name
    if config.training.rematerialize_backbone and name.startswith(registries.KERAS_CV_PREFIX):
        faults.append(
            f"training.rematerialize_backbone has no effect on {name}, whose blocks keras_cv runs; remove it, or "
            "choose a ResNet or ConvNeXt of this package"
        )


def _check_optimisation(faults, training):
    for field in ("batch_size", "steps", "learning_rate", "poly_power", "epsilon"):
        checks.positive(faults, f"training.{field}", getattr(training, field))
    for field in ("backbone_learning_rate_multiplier", "weight_decay"):
        checks.not_negative(faults, f"training.{field}", getattr(training, field))
    checks.not_negative(
        faults, "training.gradient_clip_norm", training.gradient_clip_norm, "no clipping"
    )
    for field in ("beta_1", "beta_2", "ema_decay"):
        checks.in_range(faults, f"training.{field}", getattr(training, field), 0, 1, open_high=True)
    checks.not_negative(faults, "training.warmup_steps", training.warmup_steps, "no warmup")
    if training.warmup_steps > training.steps > 0:
        faults.append(
            f"training.warmup_steps {training.warmup_steps} exceeds training.steps "
            f"{training.steps}; set it to at most {training.steps} "
            "(the published runs warm up for a twelfth or less)"
        )
    end = training.poly_end_learning_rate
    checks.not_negative(faults, "training.poly_end_learning_rate", end)
    if end > training.learning_rate > 0:
        faults.append(
            f"training.poly_end_learning_rate {checks.number(end)} exceeds training.learning_rate "
            f"{checks.number(training.learning_rate)}, so that the rate would grow; set it to less"
        )


def _check_loss(faults, config):
    fraction = config.training.top_k_fraction
    checks.in_range(faults, "training.top_k_fraction", fraction, 0, 1, open_low=True)
    pixels = config.data.crop_height * config.data.crop_width
    if 0 < fraction <= 1 and pixels > 0 and round(fraction * pixels) == 0:
        faults.append(
            f"training.top_k_fraction {checks.number(fraction)} of a crop of {pixels} pixels is "
            f"less than one pixel; set it to at least {checks.number(1 / pixels)}"
        )
    weight = config.training.superpixel_loss_weight
    checks.not_negative(faults, "training.superpixel_loss_weight", weight, "no such loss")


def _check_intervals(faults, training):
    intervals = {
        f"training.{field}": getattr(training, field)
        for field in ("save_interval_steps", "log_interval_steps", "picture_interval_steps")
    }
    checks.positive(faults, "training.checkpoints_to_keep", training.checkpoints_to_keep)
    checks.positive(faults, "training.steps_per_loop", training.steps_per_loop)
    for path, value in intervals.items():
        if path == "training.picture_interval_steps":
            checks.not_negative(faults, path, value, "no pictures")
        else:
            checks.positive(faults, path, value)
        if value > 0 and training.steps_per_loop > 0:
            checks.divides(faults, "training.steps_per_loop", training.steps_per_loop, path, value)
