import numpy as np
import pytest

from sp_transformer.data.faults import FileFault
from sp_transformer.data.folder import FolderSource

IMAGE = np.zeros((4, 6, 3), np.uint8)
LABEL = np.zeros((4, 6), np.uint8)


@pytest.fixture
def write(tmp_path, save):
    """Returns a function that writes images and labels at paths below tmp_path."""

    def write_files(images=(), labels=(), label=LABEL):
        for path in images:
            save(tmp_path / path, IMAGE)
        for path in labels:
            save(tmp_path / path, label)

    return write_files


def _pairs(source, root):
    return {
        source.image_path(i).removeprefix(f"{root}/"): source.label_path(i).removeprefix(f"{root}/")
        for i in range(len(source))
    }


def test_cityscapes_names_pair_in_nested_folders(tmp_path, write, split, label_map):
    stems = ["aachen/aachen_000000_000019", "aachen/aachen_000001_000019", "ulm/ulm_000000_000019"]
    write(
        [f"leftImg8bit/train/{stem}_leftImg8bit.png" for stem in stems],
        [f"gtFine/train/{stem}_gtFine_labelIds.png" for stem in stems]
        + [f"gtFine/train/{stem}_gtFine_color.png" for stem in stems],
    )
    options = split(
        ["leftImg8bit/train/*/*_leftImg8bit.png"], ["gtFine/train/*/*_gtFine_labelIds.png"]
    )
    source = FolderSource(options, tmp_path, label_map())
    assert _pairs(source, tmp_path) == {
        f"leftImg8bit/train/{s}_leftImg8bit.png": f"gtFine/train/{s}_gtFine_labelIds.png"
        for s in stems
    }
    assert source.name(2) == f"leftImg8bit/train/{stems[2]}_leftImg8bit"
    assert [source.name(i) for i in range(3)] == sorted(source.name(i) for i in range(3))


@pytest.mark.parametrize(
    ("images", "labels", "image", "label"),
    [
        ("im/**/*.png", "lb/**/*_ids.png", "im/a/b/x.png", "lb/a/b/x_ids.png"),
        ("im/**/*.png", "lb/**/*_ids.png", "im/x.png", "lb/x_ids.png"),
        ("im/**/*.png", "lb/*/*.png", "im/a/x.png", "lb/a/x.png"),
        ("im/x?.png", "lb/?.png", "im/x7.png", "lb/7.png"),
        ("im/[a-c]*.png", "lb/[a-c]/*.png", "im/bx.png", "lb/b/x.png"),
        ("im/[!a]x.png", "lb/?.png", "im/bx.png", "lb/b.png"),
        ("./im/*.png", "lb//*.png", "im/x.png", "lb/x.png"),
        ("i(m)+/*.png", "lb.{2}/*.png", "i(m)+/x.png", "lb.{2}/x.png"),
    ],
)
def test_wildcards(tmp_path, write, split, label_map, images, labels, image, label):
    write([image], [label])
    source = FolderSource(split([images], [labels]), tmp_path, label_map())
    assert _pairs(source, tmp_path) == {image: label}


def test_several_globs_of_images_share_one_of_labels(tmp_path, write, split, label_map):
    write(["im/a.png", "im/b.jpg"], ["lb/a.png", "lb/b.png"])
    source = FolderSource(split(["im/*.png", "im/*.jpg"], ["lb/*.png"]), tmp_path, label_map())
    assert _pairs(source, tmp_path) == {"im/a.png": "lb/a.png", "im/b.jpg": "lb/b.png"}


def test_file_of_two_overlapping_globs_counts_once(tmp_path, write, split, label_map):
    write(["im/a.png"], ["lb/a.png"])
    source = FolderSource(split(["im/*.png", "im/a*.png"], ["lb/*.png"]), tmp_path, label_map())
    assert len(source) == 1


def test_names_are_unique_and_stay_below_the_output_folder(tmp_path, write, split, label_map):
    write(["im/a.png", "im/a.jpg", "im/a_png.png", "data/c.png"])
    (tmp_path / "root").mkdir()
    options = split(["../im/*.png", "../im/*.jpg", "../data/*.png"], [])
    source = FolderSource(options, tmp_path / "root", label_map())
    names = [source.name(i) for i in range(len(source))]
    assert len(set(names)) == 4
    assert "im/a_png" in names and "im/a_jpg" in names and "data/c" in names
    assert not any(name.startswith("/") or ".." in name for name in names)


def test_split_without_labels(tmp_path, write, split, label_map):
    write(["images/a.png"])
    source = FolderSource(split(labels=[]), tmp_path, label_map())
    image, label = source.read(0)
    assert not source.has_labels and label is None and source.label_path(0) is None
    assert image.shape == (4, 6, 3)


def test_ids_without_map_stay(tmp_path, write, split, label_map):
    ids = np.array([[0, 1, 2, 255, 0, 0]] * 4, np.uint8)
    write(["images/a.png"], ["labels/a.png"], ids)
    _, label = FolderSource(split(), tmp_path, label_map()).read(0)
    assert label.dtype == np.uint8 and np.array_equal(label, ids)


def test_id_map_of_16_bit_file(tmp_path, write, split, label_map):
    ids = np.array([[7, 60000, 2, 1, 0, 255]] * 4, np.uint16)
    write(["images/a.png"], ["labels/a.png"], ids)
    mapped = label_map(id_map={7: 0, 60000: 1, 0: 255, 1: 2})
    _, label = FolderSource(split(), tmp_path, mapped).read(0)
    assert label.tolist() == [[0, 1, 2, 2, 255, 255]] * 4


def test_unlisted_ids_are_ignored_on_request(tmp_path, write, split, label_map):
    ids = np.array([[7, 0, 1, 2, 99, 255]] * 4, np.uint8)
    write(["images/a.png"], ["labels/a.png"], ids)
    mapped = label_map(id_map={7: 1}, ignore_unlisted_ids=True)
    _, label = FolderSource(split(), tmp_path, mapped).read(0)
    assert label.tolist() == [[1, 255, 255, 255, 255, 255]] * 4


def test_ignore_label_beyond_8_bits(tmp_path, write, split, label_map):
    write(["images/a.png"], ["labels/a.png"], np.full((4, 6), 255, np.uint8))
    for ignore_label in (-1, 999):
        mapped = label_map(id_map={255: ignore_label}, ignore_label=ignore_label)
        _, label = FolderSource(split(), tmp_path, mapped).read(0)
        assert (label == ignore_label).all()


def test_unknown_id_is_named(tmp_path, write, split, label_map):
    write(["images/a.png"], ["labels/a.png"], np.array([[0, 3, 3, 17, 2, 255]] * 4, np.uint8))
    source = FolderSource(split(), tmp_path, label_map())
    with pytest.raises(
        ValueError, match=r"labels/a\.png holds ids 3, 17, .*one of the 3 classes.*id_map"
    ):
        source.read(0)


def test_id_mapped_outside_the_classes_is_named(tmp_path, write, split, label_map):
    write(["images/a.png"], ["labels/a.png"], np.full((4, 6), 9, np.uint8))
    source = FolderSource(split(), tmp_path, label_map(id_map={9: 5}))
    with pytest.raises(ValueError, match=r"labels/a\.png holds id 9,"):
        source.read(0)


def test_sizes_that_differ_are_named(tmp_path, write, split, label_map):
    write(["images/a.png"], ["labels/a.png"], np.zeros((6, 4), np.uint8))
    source = FolderSource(split(), tmp_path, label_map())
    with pytest.raises(FileFault, match=r"labels/a\.png is 6x4 .*images/a\.png is 4x6.*as stored"):
        source.read(0)


def test_unpaired_files_are_listed_up_to_five(tmp_path, write, split, label_map):
    write(["images/both.png"] + [f"images/i{i}.png" for i in range(6)], ["labels/both.png"])
    with pytest.raises(ValueError, match="6 images without a label: ") as error:
        FolderSource(split(), tmp_path, label_map())
    text = str(error.value)
    assert "images/i4.png, ..." in text and "i5" not in text and "labels without" not in text


def test_labels_without_images_are_an_error_too(tmp_path, write, split, label_map):
    write(["images/a.png", "images/x.png"], ["labels/a.png", "labels/y.png"])
    with pytest.raises(
        ValueError,
        match=r"1 images without a label: images/x\.png; 1 labels without an image: labels/y\.png",
    ):
        FolderSource(split(), tmp_path, label_map())


def test_ambiguous_files_are_named(tmp_path, write, split, label_map):
    write(["images/a.png", "images/a.jpg"], ["labels/a.png"])
    with pytest.raises(ValueError, match=r"images/a\.jpg and images/a\.png are both images"):
        FolderSource(split(["images/*.png", "images/*.jpg"]), tmp_path, label_map())


def test_globs_that_find_nothing_are_named(tmp_path, write, split, label_map):
    write(["images/a.png"], ["labels/a.png"])
    message = r"'img/\*\.png' and 'img/\*\.jpg' of the images of split 'train' .*no file"
    with pytest.raises(ValueError, match=message):
        FolderSource(split(["img/*.png", "img/*.jpg"]), tmp_path, label_map())
    # Either extension will do.
    assert len(FolderSource(split(["images/*.png", "images/*.jpg"]), tmp_path, label_map())) == 1
    with pytest.raises(ValueError, match=r"'nope/\*' of the labels") as error:
        FolderSource(split(labels=["nope/*"]), tmp_path, label_map())
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("data_dir", ["", "missing/folder"])
def test_data_dir_must_exist(split, label_map, data_dir):
    with pytest.raises(ValueError, match=f"data_dir '{data_dir}' .*not a folder.*--data_dir"):
        FolderSource(split(), data_dir, label_map())


def test_absolute_glob_and_split_without_images_are_refused(tmp_path, split, label_map):
    with pytest.raises(ValueError, match="is absolute"):
        FolderSource(split([f"{tmp_path}/*.png"]), tmp_path, label_map())
    with pytest.raises(ValueError, match="no glob of images"):
        FolderSource(split([]), tmp_path, label_map())


def test_unpaired_files_are_left_out_on_request(tmp_path, write, split, label_map):
    write(["images/a.png", "images/x.png"], ["labels/a.png", "labels/y.png"])
    source = FolderSource(split(), tmp_path, label_map(), skip_unpaired=True)
    assert [source.name(i) for i in range(len(source))] == ["images/a"]
    assert source.read(0)[1].shape == (4, 6)
    assert [(fault.kind, fault.file) for fault in source.left_out] == [
        ("image_without_label", str(tmp_path / "images" / "x.png")),
        ("label_without_image", str(tmp_path / "labels" / "y.png")),
    ]
    assert source.image_file(0) == (tmp_path / "images" / "a.png").read_bytes()
    assert source.label_file(0) == (tmp_path / "labels" / "a.png").read_bytes()


def test_split_without_one_pair_is_refused_all_the_same(tmp_path, write, split, label_map):
    write(["images/a.png"], ["labels/b.png"])
    with pytest.raises(ValueError, match="1 images without a label"):
        FolderSource(split(), tmp_path, label_map(), skip_unpaired=True)
