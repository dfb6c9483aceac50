"""Predictions as benchmarks take them: names, ids, what is checked, and reading them back."""

import pathlib
import zipfile

import numpy as np
import pytest
from PIL import Image

from sp_transformer.data import sources
from sp_transformer.evaluation import evaluator, submission
from sp_transformer.protos import experiment_pb2

FRANKFURT = "leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit"
ADE = "images/validation/ADE_val_00000001"


def config_for(dataset):
    return experiment_pb2.ExperimentOptions(data={"dataset": dataset})


def form(name, dataset=None):
    return submission.SubmissionFormat(name, config_for(dataset or name))


def test_cityscapes_ids_and_names_are_the_official_ones():
    from cityscapesscripts.helpers.csHelpers import getCsFileInfo
    from cityscapesscripts.helpers.labels import trainId2label

    official = form("cityscapes")
    name = official.file_name(FRANKFURT)
    assert name == "frankfurt_000000_000294_labelIds.png"
    info = getCsFileInfo(name)
    assert (info.city, info.sequenceNb, info.frameNb) == ("frankfurt", "000000", "000294")
    encoded = official.encode(np.arange(19))
    assert encoded.tolist() == [trainId2label[k].id for k in range(19)]
    assert encoded.dtype == np.uint8
    assert official.decode(encoded.astype(np.int32), "f").tolist() == list(range(19))
    assert official.decode(np.array([0, 4, 29]), "f").tolist() == [255, 255, 255]
    with pytest.raises(ValueError, match=r"f\.png holds id 34"):
        official.decode(np.array([7, 34]), "f.png")
    # What other programs call their files.
    assert official.file_name("munster_000013_000019") == "munster_000013_000019_labelIds.png"
    with pytest.raises(ValueError, match="'photo_1' is not named as cityscapes"):
        official.file_name("photo_1")


def test_ade20k_ids_are_1_to_150():
    official = form("ade20k")
    assert official.file_name(ADE) == "ADE_val_00000001.png"
    assert official.file_name("testing/ADE_test_00000012") == "ADE_test_00000012.png"
    assert official.encode(np.arange(150)).tolist() == list(range(1, 151))
    assert official.decode(np.arange(151), "f").tolist() == [255, *range(150)]


def test_auto_takes_the_form_of_the_data_set(config):
    assert submission.SubmissionFormat("auto", config_for("cityscapes")).name == "cityscapes"
    assert submission.SubmissionFormat("auto", config_for("ade20k")).name == "ade20k"
    plain = submission.SubmissionFormat("auto", config)
    assert plain.name == "train_ids"
    assert plain.file_name("images/3") == "images/3.png"
    assert plain.encode(np.array([3])).tolist() == [3]
    with pytest.raises(ValueError, match="4 classes"):
        submission.SubmissionFormat("cityscapes", config)
    with pytest.raises(ValueError, match="train_ids"):
        submission.SubmissionFormat("voc", config)


def written(folder, names=(FRANKFURT,), form_name="cityscapes"):
    predictions = submission.SubmissionFolder(folder, form(form_name))
    for number, name in enumerate(names):
        predictions.write(name, np.full((4, 6), number))
    return predictions


def test_a_folder_that_is_right_is_zipped_flat_and_the_same_way_each_time(tmp_path):
    names = [FRANKFURT, FRANKFURT.replace("294", "576")]
    archives = [written(tmp_path / folder, names).finish(names) for folder in "ab"]
    assert archives[0] == tmp_path / "a.zip"
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with zipfile.ZipFile(archives[0]) as archive:
        assert archive.namelist() == [
            "frankfurt_000000_000294_labelIds.png",
            "frankfurt_000000_000576_labelIds.png",
        ]
        with archive.open(archive.namelist()[1]) as file:
            assert (np.array(Image.open(file)) == 8).all()


def test_an_ade20k_submission_holds_1_to_150(tmp_path):
    predictions = submission.SubmissionFolder(tmp_path / "s", form("ade20k"))
    labels = np.arange(150).reshape(10, 15)
    predictions.write(ADE, labels)
    predictions.write("testing/ADE_test_00000002", labels.T)
    archive = predictions.finish([ADE, "testing/ADE_test_00000002"])
    with zipfile.ZipFile(archive) as files:
        assert files.namelist() == ["ADE_test_00000002.png", "ADE_val_00000001.png"]
        with files.open("ADE_val_00000001.png") as file:
            image = Image.open(file)
            assert image.mode == "L"
            np.testing.assert_array_equal(np.array(image), labels + 1)
    # 0, "other", is not to be predicted.
    Image.fromarray(np.zeros((10, 15), np.uint8)).save(tmp_path / "s" / "ADE_val_00000001.png")
    with pytest.raises(ValueError, match="holds id 0"):
        predictions.finish([ADE, "testing/ADE_test_00000002"])


FIRST = "frankfurt_000000_000294_labelIds.png"


def replace(array):
    return lambda path: Image.fromarray(np.asarray(array, np.uint8)).save(path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (pathlib.Path.unlink, f"{FIRST} is missing"),
        (replace(np.full((4, 5), 7)), "is 4x5 pixels, its image 4x6"),
        (replace(np.full((4, 6), 0)), "holds id 0, which is no class"),
        (replace(np.full((4, 6, 3), 7)), "grey values in 3 channels"),
        (lambda path: path.write_bytes(path.read_bytes()[:40]), "cannot read"),
        (
            lambda path: path.with_name("more.png").write_bytes(b"x"),
            "more.png belongs to no image",
        ),
    ],
)
def test_a_folder_that_is_wrong_is_not_zipped_and_says_why(tmp_path, spoil, words):
    predictions = written(tmp_path / "s")
    spoil(tmp_path / "s" / FIRST)
    with pytest.raises(ValueError, match="not fit to be handed in") as error:
        predictions.finish([FRANKFURT])
    assert words in str(error.value)
    assert not (tmp_path / "s.zip").exists()


def test_images_that_are_missing_or_share_a_name_are_refused(tmp_path):
    predictions = written(tmp_path / "s")
    with pytest.raises(ValueError, match=r"000576_labelIds\.png is missing"):
        predictions.finish([FRANKFURT, FRANKFURT.replace("294", "576")])
    with pytest.raises(ValueError, match="two images would be submitted as"):
        predictions.write("other/" + FRANKFURT, np.zeros((4, 6), int))
    with pytest.raises(ValueError, match="is not empty"):
        submission.SubmissionFolder(tmp_path / "s", form("cityscapes"))


@pytest.fixture
def stored(config, arrays, tmp_path):
    """A folder of predictions of the small data set: red modulo 3, as the stub predicts."""
    predictions = submission.SubmissionFolder(
        tmp_path / "stored", submission.SubmissionFormat("auto", config)
    )
    for number, (image, _) in enumerate(arrays):
        predictions.write(f"images/{number}", image[..., 0] % 3)
    return tmp_path / "stored"


def score(config, folder, output_dir):
    form = submission.SubmissionFormat("auto", config)
    predictor = submission.StoredPredictions(folder, form, "stored")
    return evaluator.evaluate(config, None, output_dir, predictor=predictor)


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_stored_predictions_score_as_the_model_that_made_them(
    config, inference, stored, tmp_path, batch_size
):
    config.evaluation.batch_size = batch_size
    theirs = score(config, stored, tmp_path / "a")
    ours = evaluator.evaluate(config, None, tmp_path / "b", inference=inference)
    assert theirs["mode"] == "stored" and theirs["confusion_matrix"] == ours["confusion_matrix"]
    assert theirs["boundary_iou"] == ours["boundary_iou"] and theirs["num_images"] == 7
    per_image = [(tmp_path / folder / "per_image.json").read_text() for folder in "ab"]
    assert per_image[0] == per_image[1]


def test_stored_predictions_that_leave_pixels_out_miss_them(config, arrays, stored, tmp_path):
    before = score(config, stored, tmp_path / "a")
    image, label = arrays[0]
    prediction = image[..., 0] % 3
    prediction[label == 1] = 255
    Image.fromarray(prediction).save(stored / "images" / "0.png")
    after = score(config, stored, tmp_path / "b")
    assert after["num_pixels"] == before["num_pixels"]
    assert after["unclassified"]["class 1"] == (label == 1).sum()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), "hold none for image 'images/2'"),
        (lambda path: Image.fromarray(np.zeros((5, 8), np.uint8)).save(path), "5x8 pixels"),
        (lambda path: Image.fromarray(np.full((5, 7), 9, np.uint8)).save(path), "holds id 9"),
    ],
)
def test_faulty_stored_predictions_are_named(config, stored, tmp_path, spoil, words):
    spoil(stored / "images" / "2.png")
    with pytest.raises(ValueError, match=words) as error:
        score(config, stored, tmp_path / "out")
    assert "images/2" in str(error.value)
    with pytest.raises(ValueError, match="no folder that holds PNGs"):
        score(config, tmp_path / "absent", tmp_path / "out")


def test_two_files_of_one_image_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / folder / FIRST)
    with pytest.raises(ValueError, match="are of one image"):
        submission.StoredPredictions(tmp_path, form("cityscapes"), "stored")


def test_a_split_without_labels_is_predicted_whole(config, arrays, inference, tmp_path):
    config.data.folder.splits[0].ClearField("labels")
    config.evaluation.max_images = 2
    source = sources.create_source(config.data, "val")
    folder = submission.SubmissionFolder(
        tmp_path / "s", submission.SubmissionFormat("auto", config)
    )
    assert submission.predict_into(folder, config, source, inference) == len(arrays)
    folder.finish(source.name(i) for i in range(len(source)))
    for number, (image, _) in enumerate(arrays):
        ids = np.array(Image.open(tmp_path / "s" / "images" / f"{number}.png"))
        np.testing.assert_array_equal(ids, image[..., 0] % 3)


def test_a_torn_image_is_no_reason_to_submit_less(config, data_dir, inference, tmp_path):
    config.data.skip_corrupt = True
    path = data_dir / "images" / "1.png"
    path.write_bytes(path.read_bytes()[:50])
    folder = submission.SubmissionFolder(
        tmp_path / "s", submission.SubmissionFormat("auto", config)
    )
    source = sources.create_source(config.data, "val")
    with pytest.raises(ValueError, match=r"1\.png"):
        submission.predict_into(folder, config, source, inference)


def test_more_than_255_classes_take_16_bits(config, tmp_path):
    del config.data.label_map.classes[:]
    for number in range(300):
        config.data.label_map.classes.add(name=f"class {number}", color="#000000")
    config.data.label_map.ignore_label = 65535
    plain = submission.SubmissionFormat("auto", config)
    folder = submission.SubmissionFolder(tmp_path / "s", plain)
    labels = np.array([[0, 299], [255, 256]])
    folder.write("image", labels)
    folder.finish(["image"])
    ids = np.array(Image.open(tmp_path / "s" / "image.png"))
    np.testing.assert_array_equal(plain.decode(ids.astype(np.int32), "f"), labels)
