"""Small archives of exactly the layout and naming in which Cityscapes and ADE20K are published."""

import io
import pathlib
import zipfile

import numpy as np
from PIL import Image

CITIES = {"train": ("aachen", "ulm"), "val": ("frankfurt",), "test": ("berlin",)}
CITYSCAPES_IDS = np.array([*range(34), 255], np.uint8)


def encoded(array, file_format="PNG", **options) -> bytes:
    file = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(file, format=file_format, **options)
    return file.getvalue()


def scene(seed, size, ids):
    """A smooth, noisy image and blocks of ids; every id occurs somewhere if there is room."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    image = np.stack([2 * y + 3 * seed, x + y, 255 - x], -1) + generator.integers(0, 9, (*size, 3))
    blocks = (y // 4) * -(-size[1] // 4) + x // 4 + seed
    return (image % 256).astype(np.uint8), np.asarray(ids)[blocks % len(ids)]


def cityscapes_files(images=(6, 3, 3), size=(64, 128), annotations="gtFine"):
    """{path: bytes} of all files of the archives: `images` in train, val and test."""
    files, seed = {}, 0
    for split, count in zip(CITIES, images, strict=True):
        for number in range(count):
            city = CITIES[split][number % len(CITIES[split])]
            stem = f"{city}/{city}_{number:06d}_000019"
            image, ids = scene(seed, size, CITYSCAPES_IDS)
            if split == "test":
                # Withheld: only ego vehicle, rectification border and out of roi.
                ids = ids % 4
            seed += 1
            files[f"leftImg8bit/{split}/{stem}_leftImg8bit.png"] = encoded(image)
            label = f"{annotations}/{split}/{stem}_{annotations}"
            files[f"{label}_labelIds.png"] = encoded(ids)
            files[f"{label}_instanceIds.png"] = encoded(ids.astype(np.uint16) * 1000)
            files[f"{label}_color.png"] = encoded(np.dstack([image, ids]))
            files[f"{label}_polygons.json"] = b"{}"
    return files


def ade20k_files(images=(4, 2), test=0, size=(24, 32)):
    """{path: bytes} of ADEChallengeData2016 and of release_test."""
    files, seed = {}, 0
    for split, short, count in (("training", "train", images[0]), ("validation", "val", images[1])):
        for number in range(1, count + 1):
            image, ids = scene(seed, size, np.arange(151, dtype=np.uint8))
            seed += 1
            stem = f"ADE_{short}_{number:08d}"
            root = "ADEChallengeData2016"
            files[f"{root}/images/{split}/{stem}.jpg"] = encoded(image, "JPEG", quality=90)
            files[f"{root}/annotations/{split}/{stem}.png"] = encoded(ids)
    if images[0]:
        files["ADEChallengeData2016/objectInfo150.txt"] = b"Idx\tRatio\n"
        files["ADEChallengeData2016/sceneCategories.txt"] = b"ADE_train_00000001 airport\n"
    for number in range(1, test + 1):
        image, _ = scene(seed + number, size, [0])
        files[f"release_test/testing/ADE_test_{number:08d}.jpg"] = encoded(image, "JPEG")
    return files


def write_zip(path, files, compression=zipfile.ZIP_DEFLATED):
    """Writes an archive with an entry for every folder, as the publishers' have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folders = {f"{parent}/" for name in files for parent in pathlib.PurePosixPath(name).parents}
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("README", "how to cite")
        for folder in sorted(folders - {"./"}):
            archive.writestr(folder, "")
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_folder(root, files):
    for name, data in files.items():
        path = pathlib.Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_cityscapes_zips(root, files, compression=zipfile.ZIP_DEFLATED):
    root = pathlib.Path(root)
    for folder, name in (
        ("leftImg8bit", "leftImg8bit_trainvaltest.zip"),
        ("gtFine", "gtFine_trainvaltest.zip"),
    ):
        own = {path: data for path, data in files.items() if path.startswith(f"{folder}/")}
        write_zip(root / name, own, compression)
    return root


def write_ade20k_zips(root, files):
    for folder in ("ADEChallengeData2016", "release_test"):
        own = {path: data for path, data in files.items() if path.startswith(f"{folder}/")}
        if own:
            write_zip(pathlib.Path(root, f"{folder}.zip"), own)
    return root
