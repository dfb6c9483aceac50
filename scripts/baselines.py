"""Scores two predictors that see no shapes, so that a model's mIoU can be read against them.

    python scripts/baselines.py --config_file configs/synthetic/quickstart.textproto \
        --output_json /tmp/baselines.json

(a) the best constant prediction for each pixel position, (b) a classifier of single pixels by their
colour, the mean colour around them and their position. Both are fitted to the training split and
scored on the evaluation split; (b) on a fixed sample of its pixels. mIoU: mean over the classes
that occur in ground truth or predictions of TP / (TP + FP + FN), counted over all pixels together,
ignored pixels left out.

Needs scikit-learn (the "test" extra).

Legend: Y, X image height and width in pixels, K classes, N sampled pixels, F features of a pixel.
"""

import argparse
import collections
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

# Exponents of the class frequency by which scores are divided: 0 favours frequent classes, 1 none.
ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
REFINEMENTS = 12
TRAIN_PIXELS = 200_000
EVAL_PIXELS = 200_000


def mean_iou(confusion: np.ndarray) -> float:
    """Mean intersection over union, over classes that occur in ground truth or predictions.

    Args:
      confusion: int64 [K,K], pixel counts by true class (rows) and predicted class (columns).

    Returns:
      mIoU from 0 to 1.

    Raises:
      ValueError: if nothing was counted.
    """
    hits = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hits
    if not union.any():
        raise ValueError("no labelled pixel was counted: every label is the ignore label")
    occurs = union > 0
    return float((hits[occurs] / union[occurs]).mean())


def count_confusion(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Confusion matrix int64 [K,K] of two int arrays of train ids of one shape."""
    index = labels.astype(np.int64) * num_classes + predictions
    return np.bincount(index.ravel(), minlength=num_classes**2).reshape(num_classes, num_classes)


def resize_nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels [Y,X] at another size (height, width), nearest with half-pixel centres."""
    if labels.shape == tuple(size):
        return labels
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(size, labels.shape, strict=True)
    )
    return labels[rows[:, None], columns]


def add_position_counts(counts: np.ndarray, labels: np.ndarray) -> None:
    """Adds an image's labels [Y,X] to counts int32 [K,Y,X]; other ids than 0..K-1 are left out."""
    labels = resize_nearest(labels, counts.shape[1:])
    rows, columns = np.nonzero((labels >= 0) & (labels < len(counts)))
    counts[labels[rows, columns], rows, columns] += 1


def confusion_of_constant(prediction: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Confusion int64 [K,K] when `prediction` [Y,X] is given for every image behind the counts."""
    num_classes = len(counts)
    confusion = np.zeros((num_classes, num_classes), np.int64)
    for label, count in enumerate(counts):
        # Weights are summed in float64, which is exact far beyond any data set's pixels.
        row = np.bincount(prediction.ravel(), weights=count.ravel(), minlength=num_classes)
        confusion[label] = np.rint(row)
    return confusion


def best_constant_prediction(counts: np.ndarray) -> np.ndarray:
    """The constant prediction with the best mIoU on the data behind the counts, that was found.

    Tried: the most frequent class of each position, frequencies over class_frequency**alpha, and
    from the best of those on, steps that take at each position the class with the best first-order
    change of mIoU.

    Args:
      counts: int32 [K,Y,X], how often each class occurs at each position.

    Returns:
      Train ids int64 [Y,X].
    """
    frequency = np.maximum(counts.sum((1, 2), dtype=np.int64), 1).astype(np.float32)
    candidates = ((counts / (frequency**alpha)[:, None, None]).argmax(0) for alpha in ALPHAS)
    best, best_score = None, -1.0
    for prediction in candidates:
        score = mean_iou(confusion_of_constant(prediction, counts))
        if score > best_score:
            best, best_score = prediction, score
    total = counts.sum(0)
    prediction = best
    for _ in range(REFINEMENTS):
        confusion = confusion_of_constant(prediction, counts)
        hits = np.diag(confusion).astype(np.float64)
        union = np.maximum(confusion.sum(0) + confusion.sum(1) - hits, 1.0)
        # d(IoU) for c pixels more of the class among n more predicted: c (U+TP)/U^2 - n TP/U^2.
        gain, cost = (union + hits) / union**2, hits / union**2
        change = counts * gain[:, None, None].astype(np.float32)
        change -= total * cost[:, None, None].astype(np.float32)
        prediction = change.argmax(0)
        score = mean_iou(confusion_of_constant(prediction, counts))
        if score > best_score:
            best, best_score = prediction, score
    return best


def pixel_features(image: np.ndarray) -> np.ndarray:
    """Colour, mean colour of 3x3 pixels (the border repeats) and relative position.

    Args:
      image: uint8 [Y,X,3].

    Returns:
      float32 [Y,X,F=8]: r, g, b, mean r, g, b, y / Y, x / X.
    """
    height, width, _ = image.shape
    padded = np.pad(image.astype(np.float32), ((1, 1), (1, 1), (0, 0)), mode="edge")
    mean = sum(padded[i : i + height, j : j + width] for i in range(3) for j in range(3)) / 9
    y, x = np.mgrid[:height, :width].astype(np.float32)
    position = np.stack([y / height, x / width], -1)
    return np.concatenate([image, mean, position], -1, dtype=np.float32)


def sample_pixels(image, labels, num_classes: int, count: int, generator):
    """Features float32 [N,F] and train ids int64 [N] of at most `count` labelled pixels."""
    rows, columns = np.nonzero((labels >= 0) & (labels < num_classes))
    if len(rows) > count:
        chosen = generator.choice(len(rows), count, replace=False)
        rows, columns = rows[chosen], columns[chosen]
    return pixel_features(image)[rows, columns], labels[rows, columns].astype(np.int64)


def color_position_score(train, held_out, num_classes: int, iterations: int = 20) -> float:
    """mIoU of gradient-boosted trees on single pixels.

    Args:
      train, held_out: (features float32 [N,F], train ids int64 [N]).
      num_classes: K.
      iterations: rounds of boosting.

    Returns:
      mIoU on the held-out pixels, with the class reweighting that was best on the training pixels.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    features, labels = train
    present = np.unique(labels)
    if len(present) == 1:  # The classifier refuses a single class; the answer is known.
        constant = np.full_like(held_out[1], present[0])
        return mean_iou(count_confusion(held_out[1], constant, num_classes))
    model = HistGradientBoostingClassifier(
        max_iter=iterations,
        learning_rate=0.25,
        max_leaf_nodes=31,
        max_bins=63,
        min_samples_leaf=40 if len(labels) > 4000 else 1,
        early_stopping=False,
        random_state=0,
    ).fit(features, labels)
    frequency = np.bincount(labels, minlength=num_classes)[model.classes_] / len(labels)
    # A quarter of the training pixels is enough to choose one number.
    chosen, chosen_labels = features[::4], labels[::4]
    probabilities = model.predict_proba(chosen)

    def predict(values, alpha):
        return model.classes_[(values / frequency**alpha).argmax(1)]

    def train_score(alpha):
        predicted = predict(probabilities, alpha)
        return mean_iou(count_confusion(chosen_labels, predicted, num_classes))

    alpha = max(ALPHAS, key=train_score)
    predicted = predict(model.predict_proba(held_out[0]), alpha)
    return mean_iou(count_confusion(held_out[1], predicted, num_classes))


def score_baselines(train_source, eval_source, num_classes: int, max_train_images: int = 0):
    """Fits both baselines to one source and scores them on another.

    Args:
      train_source, eval_source: sources with labels.
      num_classes: K; labels outside 0..K-1 (the ignore label) are left out.
      max_train_images: take only so many training images, evenly spread; 0 takes all.

    Returns:
      {"constant_per_position_miou", "most_frequent_per_position_miou", "color_position_miou"},
      from 0 to 1. The second is the plain form of the first: the most frequent class.

    Raises:
      ValueError: if a source has no labels, or nothing is labelled.
    """
    number = len(train_source)
    if 0 < max_train_images < number:
        indices = np.linspace(0, number - 1, max_train_images).astype(int).tolist()
    else:
        indices = list(range(number))
    sizes = collections.Counter()
    generator = np.random.default_rng(0)

    def pixels(examples, share, also: Callable[[np.ndarray], None]):
        samples = []
        for image, labels in examples:
            also(labels)
            samples.append(sample_pixels(image, labels, num_classes, share, generator))
        features, ids = (np.concatenate(part) for part in zip(*samples, strict=True))
        if not len(ids):
            raise ValueError("no labelled pixel found: every label is the ignore label")
        return features, ids

    share = -(-TRAIN_PIXELS // len(indices))
    train = pixels(
        _examples(train_source, indices), share, lambda labels: sizes.update([labels.shape])
    )
    size = sizes.most_common(1)[0][0]
    counts = np.zeros((num_classes, *size), np.int32)
    for _, labels in _examples(train_source, indices):
        add_position_counts(counts, labels)
    prediction = best_constant_prediction(counts)

    held_out_counts = np.zeros_like(counts)
    share = -(-EVAL_PIXELS // len(eval_source))
    held_out = pixels(
        _examples(eval_source, range(len(eval_source))),
        share,
        lambda labels: add_position_counts(held_out_counts, labels),
    )
    most_frequent = confusion_of_constant(counts.argmax(0), held_out_counts)
    return {
        "constant_per_position_miou": mean_iou(confusion_of_constant(prediction, held_out_counts)),
        "most_frequent_per_position_miou": mean_iou(most_frequent),
        "color_position_miou": color_position_score(train, held_out, num_classes),
    }


def _examples(source, indices: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for index in indices:
        image, labels = source.read(index)
        if labels is None:
            raise ValueError(
                f"image {source.name(index)} has no labels; baselines need a split with labels"
            )
        yield image, labels


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the flags, scores, prints and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--config_file", required=True, help="Experiment (textproto).")
    parser.add_argument("--override", action="append", default=[], help="Textproto merged over it.")
    parser.add_argument("--data_dir", help="Root of the globs of a folder data set.")
    parser.add_argument("--max_train_images", type=int, default=0, help="0 takes all.")
    parser.add_argument("--output_json", required=True, help="Where the scores are written.")
    flags = parser.parse_args(arguments)

    import sp_transformer
    from sp_transformer.config import derived
    from sp_transformer.data.sources import create_source

    config = sp_transformer.load_config(
        flags.config_file, overrides=flags.override, data_dir=flags.data_dir
    )
    scores = score_baselines(
        create_source(config.data, config.data.train_split),
        create_source(config.data, config.data.eval_split),
        derived.num_classes(config),
        flags.max_train_images,
    )
    for name, score in scores.items():
        print(f"{name}: {score:.4f}")
    path = pathlib.Path(flags.output_json)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(scores, indent=2) + "\n")


if __name__ == "__main__":
    main()
