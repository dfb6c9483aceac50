"""Records: equal to their source, resumable, verified, and refused where they are torn or foreign."""

import json
import pathlib

import numpy as np
import pytest

from sp_transformer.config import derived
from sp_transformer.data import pipeline, preparation, records, sources, tiles
from sp_transformer.protos import data_pb2, experiment_pb2

from . import official

ALL = ("auto", "tiles", "png", "webp")


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("official")
    official.write_cityscapes_zips(root, official.cityscapes_files())
    return data_pb2.DataOptions(dataset="cityscapes", data_dir=str(root))


@pytest.fixture(scope="module")
def ade20k(tmp_path_factory):
    root = tmp_path_factory.mktemp("official")
    official.write_ade20k_zips(root, official.ade20k_files())
    return data_pb2.DataOptions(dataset="ade20k", data_dir=str(root))


@pytest.fixture(scope="module")
def prepared(cityscapes, tmp_path_factory):
    """A folder of records that tests must not change."""
    output = str(tmp_path_factory.mktemp("records") / "cityscapes")
    preparation.prepare(cityscapes, output, num_shards=2)
    return output


def _copy(folder, target):
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file():
            copied = target / path.relative_to(folder)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(path.read_bytes())
    return str(target)


def _moved(options, folder):
    moved = data_pb2.DataOptions()
    moved.CopyFrom(options)
    moved.data_dir = str(folder)
    return moved


def _assert_equal_sources(first, second):
    assert len(first) == len(second) and first.has_labels == second.has_labels
    for index in range(len(first)):
        assert first.name(index) == second.name(index)
        (image, label), (other_image, other_label) = first.read(index), second.read(index)
        assert image.dtype == other_image.dtype == np.uint8
        assert np.array_equal(image, other_image)
        if first.has_labels:
            assert label.dtype == other_label.dtype and np.array_equal(label, other_label)


@pytest.mark.parametrize("encoding", ALL)
@pytest.mark.parametrize("dataset", ["cityscapes", "ade20k"])
def test_every_image_equals_the_source(dataset, encoding, request, tmp_path):
    options = request.getfixturevalue(dataset)
    preparation.prepare(options, str(tmp_path / "out"), encoding=encoding)
    for split in sources.split_names(options):
        # The same config, and nothing but another data_dir.
        source = sources.create_source(_moved(options, tmp_path / "out"), split)
        assert isinstance(source, records.RecordsSource)
        _assert_equal_sources(sources.create_source(options, split), source)
    assert preparation.verify(options, str(tmp_path / "out")) == []


def test_jpeg_files_stay_as_they_are(ade20k, tmp_path):
    preparation.prepare(ade20k, str(tmp_path / "out"))
    source = sources.create_source(ade20k, "train")
    prepared = sources.create_source(_moved(ade20k, tmp_path / "out"), "train")
    image, label = prepared.encoded(2)
    assert image == source.image_file(2) and tiles.is_encoded(label)
    part = prepared.read_region(2, lambda height, width: (3, 5, 7, 11))
    for cut, whole in zip(part, source.read(2), strict=True):
        assert np.array_equal(cut, whole[3:10, 5:16])


def test_lossy_jpeg_keeps_sizes_and_labels(cityscapes, tmp_path):
    output = str(tmp_path / "out")
    manifest = preparation.prepare(cityscapes, output, ["train"], encoding="jpeg", quality=90)
    assert manifest["encoding"] == {"images": "jpeg", "quality": 90, "lossless": False}
    assert preparation.verify(cityscapes, output) == []
    source = sources.create_source(cityscapes, "train")
    prepared = sources.create_source(_moved(cityscapes, output), "train")
    assert not np.array_equal(source.read(0)[0], prepared.read(0)[0])
    assert np.array_equal(source.read(0)[1], prepared.read(0)[1])


def test_ids_beyond_8_bits(tmp_path, save):
    ids = np.array([[0, 299, 300, 999]] * 4, np.uint16)
    save(tmp_path / "data" / "a.png", np.zeros((4, 4, 3), np.uint8))
    save(tmp_path / "data" / "ids" / "a.png", ids)
    options = data_pb2.DataOptions(dataset="folder", data_dir=str(tmp_path / "data"))
    options.folder.splits.add(name="train", images=["*.png"], labels=["ids/*.png"])
    options.label_map.ignore_label = 999
    for number in range(301):
        options.label_map.classes.add(name=f"class {number}", color="#102030")
    for encoding in ("tiles", "png"):
        output = str(tmp_path / encoding)
        manifest = preparation.prepare(options, output, encoding=encoding)
        _, label = sources.create_source(_moved(options, output), "train").read(0)
        assert label.dtype == np.int32 and np.array_equal(label, ids)
        assert manifest["splits"]["train"]["ignored_pixels"] == 4


def test_manifest_counts_sizes_pixels_and_checksums(prepared, cityscapes):
    import hashlib

    manifest = json.loads(pathlib.Path(prepared, "records.json").read_text())
    train = manifest["splits"]["train"]
    assert train["num_examples"] == 6 and train["sizes"] == {"64x128": 6}
    assert [entry["num_examples"] for entry in train["files"]] == [3, 3]
    labels = np.stack([sources.create_source(cityscapes, "train").read(i)[1] for i in range(6)])
    names = derived.data_label_map(cityscapes).names
    assert train["label_pixels"] == {name: int((labels == i).sum()) for i, name in enumerate(names)}
    assert train["ignored_pixels"] == int((labels == 255).sum())
    for entry in train["files"]:
        for name, digest in (("file", "sha256"), ("index", "index_sha256")):
            content = pathlib.Path(prepared, entry[name]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == entry[digest]
    assert "label_pixels" not in manifest["splits"]["test"]
    assert not list(pathlib.Path(prepared).rglob("*.partial"))
    assert not pathlib.Path(prepared, records.UNFINISHED).exists()


def test_regions_read_only_their_tiles(tmp_path, save):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (400, 700, 3), dtype=np.uint8)
    save(tmp_path / "data" / "a.png", image)
    save(tmp_path / "data" / "ids" / "a.png", image[..., 0] % 3)
    options = data_pb2.DataOptions(dataset="folder", data_dir=str(tmp_path / "data"))
    options.folder.splits.add(name="train", images=["*.png"], labels=["ids/*.png"])
    for name in ("a", "b", "c"):
        options.label_map.classes.add(name=name, color="#102030")
    preparation.prepare(options, str(tmp_path / "out"))
    source = sources.create_source(_moved(options, tmp_path / "out"), "train")
    # The second time, the layout is known.
    for _ in range(2):
        part, label = source.read_region(0, lambda height, width: (130, 300, 100, 150))
        assert np.array_equal(part, image[130:230, 300:450])
        assert np.array_equal(label, image[130:230, 300:450, 0] % 3)
    fetched, _ = source.fetch(0, lambda height, width: (130, 300, 100, 150))
    assert len(fetched[1]) < image.size / 3


def test_training_from_records_is_training_from_the_source(prepared, cityscapes, make_config):
    def batches(options):
        config = experiment_pb2.ExperimentOptions()
        config.data.MergeFrom(options)
        config.training.batch_size = 4
        config.data.crop_height, config.data.crop_width = 32, 64
        config.data.augmentation.min_scale, config.data.augmentation.max_scale = 0.5, 2
        config.data.augmentation.color_policy = "jitter"
        dataset = pipeline.train_dataset(config, sources.create_source(options, "train"), 3)
        return list(dataset.take(3))

    for a, b in zip(batches(cityscapes), batches(_moved(cityscapes, prepared)), strict=True):
        assert all(np.array_equal(a[key], b[key]) for key in ("image", "label"))


def test_processes_write_the_same_bytes_as_one(prepared, cityscapes, tmp_path):
    reports = []
    preparation.prepare(
        cityscapes,
        str(tmp_path / "out"),
        num_shards=2,
        num_workers=2,
        progress=lambda done, total: reports.append((done, total)),
    )
    files = sorted(path.name for path in pathlib.Path(prepared).glob("*.tfrecord*"))
    assert len(files) == 6
    for name in files:
        assert pathlib.Path(prepared, name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert reports[-1] == (12, 12) or reports[-1][0] <= 12
    assert all(total == 12 for _, total in reports)


class _Killed(Exception):
    pass


def test_a_killed_run_goes_on_where_it_stopped(prepared, cityscapes, tmp_path):
    output = tmp_path / "out"

    def kill(done, total):
        if done == 5:
            raise _Killed

    with pytest.raises(_Killed):
        preparation.prepare(cityscapes, str(output), num_shards=3, progress=kill)
    finished = {path: path.stat().st_mtime_ns for path in output.glob("*.tfrecord-*-of-00003")}
    assert len(finished) == 2
    with pytest.raises(ValueError, match=r"not finished; run the same prepare_data command again"):
        sources.create_source(_moved(cityscapes, output), "train")
    # What a kill leaves half-written is no obstacle.
    (output / "cityscapes-train.tfrecord-00002-of-00003.partial").write_bytes(b"half")
    reports = []
    preparation.prepare(
        cityscapes, str(output), num_shards=3, progress=lambda done, total: reports.append(done)
    )
    assert reports[0] == 5 and reports[-1] == 12
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())
    assert preparation.verify(cityscapes, str(output)) == []


def test_finished_records_are_left_alone_and_get_missing_splits(cityscapes, tmp_path):
    output = tmp_path / "out"
    preparation.prepare(cityscapes, str(output), ["val"])
    before = (output / "records.json").read_bytes()
    reports = []
    preparation.prepare(
        cityscapes, str(output), ["val"], progress=lambda *args: reports.append(args)
    )
    assert reports == [] and (output / "records.json").read_bytes() == before
    with pytest.raises(ValueError, match=r"split 'train' is unknown; the records in .* have val"):
        sources.create_source(_moved(cityscapes, output), "train")
    manifest = preparation.prepare(cityscapes, str(output), ["train"])
    assert list(manifest["splits"]) == ["val", "train"]
    assert preparation.verify(cityscapes, str(output)) == []


def test_what_is_there_is_never_mixed_with_something_else(prepared, cityscapes, ade20k, tmp_path):
    output = _copy(prepared, tmp_path / "out")
    with pytest.raises(ValueError, match=r"another encoding: .*tiles|another encoding: .*png"):
        preparation.prepare(cityscapes, output, encoding="png")
    with pytest.raises(ValueError, match=r"another name: .*cityscapes.*ade20k"):
        preparation.prepare(ade20k, output)
    other = _moved(cityscapes, cityscapes.data_dir)
    other.label_map.classes.add(name="all", color="#102030")
    other.label_map.id_map.add(**{"from": 7, "to": 0})
    other.label_map.ignore_unlisted_ids = True
    with pytest.raises(ValueError, match="another label map"):
        preparation.prepare(other, output)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="is not empty and holds no records"):
        preparation.prepare(cityscapes, str(foreign))
    with pytest.raises(ValueError, match='"records" is prepared already'):
        preparation.prepare(
            _moved(data_pb2.DataOptions(dataset="records"), prepared), str(tmp_path / "x")
        )


def test_a_source_that_changed_is_noticed(cityscapes, tmp_path):
    files = official.cityscapes_files()
    official.write_folder(tmp_path / "data", files)
    options = _moved(cityscapes, tmp_path / "data")
    output = str(tmp_path / "out")
    preparation.prepare(options, output, ["train"])
    path = next(p for p in files if p.startswith("leftImg8bit/train/ulm"))
    image, _ = official.scene(77, (64, 128), [0])
    (tmp_path / "data" / path).write_bytes(official.encoded(image))
    (fault,) = preparation.verify(options, output)
    assert path.removesuffix(".png") in fault and "pixels of the image differ" in fault


def _check(options, folder, message):
    with pytest.raises(ValueError, match=message) as error:
        sources.create_source(_moved(options, folder), "train")
    assert str(folder) in str(error.value)


def test_torn_foreign_and_old_folders_are_refused(prepared, cityscapes, tmp_path):
    shard = "cityscapes-train.tfrecord-00001-of-00002"
    torn = pathlib.Path(_copy(prepared, tmp_path / "torn"))
    (torn / shard).write_bytes((torn / shard).read_bytes()[:-100])
    _check(cityscapes, torn, rf"{shard} has \d+ bytes where its index says \d+; copy the folder")
    (torn / shard).unlink()
    _check(cityscapes, torn, rf"cannot open .*{shard}")
    index = pathlib.Path(_copy(prepared, tmp_path / "index"))
    (index / "index" / "train-00000-of-00002.npz").write_bytes(b"PK")
    _check(cityscapes, index, r"cannot read index .*train-00000")
    old = pathlib.Path(_copy(prepared, tmp_path / "old"))
    manifest = json.loads((old / "records.json").read_text())
    (old / "records.json").write_text(json.dumps({**manifest, "version": 0}))
    _check(cityscapes, old, "version 0, but this program reads .*version 1; prepare the data again")
    (old / "records.json").write_text("{")
    _check(cityscapes, old, r"records\.json is damaged")
    options = data_pb2.DataOptions(dataset="records", label_map=cityscapes.label_map)
    options.label_map.classes.add(name="road", color="#102030")
    _check(options, tmp_path, r"holds no records \(there is no records\.json\)")
    (tmp_path / "dataset_info.json").write_text("{}")
    _check(options, tmp_path, "was prepared by tensorflow_datasets")


def test_damaged_records_name_image_and_shard(prepared, cityscapes, tmp_path):
    folder = pathlib.Path(_copy(prepared, tmp_path / "out"))
    shard = folder / "cityscapes-train.tfrecord-00000-of-00002"
    index = records.ShardIndex.load(str(folder / "index" / "train-00000-of-00002.npz"))
    content = bytearray(shard.read_bytes())
    content[index.images[1, 0] + index.images[1, 1] - 3] ^= 1
    shard.write_bytes(content)
    source = sources.create_source(_moved(cityscapes, folder), "train")
    source.read(0)
    with pytest.raises(ValueError, match=rf"image {source.name(1)} in .*00000-of-00002 is damaged"):
        source.read(1)
    faults = preparation.verify(cityscapes, str(folder))
    assert any("SHA-256" in fault for fault in faults)
    assert any(source.name(1) in fault for fault in faults)


def test_other_classes_are_refused(prepared, cityscapes):
    def with_map(classes, **fields):
        options = _moved(cityscapes, prepared)
        options.dataset = "records"
        for name in classes:
            options.label_map.classes.add(name=name, color="#102030")
        for key, value in fields.items():
            setattr(options.label_map, key, value)
        return options

    names = derived.data_label_map(cityscapes).names
    # The ids were mapped when the records were made; a config need not say how.
    assert len(sources.create_source(with_map(names), "train")) == 6
    _check(with_map(names[:-1]), prepared, "have 19 classes, not 18; use the label_map")
    swapped = (names[1], names[0], *names[2:])
    _check(with_map(swapped), prepared, "have class 0 'road', not 'sidewalk'")
    _check(with_map(names, ignore_label=254), prepared, "ignore_label 255, not 254")
    mapped = with_map(names)
    mapped.label_map.id_map.add(**{"from": 1, "to": 1})
    _check(mapped, prepared, "ids mapped by another id_map")


def test_faults_of_the_source_end_the_run_and_name_the_file(tmp_path):
    files = official.cityscapes_files((3, 1, 0))
    path = next(p for p in files if p.startswith("leftImg8bit/train/ulm"))
    files[path] = files[path][:200]
    official.write_cityscapes_zips(tmp_path / "data", files)
    options = data_pb2.DataOptions(dataset="cityscapes", data_dir=str(tmp_path / "data"))
    for workers in (1, 2):
        with pytest.raises(ValueError, match=r"leftImg8bit/train/ulm/ulm_000001"):
            preparation.prepare(options, str(tmp_path / "out"), ["train"], num_workers=workers)


def test_folders_behind_a_scheme(cityscapes):
    """What "gs://" does, with the file system that TensorFlow keeps in memory."""
    import tensorflow as tf

    for path in pathlib.Path(cityscapes.data_dir).glob("*.zip"):
        with tf.io.gfile.GFile(f"ram://zips/{path.name}", "wb") as file:
            file.write(path.read_bytes())
    remote = _moved(cityscapes, "ram://zips")
    preparation.prepare(remote, "ram://out", ["train", "test"], num_shards=2)
    assert preparation.verify(cityscapes, "ram://out") == []
    for split in ("train", "test"):
        prepared = sources.create_source(_moved(cityscapes, "ram://out"), split)
        _assert_equal_sources(sources.create_source(cityscapes, split), prepared)
    assert tf.io.gfile.exists("ram://out/dataset_info.json")
    with pytest.raises(ValueError, match=r"ram://nothing"):
        sources.create_source(_moved(cityscapes, "ram://nothing"), "train")


def test_tfds_reads_what_was_prepared(cityscapes, prepared, tmp_path):
    import tensorflow_datasets as tfds

    output = str(tmp_path / "out")
    preparation.prepare(cityscapes, output, ["train", "val"], encoding="png", num_shards=2)
    builder = tfds.builder_from_directory(output)
    assert builder.name == "cityscapes"
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 6,
        "val": 3,
    }
    source = sources.create_source(cityscapes, "train")
    for index, features in enumerate(tfds.as_numpy(builder.as_dataset("train"))):
        image, label = source.read(index)
        assert features["name"].decode() == source.name(index)
        assert np.array_equal(features["image"], image)
        assert np.array_equal(features["label"][..., 0], label)
    # Tiles come as bytes, which this package decodes.
    builder = tfds.builder_from_directory(prepared)
    features = next(iter(tfds.as_numpy(builder.as_dataset("train"))))
    assert np.array_equal(tiles.decode(features["image"]), source.read(0)[0])


def test_source_tfds_reads_at_random(cityscapes, tmp_path):
    output = str(tmp_path / "out")
    preparation.prepare(cityscapes, output, ["train", "val"], encoding="png", num_shards=2)
    # As any other data set of tfds.
    (tmp_path / "out" / "records.json").unlink()
    options = data_pb2.DataOptions(dataset="tfds", data_dir=output)
    options.tfds.label_key, options.tfds.name_key = "label", "name"
    for name in derived.data_label_map(cityscapes).names:
        options.label_map.classes.add(name=name, color="#102030")
    assert sources.split_names(options) == ["train", "val"]
    source = sources.create_source(options, "train")
    _assert_equal_sources(sources.create_source(cityscapes, "train"), source)
    part = sources.create_source(options, "train[2:5]")
    assert len(part) == 3 and np.array_equal(part.read(1)[0], source.read(3)[0])
    options.tfds.name_key = ""
    assert sources.create_source(options, "train").name(4) == "train/000004"
    options.tfds.label_key = ""
    unlabelled = sources.create_source(options, "val")
    assert not unlabelled.has_labels and unlabelled.read(0)[1] is None
    options.tfds.image_key = "picture"
    with pytest.raises(ValueError, match=r"'picture' is no image feature of .*image, label"):
        sources.create_source(options, "train")
    options.tfds.image_key = "image"
    with pytest.raises(ValueError, match=r"split 'trian' is unknown; .* has train, val"):
        sources.create_source(options, "trian")
    file = tmp_path / "out" / "cityscapes-train.tfrecord-00000-of-00002"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ValueError, match="00000-of-00002 ends within a record"):
        sources.create_source(options, "train")


def test_tfds_that_is_not_there_is_named(tmp_path):
    options = data_pb2.DataOptions(dataset="tfds", data_dir=str(tmp_path))
    options.label_map.classes.add(name="road", color="#102030")
    with pytest.raises(ValueError, match=r"data\.tfds\.name is not set"):
        sources.create_source(options, "train")
    options.tfds.name = "no_such_data_set"
    with pytest.raises(ValueError, match="tfds knows no data set 'no_such_data_set'"):
        sources.create_source(options, "train")
    options.tfds.name = "cityscapes/semantic_segmentation"
    with pytest.raises(ValueError, match="has not prepared cityscapes/semantic_segmentation"):
        sources.create_source(options, "train")
