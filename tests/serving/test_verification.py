"""What a verification finds: wrong pixels, wrong scores, NaN, and models that do not run."""

import dataclasses
import types

import numpy as np
import pytest

from sp_transformer.serving import examples, export_options, tolerances, verification
from sp_transformer.serving.runtimes import LITERT, ONNX


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)


def table_of(ids, generator):
    """The table of a map of 12 superpixels and of a 13th without pixels, by one superpixel after the other."""
    centroids = [np.argwhere(ids == number).mean(0) for number in range(12)] + [(3.5, 4.5)]
    pixels = [np.sum(ids == number) for number in range(12)] + [0]
    return {
        "superpixel_classes": generator.integers(0, 6, (1, 13), np.int32),
        "superpixel_confidence": generator.random((1, 13), np.float32),
        "superpixel_centroids": np.float32([centroids]),
        "superpixel_pixels": np.int32([pixels]),
    }


@pytest.fixture
def case(config):
    """Two images of 6 classes, what a checkpoint would give, and an export that gives the same."""
    generator = np.random.default_rng(0)
    found, expected, results = [], [], {}
    for number in range(2):
        truth = generator.integers(0, 6, (20, 30), np.int32)
        labels = np.where(generator.random((20, 30)) < 0.3, 0, truth)[None].astype(np.int32)
        wanted = {
            "labels": labels,
            "superpixels": generator.integers(0, 12, (1, 20, 30), np.int32),
            "probabilities": softmax(generator.normal(0, 2, (1, 20, 30, 6))),
        }
        wanted |= table_of(wanted["superpixels"][0], generator)
        found.append(examples.Example(np.zeros((20, 30, 3), np.uint8), truth))
        expected.append(wanted)
        results |= {f"{number}/{name}": value.copy() for name, value in wanted.items()}
        results[f"{number}/labels_alone"] = labels.copy()
    return types.SimpleNamespace(config=config, found=found, expected=expected, results=results)


def compare(case):
    return verification.compare(case.config, case.found, case.expected, case.results)


def faults(case, tolerance=tolerances.ROUNDED):
    return verification.faults_of({**compare(case), "tolerance": dataclasses.asdict(tolerance)})


def test_what_is_equal_is_equal(case):
    report = compare(case)
    assert report["equal_labels"] == report["equal_superpixels"] == 1
    assert report["max_probability_difference"] == report["miou_difference"] == 0
    assert report["max_logit_difference"] == report["misplaced_probability"] == 0
    assert report["equal_superpixel_classes"] == 1
    assert report["superpixels_off_map"] == report["mean_confidence_difference"] == 0
    assert faults(case, tolerances.EXACT) == []
    assert 0.4 < report["miou_checkpoint"] < 0.9


def test_differences_are_counted_over_all_images(case):
    case.results["1/labels"][0, :3] = 5
    case.results["0/superpixels"][0, 0, 0] += 1
    case.results["0/probabilities"][0, 3, 4, 5] -= 0.25
    wrong = np.mean(case.results["1/labels"] != case.expected[1]["labels"]) / 2
    report = compare(case)
    assert report["equal_labels"] == pytest.approx(1 - wrong)
    assert report["equal_superpixels"] == pytest.approx(1 - 1 / 1200)
    assert report["max_probability_difference"] == pytest.approx(0.25)
    assert report["miou_export"] < report["miou_checkpoint"]
    assert report["miou_difference"] == report["miou_checkpoint"] - report["miou_export"]


def test_logits_are_compared_less_their_log_sum_exp(case):
    logits = np.random.default_rng(1).normal(0, 3, (1, 20, 30, 19)).astype(np.float32)
    changed = logits.copy()
    changed[0, 5, 7] += 100  # The same probabilities.
    changed[0, 2, 3, 4] += 0.5

    def normalised(x):
        return (
            x
            - np.log(np.sum(np.exp(x - x.max(-1, keepdims=True)), -1, keepdims=True))
            - x.max(-1, keepdims=True)
        )

    case.expected[0]["probabilities"] = np.exp(normalised(logits))
    case.results["0/probabilities"] = np.exp(normalised(changed))
    expected = np.abs(normalised(changed) - normalised(logits)).max()
    assert 0 < expected < 0.6
    assert compare(case)["max_logit_difference"] == pytest.approx(expected, rel=1e-3)


def test_a_class_that_vanishes_has_a_finite_logit(case):
    case.results["0/probabilities"][0, 0, 0, 0] = 0.0
    assert 10 < compare(case)["max_logit_difference"] < 100


def test_probabilities_on_other_classes_are_a_fault(case):
    case.results["0/probabilities"] = np.roll(case.results["0/probabilities"], 1, -1)
    before, after = case.expected[0]["probabilities"], case.results["0/probabilities"]
    share = np.mean(
        [np.abs(before[0, y, x] - after[0, y, x]).sum() / 2 for y in range(20) for x in range(30)]
    )
    assert compare(case)["misplaced_probability"] == pytest.approx(share / 2, rel=1e-4)
    # For the widest tolerance there is, too.
    for tolerance in (tolerances.EXACT, tolerances.QUANTIZED[export_options.INT8]):
        assert [fault.split()[0] for fault in faults(case, tolerance)] == ["misplaced_probability"]


@pytest.mark.parametrize("name", ["superpixel_pixels", "superpixel_centroids"])
def test_a_table_that_does_not_describe_its_own_map_is_a_fault(case, name):
    case.results[f"1/{name}"][0, 4] += 1
    assert compare(case)["superpixels_off_map"] == 1
    (fault,) = faults(case, tolerances.QUANTIZED[export_options.INT8])
    assert "pixels or centroids of 1 superpixels" in fault


def test_the_place_of_a_superpixel_without_pixels_does_not_count(case):
    case.results["0/superpixel_centroids"][0, 12] = 99
    assert compare(case)["superpixels_off_map"] == 0


def test_superpixels_count_by_their_pixels(case):
    case.results["0/superpixel_classes"][0, 3] += 1
    case.results["1/superpixel_confidence"][0, 5] += 0.5
    share = [case.expected[n]["superpixel_pixels"][0, i] / 1200 for n, i in ((0, 3), (1, 5))]
    report = compare(case)
    assert report["equal_superpixel_classes"] == pytest.approx(1 - share[0])
    assert report["mean_confidence_difference"] == pytest.approx(share[1] / 2, rel=1e-5)
    names = ["equal_superpixel_classes", "mean_confidence_difference"]
    assert [fault.split()[0] for fault in faults(case)] == names


def test_a_table_of_another_length_is_wrong_altogether(case):
    for name in ("classes", "confidence", "centroids", "pixels"):
        key = f"0/superpixel_{name}"
        case.results[key] = case.results[key][:, :-1]
    report = compare(case)
    assert report["superpixels_off_map"] == 13 and report["mean_confidence_difference"] == np.inf


@pytest.mark.parametrize("way", ["labels_alone", "labels_of_files"])
def test_the_worst_way_to_get_labels_counts(case, way):
    case.results[f"0/{way}"] = case.results["0/labels"].copy()
    assert compare(case)["equal_labels"] == 1
    case.results[f"0/{way}"][0, 0, :] = 5
    wrong = np.sum(case.expected[0]["labels"][0, 0] != 5)
    assert compare(case)["equal_labels"] == pytest.approx(1 - wrong / 1200)


def test_without_truth_there_is_no_miou(case):
    case.found = [dataclasses.replace(example, labels=None) for example in case.found]
    assert compare(case)["miou_difference"] is None


def test_nan_is_never_within_tolerance(case):
    case.results["0/probabilities"][0, 0, 0, 0] = np.nan
    report = compare(case)
    assert report["max_probability_difference"] == report["max_logit_difference"] == np.inf
    assert report["misplaced_probability"] == np.inf


def test_float32_has_one_tolerance_and_quantised_forms_their_own(config):
    options = export_options.ExportOptions
    assert tolerances.tolerance(config, options()).equal_labels == 1
    assert tolerances.tolerance(config, options(), on_accelerator=True) == tolerances.ROUNDED
    for rounded in (
        options(inference_form=True),
        options(jit_compile=True, image_size=(8, 8)),
        options(format=ONNX),
        options(format=LITERT),
    ):
        expected = tolerances.Tolerance(0.9999, 0.9999, 0.0005, 1e-4)
        assert tolerances.tolerance(config, rounded) == expected
    for quantization in export_options.QUANTIZATIONS[1:]:
        found = tolerances.tolerance(config, options(format=LITERT, quantization=quantization))
        assert found == tolerances.QUANTIZED[quantization]


def test_a_model_that_does_not_run_is_an_error_with_its_last_words(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    words = r"does not run \(code 2\):\n.*version\.json"
    with pytest.raises(verification.VerificationError, match=words):
        verification.run_worker(tmp_path, [np.zeros((1, 8, 8, 3), np.uint8)])
