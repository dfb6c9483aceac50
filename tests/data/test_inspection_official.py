"""Inspection of Cityscapes and ADE20K from their archives, of records, and of what skip_corrupt leaves of them."""

import numpy as np
import pytest

from sp_transformer.config import label_map as label_maps
from sp_transformer.config import loading
from sp_transformer.data import inspection, pipeline, preparation, skipping, sources
from sp_transformer.protos import experiment_pb2

from . import official


def _config(dataset, root, **data):
    config = experiment_pb2.ExperimentOptions()
    config.training.batch_size = 2
    config.data.dataset, config.data.data_dir = dataset, str(root)
    config.data.crop_height = config.data.crop_width = 32
    for field, value in data.items():
        setattr(config.data, field, value)
    return config


def _write(dataset, root, files, form):
    if form == "folders":
        return official.write_folder(root, files)
    write = {"cityscapes": official.write_cityscapes_zips, "ade20k": official.write_ade20k_zips}
    return write[dataset](root, files)


FILES = {"cityscapes": official.cityscapes_files, "ade20k": official.ade20k_files}
IMAGE = {
    "cityscapes": "leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png",
    "ade20k": "ADEChallengeData2016/images/training/ADE_train_00000002.jpg",
}
LABEL = {
    "cityscapes": "gtFine/train/aachen/aachen_000002_000019_gtFine_labelIds.png",
    "ade20k": "ADEChallengeData2016/annotations/training/ADE_train_00000003.png",
}
FOREIGN = {
    "cityscapes": "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png",
    "ade20k": "ADEChallengeData2016/annotations/training/ADE_train_00000001.png",
}


@pytest.mark.parametrize("form", ["zips", "folders"])
@pytest.mark.parametrize("dataset", ["cityscapes", "ade20k"])
def test_faults_are_found_and_skipped(tmp_path, dataset, form):
    files = FILES[dataset]()
    sound = _config(dataset, _write(dataset, tmp_path / "sound", files, form))
    found = inspection.inspect(sound, ["train", "val"])
    assert not found.faults and not found.doubts
    torn, missing, foreign = IMAGE[dataset], LABEL[dataset], FOREIGN[dataset]
    files[torn] = files[torn][:100]
    del files[missing]
    ids = np.full((64, 128) if dataset == "cityscapes" else (24, 32), 200, np.uint8)
    files[foreign] = official.encoded(ids)
    config = _config(dataset, _write(dataset, tmp_path / "faulty", files, form))
    found = inspection.inspect(config, ["train", "val"])
    faults = {fault.kind: fault.file for fault in found.faults}
    assert len(found.faults) == 3
    assert set(faults) == {"image_without_label", "unreadable_image", "unknown_ids"}
    assert faults["unreadable_image"].endswith(torn) and faults["unknown_ids"].endswith(foreign)
    with pytest.raises(ValueError, match="1 images without a label"):
        sources.create_source(config.data, "train")
    config.data.skip_corrupt = True
    source = sources.create_source(config.data, "train")
    skipped = skipping.SkippedFiles(source.left_out)
    dataset_of_train = pipeline.train_dataset(config, source, skipped=skipped)
    list(pipeline.with_plain_errors(dataset_of_train.take(len(source))))
    assert len(skipped.reasons()) == 3
    assert all(file in skipped.message() for file in faults.values())


@pytest.mark.parametrize("dataset", ["cityscapes", "ade20k"])
def test_records_hold_what_the_archives_do(tmp_path, dataset):
    # So large that every id occurs.
    config = _config(
        dataset, _write(dataset, tmp_path / "data", FILES[dataset](size=(64, 80)), "zips")
    )
    of_files = inspection.inspect(config, ["train", "val"])
    preparation.prepare(config.data, str(tmp_path / "records"))
    config.data.data_dir = str(tmp_path / "records")
    of_records = inspection.inspect(config, ["train", "val"])
    # Their train ids are not taken for ids of the files that the map expects.
    assert not of_records.faults and not of_records.doubts
    for files, records in zip(of_files.splits, of_records.splits, strict=True):
        assert np.array_equal(files.train_counts(), records.train_counts())
        assert max(records.id_counts()) == 255 and not records.label_map.id_map
        assert np.array_equal(files.color_mean_std(), records.color_mean_std())


@pytest.mark.parametrize("dataset", ["cityscapes", "ade20k"])
def test_train_ids_expected_where_the_files_have_their_own(tmp_path, dataset):
    # So large that every id occurs.
    files = FILES[dataset](size=(64, 80))
    config = _config(dataset, _write(dataset, tmp_path, files, "folders"))
    bundled = loading.bundled_label_map(dataset).label_map
    config.data.label_map.classes.extend(bundled.classes)
    found = inspection.inspect(config, ["train"])
    suggestion = found.splits[0].suggestion
    assert f"configs/label_maps/{dataset}.textproto" in suggestion.text
    official_map = label_maps.from_options(bundled).id_map
    # 255 is license plate's -1, and void already.
    assert all(suggestion.id_map[i] == official_map[i] for i in suggestion.id_map if i != 255)
