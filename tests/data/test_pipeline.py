import contextlib
import gc
import itertools
import weakref

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.data import pipeline, resize, skipping
from sp_transformer.data.folder import FolderSource
from sp_transformer.protos import data_pb2

VARIED = data_pb2.AugmentationOptions(min_scale=0.5, max_scale=2.0, color_policy="jitter")
SIZES = [(9, 14), (12, 12), (7, 20), (16, 10), (9, 14), (11, 13), (8, 12)]


def _take(dataset, count):
    return [
        {key: value.numpy() for key, value in batch.items()}
        for batch in itertools.islice(dataset, count)
    ]


def _assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[key], b[key]) for key in a)


def test_train_batches_have_static_shapes_and_types(make_config, array_source):
    dataset = pipeline.train_dataset(make_config(augmentation=VARIED), array_source(SIZES))
    assert dataset.element_spec == {
        "image": tf.TensorSpec([4, 8, 12, 3], tf.float32),
        "label": tf.TensorSpec([4, 8, 12], tf.int32),
    }
    batch = _take(dataset, 1)[0]
    assert batch["image"].min() >= 0 and batch["image"].max() <= 255
    assert set(np.unique(batch["label"])) <= {0, 1, 2, 255}


def test_resumed_stream_is_the_tail_of_the_whole(make_config, array_source):
    config = make_config(augmentation=VARIED, seed=5)
    whole = _take(pipeline.train_dataset(config, array_source(SIZES)), 9)
    for step in (1, 4, 7):
        resumed = pipeline.train_dataset(config, array_source(SIZES), first_step=step)
        _assert_equal(_take(resumed, 9 - step), whole[step:])


def test_stream_depends_on_the_seed_only(make_config, array_source):
    def first(seed, calls):
        config = make_config(augmentation=VARIED, seed=seed, parallel_calls=calls)
        return _take(pipeline.train_dataset(config, array_source(SIZES)), 4)

    _assert_equal(first(5, 1), first(5, 7))
    assert not np.array_equal(first(5, 1)[0]["image"], first(6, 1)[0]["image"])


@pytest.mark.parametrize("num_images", [1, 2, 7, 10])
def test_every_epoch_is_another_permutation(num_images):
    index = tf.function(
        lambda number: pipeline.shuffled_index(number, num_images, seed=3),
        input_signature=[tf.TensorSpec([], tf.int64)],
    )
    order = np.array([int(index(n)) for n in range(12 * num_images)]).reshape(12, num_images)
    assert (np.sort(order, axis=1) == np.arange(num_images)).all()
    if num_images >= 7:
        assert len({tuple(epoch) for epoch in order}) == 12


def test_epochs_of_the_stream_hold_every_image_once(make_config, array_source):
    sizes = [(8, 12)] * 6
    source = array_source(sizes)
    augment = data_pb2.AugmentationOptions(horizontal_flip=False)
    dataset = pipeline.train_dataset(make_config(3, augmentation=augment), source)
    images = np.concatenate([batch["image"] for batch in _take(dataset, 4)])
    known = np.stack([image for image, _ in source.examples])
    seen = [int(np.flatnonzero((known == image).all((1, 2, 3)))[0]) for image in images]
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))


def _context(pipelines, pipeline_id, replicas):
    return tf.distribute.InputContext(pipelines, pipeline_id, replicas)


@pytest.mark.parametrize(
    ("pipelines", "replicas"), [(1, 1), (1, 2), (2, 2), (2, 4), (4, 4), (4, 8)]
)
def test_input_pipelines_together_equal_one(make_config, array_source, pipelines, replicas):
    config = make_config(8, augmentation=VARIED)
    whole = _take(pipeline.train_dataset(config, array_source(SIZES), first_step=2), 3)
    batches = replicas // pipelines  # Of every pipeline in a step.
    shares = [
        _take(
            pipeline.train_dataset(
                config, array_source(SIZES), 2, _context(pipelines, i, replicas)
            ),
            3 * batches,
        )
        for i in range(pipelines)
    ]
    assert shares[0][0]["image"].shape[0] == 8 // replicas
    for step, batch in enumerate(whole):
        parts = [part for share in shares for part in share[step * batches : (step + 1) * batches]]
        for key in batch:
            assert np.array_equal(np.concatenate([part[key] for part in parts]), batch[key])


@pytest.mark.parametrize("policy", ["jitter", "autoaugment"])
def test_examples_differ_between_hosts_and_epochs(make_config, array_source, policy):
    augment = data_pb2.AugmentationOptions(min_scale=0.5, max_scale=2.0, color_policy=policy)
    config = make_config(4, augmentation=augment)
    source = array_source([(16, 24)])  # One image: whatever differs is the augmentation.

    def images(pipelines, pipeline_id):
        context = _context(pipelines, pipeline_id, pipelines)
        batches = _take(pipeline.train_dataset(config, source, 0, context), 4)
        return [image.tobytes() for batch in batches for image in batch["image"]]

    hosts = [images(2, i) for i in range(2)]
    assert len(set(hosts[0] + hosts[1])) == len(hosts[0]) + len(hosts[1]) == 16
    assert hosts[0] == images(2, 0)  # Reproducible from the seed.


def test_order_is_free_on_request_but_not_the_examples(make_config, array_source):
    def drawn(deterministic):
        config = make_config(4, augmentation=VARIED, deterministic=deterministic)
        dataset = pipeline.train_dataset(config, array_source(SIZES))
        assert dataset.options().deterministic == deterministic
        return [image.tobytes() for batch in _take(dataset, 12) for image in batch["image"]]

    ordered, free = drawn(True), drawn(False)
    # What is ready goes first, so that a few at the end may be others.
    assert len(set(free)) == len(free)
    assert len(set(ordered) & set(free)) >= len(ordered) - 12


def test_uneven_share_is_refused(make_config, array_source):
    with pytest.raises(ValueError, match="batch_size 4 cannot be shared evenly by 3 replicas"):
        pipeline.train_dataset(make_config(), array_source(SIZES), 0, _context(3, 0, 3))


@pytest.mark.parametrize(
    "resizing", [{}, {"resize_height": 10, "resize_width": 15}, {"resize_longer_side": 9}]
)
def test_cached_equals_uncached_and_reads_once(make_config, array_source, resizing):
    cached_source, source = array_source(SIZES), array_source(SIZES)
    options = {"augmentation": VARIED, "parallel_calls": 1, **resizing}
    cached = pipeline.train_dataset(make_config(cache_in_memory=True, **options), cached_source)
    plain = pipeline.train_dataset(make_config(**options), source)
    _assert_equal(_take(cached, 6), _take(plain, 6))
    assert sorted(cached_source.reads) == list(range(len(SIZES)))
    assert len(source.reads) >= 24


def test_examples_are_resized_before_they_are_cropped(make_config, array_source):
    source = array_source([(16, 24)])
    config = make_config(
        1,
        resize_longer_side=12,
        augmentation=data_pb2.AugmentationOptions(horizontal_flip=False),
    )
    batch = _take(pipeline.train_dataset(config, source), 1)[0]
    image, label = source.examples[0]
    assert np.array_equal(batch["image"][0], resize.resize_image(image, (8, 12)))
    assert np.array_equal(batch["label"][0], resize.resize_label(label, (8, 12)))


def test_faults_of_files_are_named(make_config, tmp_path, save, split, label_map):
    save(tmp_path / "images" / "bad one.png", np.zeros((8, 12, 3), np.uint8))
    save(tmp_path / "labels" / "bad one.png", np.full((8, 12), 77, np.uint8))
    source = FolderSource(split(), tmp_path, label_map())
    for dataset in (
        pipeline.train_dataset(make_config(), source),
        pipeline.eval_dataset(make_config(), source, 2),
    ):
        with pytest.raises(tf.errors.OpError, match=r"labels/bad one\.png holds id 77"):
            next(iter(dataset))


def test_sources_that_cannot_serve_are_refused(make_config, array_source):
    unlabelled = array_source(SIZES, has_labels=False)
    with pytest.raises(ValueError, match=r"split for evaluation has no labels .*array/0"):
        pipeline.eval_dataset(make_config(), unlabelled, 1)
    with pytest.raises(ValueError, match="split for training has no labels"):
        pipeline.train_dataset(make_config(), unlabelled)
    with pytest.raises(ValueError, match="holds no images"):
        pipeline.train_dataset(make_config(), array_source([]))
    with pytest.raises(ValueError, match="batch_size 0 is below 1"):
        pipeline.eval_dataset(make_config(), array_source(SIZES), 0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_evaluation_sees_every_image_once(make_config, array_source, batch_size):
    sizes = [(4, 6)] * 5 + [(6, 4)] * 2 + [(4, 6)] * 4 + [(24, 1)] * 2
    source = array_source(sizes)
    batches = _take(pipeline.eval_dataset(make_config(), source, batch_size), 100)
    assert np.concatenate([batch["index"] for batch in batches]).tolist() == list(range(13))
    assert sorted(source.reads) == list(range(13))
    assert max(len(batch["index"]) for batch in batches) == min(batch_size, 5)
    for batch in batches:
        assert batch["image"].dtype == np.uint8 and batch["label"].dtype == np.int32
        assert batch["index"].dtype == np.int64
        for image, label, index in zip(
            *(batch[k] for k in ("image", "label", "index")), strict=True
        ):
            assert np.array_equal(image, source.examples[index][0])
            assert np.array_equal(label, source.examples[index][1])


def test_evaluation_ignores_resizing_and_repeats(make_config, array_source):
    dataset = pipeline.eval_dataset(make_config(resize_longer_side=5), array_source(SIZES), 2)
    first = _take(dataset, 100)
    assert [batch["image"].shape[1:3] for batch in first] == SIZES
    _assert_equal(_take(dataset, 100), first)


@pytest.mark.parametrize(("max_images", "expected"), [(0, 7), (3, 3), (50, 7)])
def test_max_images(make_config, array_source, max_images, expected):
    dataset = pipeline.eval_dataset(make_config(), array_source(SIZES), 1, max_images)
    assert [int(batch["index"][0]) for batch in dataset] == list(range(expected))


def test_evaluation_may_be_left_early(make_config, array_source):
    dataset = pipeline.eval_dataset(make_config(parallel_calls=3), array_source(SIZES * 20), 1)
    assert len(_take(dataset, 2)) == 2


@pytest.mark.parametrize("pipelines", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_evaluation_pipelines_share_the_images(make_config, array_source, pipelines, batch_size):
    source = array_source(SIZES)
    indices = []
    for i in range(pipelines):
        dataset = pipeline.eval_dataset(
            make_config(), source, batch_size, input_context=_context(pipelines, i, pipelines)
        )
        for batch in _take(dataset, 100):
            for index, image in zip(batch["index"], batch["image"], strict=True):
                assert np.array_equal(image, source.examples[index][0])
                indices.append(int(index))
    assert sorted(indices) == list(range(len(SIZES)))


@pytest.mark.parametrize("pipelines", [1, 2, 4])
@pytest.mark.parametrize(("max_images", "faulty"), [(0, None), (5, None), (1, None), (0, 3)])
def test_static_evaluation_batches(make_config, array_source, pipelines, max_images, faulty):
    source = array_source(SIZES)
    count = max_images or len(SIZES)
    config, skipped = make_config(skip_corrupt=True), skipping.SkippedFiles()
    read = source.read

    def torn(index):
        if index == faulty:
            raise ValueError("torn")
        return read(index)

    source.read = torn
    shares = [
        _take(
            pipeline.eval_dataset(
                config,
                source,
                2,
                max_images,
                input_context=_context(pipelines, i, pipelines),
                static_size=(16, 20),
                skipped=skipped,
            ),
            100,
        )
        for i in range(pipelines)
    ]
    # In step: as many batches of one shape in every pipeline.
    assert len({len(share) for share in shares}) == 1
    indices = []
    for batch in itertools.chain(*shares):
        assert batch["image"].shape == (2, 16, 20, 3) and batch["label"].shape == (2, 16, 20)
        for index, image, label in zip(
            *(batch[k] for k in ("index", "image", "label")), strict=True
        ):
            y = x = 0
            if index >= 0:
                indices.append(int(index))
                y, x = SIZES[index]
                assert np.array_equal(image[:y, :x], source.examples[index][0])
                assert np.array_equal(label[:y, :x], source.examples[index][1])
            assert (label[y:] == 255).all() and (label[:, x:] == 255).all()
            assert (image[y:] == 128).all() and (image[:, x:] == 128).all()
    assert sorted(indices) == [i for i in range(count) if i != faulty]
    assert len(skipped.reasons()) == (faulty is not None)


@pytest.mark.parametrize("static_size", [None, (16, 20)])
def test_evaluation_batches_say_how_large_images_are(make_config, array_source, static_size):
    dataset = pipeline.eval_dataset(make_config(), array_source(SIZES), 3, static_size=static_size)
    for batch in _take(dataset, 100):
        for index, size in zip(batch["index"], batch["size"], strict=True):
            assert tuple(size) == (SIZES[index] if index >= 0 else (0, 0))


def test_images_without_labels_are_ignored_everywhere_where_none_are_needed(
    make_config, array_source
):
    source = array_source(SIZES)
    source.has_labels = False
    read = source.read
    source.read = lambda index: (read(index)[0], None)
    with pytest.raises(ValueError, match="has no labels"):
        pipeline.eval_dataset(make_config(), source, 2)
    batches = _take(pipeline.eval_dataset(make_config(), source, 2, needs_labels=False), 100)
    assert sum(len(batch["index"]) for batch in batches) == len(SIZES)
    for batch in batches:
        assert batch["label"].shape == batch["image"].shape[:3]
        assert (batch["label"] == 255).all()


def test_image_larger_than_the_static_size_is_named(make_config, array_source):
    dataset = pipeline.eval_dataset(make_config(), array_source(SIZES), 1, static_size=(16, 16))
    with pytest.raises(ValueError, match=r"array/2 is 7x20 pixels, larger than .* 16x16"):
        list(pipeline.with_plain_errors(dataset))


def test_an_error_leaves_no_iterator_to_the_garbage_collector(make_config, array_source):
    class Watched:
        def __iter__(self):
            iterator = iter(dataset)
            self.iterator = weakref.ref(iterator)
            return iterator

    dataset = pipeline.eval_dataset(make_config(), array_source(SIZES), 1, static_size=(16, 16))
    watched = Watched()
    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            list(pipeline.with_plain_errors(watched))
        assert watched.iterator() is None
    finally:
        gc.enable()
