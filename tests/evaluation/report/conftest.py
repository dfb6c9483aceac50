import importlib.util
import pathlib
import types

import numpy as np
import pytest

from sp_transformer.config import label_map as label_maps
from sp_transformer.evaluation import scores
from sp_transformer.evaluation.report import page, pictures
from sp_transformer.protos import experiment_pb2

HOSTILE = '</script><script>alert("x")</script>&<img src=x onerror=y>'
ENVIRONMENT = {
    "date": "2026-01-02T03:04:05+00:00",
    "git": {"revision": "0123456789abcdef", "dirty": True},
    "sp_transformer": "1.2.3",
    "python": "3.11.9",
    "versions": {"tensorflow": "2.21.0"},
    "machine": {"cores": 2, "cpu": "a CPU", "gpus": []},
}


@pytest.fixture(scope="session")
def browser():
    """The module browser.py."""
    path = pathlib.Path(__file__).parent / "browser.py"
    spec = importlib.util.spec_from_file_location("browser", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make_evaluation():
    """A function that scores random images of so many classes, whose names are no harmless ones.

    Args: num_classes, num_images, size, and whether there are superpixels.

    Returns: a namespace of the page.Evaluation and the ConfusionMatrix.
    """

    def make(num_classes=5, num_images=6, size=(60, 80), superpixels=True):
        generator = np.random.default_rng(0)
        names = (HOSTILE, *(f"class {number}" for number in range(1, num_classes)))
        colors = generator.integers(0, 256, (num_classes, 3), np.uint8)
        label_map = label_maps.LabelMap(names, colors)
        config = experiment_pb2.ExperimentOptions(experiment_name=f"name {HOSTILE}")
        config.evaluation.failure_analysis.enabled = True
        total = scores.SegmentationScores(label_map, config.evaluation)
        shown = pictures.ReportPictures(label_map, num_images, config.evaluation.report)
        per_image = []
        for number in range(num_images):
            blocks = generator.integers(0, num_classes - 1, (-(-size[0] // 10), -(-size[1] // 10)))
            label = np.kron(blocks, np.ones((10, 10), int))[: size[0], : size[1]]
            wrong = generator.random(size) < number / num_images
            prediction = np.where(wrong, (label + 1) % num_classes, label)
            label[:5] = 255
            image = generator.integers(0, 256, (*size, 3), np.uint8)
            ids = np.indices(size)[1] // 8 if superpixels else None
            outlined = {pictures.SUPERPIXELS: ids, pictures.SLIC: None}
            confusion = total.update(label, prediction)
            name = f"{number} {HOSTILE}"
            shown.add(name, image, label, prediction, outlined, confusion)
            per_image.append({"name": name, "miou": confusion.mean_iou()})
        results = total.results()
        evaluation = page.Evaluation(
            config=config,
            label_map=label_map,
            results={
                **results,
                "mode": "single_scale",
                "modes": {"single_scale": results, HOSTILE: results},
                "num_images": num_images,
                "images_per_second": 4.5,
                "step": 7000,
                "checkpoint": f"run/{HOSTILE}",
                "split": "val",
            },
            per_image=per_image,
            superpixels=None,
            pictures=shown,
            environment=ENVIRONMENT,
            command=f"python -m sp_transformer.evaluate {HOSTILE}",
        )
        return types.SimpleNamespace(evaluation=evaluation, confusion=total.confusion)

    return make
