"""Cityscapes and ADE20K from archives and folders of exactly the published layout."""

import concurrent.futures
import itertools
import zipfile

import numpy as np
import pytest
from PIL import ExifTags, Image

from sp_transformer.config import derived
from sp_transformer.data import sources
from sp_transformer.protos import data_pb2

from . import official


def _options(dataset, root, **kwargs):
    return data_pb2.DataOptions(dataset=dataset, data_dir=str(root), **kwargs)


def _all(source):
    return [(source.name(i), *source.read(i)) for i in range(len(source))]


def _assert_same(first, second):
    for (name, image, label), (other_name, other_image, other_label) in zip(
        first, second, strict=True
    ):
        assert name == other_name and np.array_equal(image, other_image)
        assert (label is None) == (other_label is None)
        assert label is None or np.array_equal(label, other_label)


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory):
    files = official.cityscapes_files()
    root = tmp_path_factory.mktemp("cityscapes")
    official.write_cityscapes_zips(root / "zips", files)
    official.write_cityscapes_zips(root / "stored", files, zipfile.ZIP_STORED)
    official.write_folder(root / "folders", files)
    return root, files


@pytest.mark.parametrize("form", ["zips", "stored", "folders"])
def test_cityscapes_train_ids_are_the_official_table(cityscapes, form):
    root, _ = cityscapes
    source = sources.create_source(_options("cityscapes", root / form), "train")
    assert len(source) == 6 and source.has_labels
    assert source.name(0) == "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit"
    assert [source.name(i) for i in range(6)] == sorted(source.name(i) for i in range(6))
    _, ids = official.scene(0, (64, 128), official.CITYSCAPES_IDS)
    scored = dict(zip([7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33], range(19), strict=True))
    image, label = source.read(0)
    assert label.dtype == np.uint8 and image.shape == (64, 128, 3)
    # Void, caravan, trailer and the license plate's -1 (255 in 8 bits) are ignored.
    assert np.array_equal(label, np.vectorize(lambda i: scored.get(i, 255))(ids))
    assert set(np.unique(label)) == {*range(19), 255}


def test_cityscapes_zips_and_folders_are_the_same(cityscapes):
    root, _ = cityscapes
    for split in ("train", "val", "test"):
        forms = [
            _all(sources.create_source(_options("cityscapes", root / form), split))
            for form in ("zips", "stored", "folders")
        ]
        _assert_same(forms[0], forms[1])
        _assert_same(forms[0], forms[2])


def test_cityscapes_test_split_serves_prediction_only(cityscapes):
    root, _ = cityscapes
    source = sources.create_source(_options("cityscapes", root / "zips"), "test")
    assert len(source) == 3 and not source.has_labels and source.read(0)[1] is None
    assert sources.split_names(_options("cityscapes", root / "zips")) == ["train", "val", "test"]


def test_cityscapes_license_plate_of_16_bits(tmp_path):
    files = official.cityscapes_files((1, 1, 0))
    path = next(
        path
        for path in files
        if path.endswith("train/aachen/aachen_000000_000019_gtFine_labelIds.png")
    )
    files[path] = official.encoded(np.full((64, 128), 65535, np.uint16))
    official.write_folder(tmp_path, files)
    _, label = sources.create_source(_options("cityscapes", tmp_path), "train").read(0)
    assert (label == 255).all()


def test_cityscapes_coarse(tmp_path):
    extra = {}
    for number in range(2):
        image, ids = official.scene(number, (64, 128), official.CITYSCAPES_IDS)
        stem = f"train_extra/augsburg/augsburg_{number:06d}_000019"
        extra[f"leftImg8bit/{stem}_leftImg8bit.png"] = official.encoded(image)
        extra[f"gtCoarse/{stem}_gtCoarse_labelIds.png"] = official.encoded(ids)
    own = official.cityscapes_files((2, 1, 0), annotations="gtCoarse")
    coarse = {path: data for path, data in own.items() if path.startswith("gtCoarse")}
    images = {path: data for path, data in own.items() if path.startswith("leftImg8bit")}
    official.write_zip(tmp_path / "leftImg8bit_trainvaltest.zip", images)
    official.write_zip(
        tmp_path / "leftImg8bit_trainextra.zip",
        {path: data for path, data in extra.items() if path.startswith("leftImg8bit")},
    )
    official.write_zip(
        tmp_path / "gtCoarse.zip",
        coarse | {path: data for path, data in extra.items() if path.startswith("gtCoarse")},
    )
    options = _options("cityscapes", tmp_path)
    options.cityscapes.annotations = "coarse"
    assert sources.split_names(options) == ["train", "val", "train_extra"]
    for split, count in (("train", 2), ("val", 1), ("train_extra", 2)):
        source = sources.create_source(options, split)
        assert len(source) == count and source.has_labels
        assert set(np.unique(source.read(0)[1])) == {*range(19), 255}
    with pytest.raises(ValueError, match=r"gtFine_trainvaltest\.zip or gtFine/train/ in data_dir"):
        sources.create_source(_options("cityscapes", tmp_path), "train")


def test_cityscapes_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"leftImg8bit_trainvaltest\.zip or leftImg8bit/train/"
    ) as error:
        sources.create_source(_options("cityscapes", tmp_path), "train")
    assert str(tmp_path) in str(error.value) and "--data_dir" in str(error.value)
    with pytest.raises(ValueError, match="holds no split of cityscapes"):
        sources.split_names(_options("cityscapes", tmp_path))
    with pytest.raises(ValueError, match="split 'trian' is unknown"):
        sources.create_source(_options("cityscapes", tmp_path), "trian")


def test_incomplete_pairs_are_named(tmp_path):
    files = official.cityscapes_files((3, 1, 0))
    missing = next(path for path in files if "ulm" in path and path.endswith("labelIds.png"))
    del files[missing]
    official.write_folder(tmp_path, files)
    with pytest.raises(
        ValueError, match=r"1 images without a label: leftImg8bit/train/ulm/ulm_000001"
    ):
        sources.create_source(_options("cityscapes", tmp_path), "train")


def test_damaged_archives_are_named(tmp_path, cityscapes):
    root, _ = cityscapes
    images = (root / "zips" / "leftImg8bit_trainvaltest.zip").read_bytes()
    labels = (root / "zips" / "gtFine_trainvaltest.zip").read_bytes()
    (tmp_path / "gtFine_trainvaltest.zip").write_bytes(labels)
    archive = tmp_path / "leftImg8bit_trainvaltest.zip"
    archive.write_bytes(images[: len(images) // 2])
    with pytest.raises(
        ValueError, match=r"leftImg8bit_trainvaltest\.zip.*download may be incomplete"
    ):
        sources.create_source(_options("cityscapes", tmp_path), "train")
    with zipfile.ZipFile(root / "zips" / "leftImg8bit_trainvaltest.zip") as whole:
        member = next(
            m for m in whole.infolist() if m.filename.endswith("ulm_000001_000019_leftImg8bit.png")
        )
    damaged = bytearray(images)
    damaged[member.header_offset + 400] ^= 1
    archive.write_bytes(damaged)
    source = sources.create_source(_options("cityscapes", tmp_path), "train")
    bad = next(i for i in range(len(source)) if "ulm_000001" in source.name(i))
    with pytest.raises(
        ValueError, match=r"trainvaltest\.zip:leftImg8bit/train/ulm/ulm_000001.*damaged"
    ):
        source.read(bad)
    source.read(0)


def test_truncated_image_is_named(tmp_path):
    files = official.cityscapes_files((2, 1, 0))
    path = next(path for path in files if path.startswith("leftImg8bit/train/ulm"))
    files[path] = files[path][: len(files[path]) // 2]
    official.write_cityscapes_zips(tmp_path, files)
    source = sources.create_source(_options("cityscapes", tmp_path), "train")
    with pytest.raises(
        ValueError, match=r"cannot read image .*zip:leftImg8bit/train/ulm/ulm_000001"
    ):
        source.read(1)


def test_archives_are_read_by_many_threads(cityscapes):
    root, _ = cityscapes
    source = sources.create_source(_options("cityscapes", root / "zips"), "train")
    expected = _all(source)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        numbers = list(itertools.islice(itertools.cycle(range(6)), 96))
        for number, (image, label) in zip(numbers, pool.map(source.read, numbers), strict=True):
            assert np.array_equal(image, expected[number][1])
            assert np.array_equal(label, expected[number][2])


@pytest.mark.parametrize("form", ["zips", "folder", "root"])
def test_ade20k_zero_is_ignored_and_the_rest_moves_down(tmp_path, form):
    files = official.ade20k_files(test=1)
    root = tmp_path
    if form == "zips":
        official.write_ade20k_zips(tmp_path, files)
    else:
        official.write_folder(tmp_path, files)
        root = tmp_path / "ADEChallengeData2016" if form == "root" else tmp_path
    options = _options("ade20k", root)
    source = sources.create_source(options, "train")
    assert len(source) == 4 and source.name(0) == "images/training/ADE_train_00000001"
    _, ids = official.scene(0, (24, 32), np.arange(151, dtype=np.uint8))
    assert (ids == 0).any()
    _, label = source.read(0)
    assert label.dtype == np.uint8
    assert np.array_equal(label, np.where(ids == 0, 255, ids.astype(int) - 1))
    assert derived.data_label_map(options).num_classes == 150
    assert len(sources.create_source(options, "val")) == 2
    if form != "root":
        assert sources.split_names(options) == ["train", "val", "test"]
        test = sources.create_source(options, "test")
        assert not test.has_labels and test.name(0) == "testing/ADE_test_00000001"
        assert test.read(0)[0].shape == (24, 32, 3)


def test_ade20k_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"ADEChallengeData2016\.zip or ADEChallengeData2016/"):
        sources.create_source(_options("ade20k", tmp_path), "train")
    with pytest.raises(ValueError, match=r"release_test\.zip"):
        sources.create_source(_options("ade20k", tmp_path), "test")


def _ade20k_with(tmp_path, image=None, label=None):
    """One example of the archive with another image or label file."""
    files = official.ade20k_files((1, 1))
    for kind, data in (("images", image), ("annotations", label)):
        if data is not None:
            path = next(path for path in files if f"{kind}/training" in path)
            files[path] = data
    official.write_ade20k_zips(tmp_path, files)
    return sources.create_source(_options("ade20k", tmp_path), "train")


def test_grey_photograph_becomes_rgb(tmp_path):
    grey = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32).astype(np.uint8)
    image, _ = _ade20k_with(tmp_path, official.encoded(grey, "JPEG", quality=100)).read(0)
    assert image.shape == (24, 32, 3) and (image == image[..., :1]).all()


def test_alpha_is_dropped(tmp_path):
    colors, _ = official.scene(0, (24, 32), [0])
    alpha = np.dstack([colors, np.zeros((24, 32), np.uint8)])
    image, _ = _ade20k_with(tmp_path, official.encoded(alpha)).read(0)
    assert np.array_equal(image, colors)


def test_exif_rotation_is_applied(tmp_path):
    upright, _ = official.scene(0, (24, 32), [0])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    lying = Image.fromarray(np.rot90(upright).copy())
    data = official.encoded(lying, "JPEG", quality=100, subsampling=0, exif=exif)
    image, _ = _ade20k_with(tmp_path, data).read(0)
    assert image.shape == (24, 32, 3) and np.abs(image.astype(int) - upright).mean() < 3


def test_palette_and_16_bit_labels_are_ids(tmp_path):
    _, ids = official.scene(0, (24, 32), np.arange(151, dtype=np.uint8))
    palette = Image.frombytes("P", (32, 24), ids.tobytes())
    palette.putpalette([(7 * i) % 256 for i in range(768)])
    for number, data in enumerate(
        (official.encoded(palette), official.encoded(ids.astype(np.uint16)))
    ):
        _, label = _ade20k_with(tmp_path / str(number), label=data).read(0)
        assert np.array_equal(label, np.where(ids == 0, 255, ids.astype(int) - 1))


def test_colour_labels_and_foreign_ids_are_refused_by_name(tmp_path):
    colors, ids = official.scene(0, (24, 32), np.arange(151, dtype=np.uint8))
    source = _ade20k_with(tmp_path / "colors", label=official.encoded(colors))
    with pytest.raises(ValueError, match=r"ADE_train_00000001\.png holds colours"):
        source.read(0)
    source = _ade20k_with(
        tmp_path / "ids", label=official.encoded(np.full((24, 32), 151, np.uint8))
    )
    with pytest.raises(ValueError, match=r"ADE_train_00000001\.png holds id 151"):
        source.read(0)
    source = _ade20k_with(tmp_path / "size", label=official.encoded(ids[:20]))
    with pytest.raises(ValueError, match=r"ADE_train_00000001\.png is 20x32"):
        source.read(0)
