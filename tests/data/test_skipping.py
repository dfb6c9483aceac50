"""skip_corrupt: what is taken in a faulty example's place, and what is said of it."""

import itertools
import threading

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.data import pipeline, skipping
from sp_transformer.data.source import Source
from sp_transformer.protos import data_pb2


class FaultySource(Source):
    """A source of which some examples raise, as a torn file does."""

    def __init__(self, source, faulty):
        self._source, self.faulty, self.has_labels = source, set(faulty), True

    def __len__(self):
        return len(self._source)

    def name(self, index):
        return self._source.name(index)

    def read(self, index):
        if index in self.faulty:
            raise ValueError(f"cannot read image {self.name(index)}: torn")
        return self._source.read(index)


PLAIN = data_pb2.AugmentationOptions(horizontal_flip=False)


@pytest.fixture
def source(array_source):
    return array_source([(8, 12)] * 6)


def _images(dataset, count):
    return np.concatenate([batch["image"].numpy() for batch in itertools.islice(dataset, count)])


def _indices(images, source):
    known = np.stack([image for image, _ in source.examples])
    return [int(np.flatnonzero((known == image).all((1, 2, 3)))[0]) for image in images]


@pytest.mark.parametrize("faulty", [(2,), (5,), (1, 2, 3)])
def test_next_in_order_takes_the_place(make_config, source, faulty):
    config = make_config(3, augmentation=PLAIN, skip_corrupt=True)
    whole = _indices(_images(pipeline.train_dataset(config, source), 6), source)
    skipped = skipping.SkippedFiles()
    dataset = pipeline.train_dataset(config, FaultySource(source, faulty), skipped=skipped)
    seen = _indices(_images(dataset, 6), source)
    usable = [i for i in range(6) if i not in faulty]
    assert seen == [next(j % 6 for j in range(i, i + 6) if j % 6 in usable) for i in whole]
    assert list(skipped.reasons()) == [f"array/{i}" for i in faulty]
    # A resumed stream is the tail of the whole one.
    resumed = pipeline.train_dataset(config, FaultySource(source, faulty), first_step=2)
    assert _indices(_images(resumed, 4), source) == seen[6:]


def test_cached_examples_are_the_same(make_config, source):
    faulty = FaultySource(source, [0, 4])
    streams = [
        _images(
            pipeline.train_dataset(
                make_config(3, skip_corrupt=True, augmentation=PLAIN, cache_in_memory=cached),
                faulty,
            ),
            6,
        )
        for cached in (False, True)
    ]
    assert np.array_equal(*streams)


def test_default_is_an_error_that_names_the_file(make_config, source):
    dataset = pipeline.train_dataset(make_config(6), FaultySource(source, [2]))
    with pytest.raises(tf.errors.OpError, match="cannot read image array/2: torn"):
        next(iter(dataset))
    dataset = pipeline.eval_dataset(make_config(), FaultySource(source, [2]), 2)
    with pytest.raises(ValueError, match=r"^cannot read image array/2: torn$"):
        list(pipeline.with_plain_errors(dataset))


def test_faults_of_all_images_are_not_skipped(make_config, source):
    dataset = pipeline.train_dataset(make_config(skip_corrupt=True), FaultySource(source, range(6)))
    with pytest.raises(ValueError, match=r"^6 images in a row .*last: .*array/\d: torn.*inspect"):
        next(pipeline.with_plain_errors(dataset))


def test_many_faulty_in_a_row_are_given_up():
    class Endless(FaultySource):
        def __init__(self):
            self.has_labels, self.reads = True, 0

        def __len__(self):
            return 10**6

        def name(self, index):
            return str(index)

        def read(self, index):
            self.reads += 1
            raise ValueError("torn")

    source = Endless()
    with pytest.raises(ValueError, match="100 images in a row"):
        skipping.usable(source, 5, source.read, skipping.SkippedFiles())
    assert source.reads == skipping.MAX_SKIPPED_IN_A_ROW


def test_evaluation_leaves_faulty_images_out(make_config, source):
    skipped = skipping.SkippedFiles()
    dataset = pipeline.eval_dataset(
        make_config(skip_corrupt=True), FaultySource(source, [1, 5]), 4, skipped=skipped
    )
    indices = np.concatenate([batch["index"].numpy() for batch in dataset])
    assert indices.tolist() == [0, 2, 3, 4]
    assert list(skipped.reasons()) == ["array/1", "array/5"]


def test_message_lists_ten_and_counts_the_rest():
    skipped = skipping.SkippedFiles()
    assert skipped.message() == ""
    skipped.add("a", "cannot read a")
    skipped.add("a", "another reason")
    assert skipped.message() == "data.skip_corrupt skipped 1 file:\n  cannot read a"
    for number in range(12):
        skipped.add(f"b{number:02}", f"cannot read b{number:02}")
    assert skipped.message().startswith("data.skip_corrupt skipped 13 files:\n  cannot read a\n")
    assert skipped.message().endswith("cannot read b08\n  and 3 more")


def test_threads_may_add_at_once():
    skipped = skipping.SkippedFiles()
    threads = [
        threading.Thread(target=lambda k=k: [skipped.add(f"{k}/{i}", "") for i in range(200)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(skipped.reasons()) == 800
