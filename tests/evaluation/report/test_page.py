import html.parser
import json
import re

import numpy as np
import pytest

from sp_transformer.evaluation import superpixel_metrics, superpixel_scores
from sp_transformer.evaluation.report import page

VOID = {"meta", "link", "img", "input", "path", "circle", "br"}


class Elements(html.parser.HTMLParser):
    """Collects elements, texts and ids, and whether every element that opens closes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.texts, self.scripts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        (self.scripts if inside in ("script", "style") else self.texts).append(data)


@pytest.fixture(scope="module")
def made(make_evaluation):
    return make_evaluation()


@pytest.fixture(scope="module")
def elements(made):
    return Elements(page.render(made.evaluation))


def test_nothing_that_comes_from_outside_becomes_html(elements, made):
    scripts = [attributes for tag, attributes in elements.found if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "matrix-data"}, {}]
    assert not any("onerror" in attributes for _, attributes in elements.found)
    assert not any(attributes.get("src") == "x" for _, attributes in elements.found)
    text = "".join(elements.texts)
    # In the title, a class's name, an image's, a mode's, the checkpoint's and the command's.
    hostile = made.evaluation.label_map.names[0]
    for before in ("name ", "0 ", "run/", "evaluate "):
        assert before + hostile in text


def test_the_file_is_complete_in_itself(elements):
    for tag, attributes in elements.found:
        for name in ("src", "href"):
            value = attributes.get(name, "data:")
            assert value.startswith(("data:", "#")), (tag, value)
        assert "style" not in attributes or "url(" not in attributes["style"]
    policy = [a["content"] for t, a in elements.found if t == "meta" and "http-equiv" in a]
    assert policy and policy[0].startswith("default-src 'none'")
    assert not re.search(r"https?://(?!www\.w3\.org/)", "".join(elements.scripts))


def test_links_labels_and_pictures_can_be_followed_without_seeing(elements):
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements.found:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name, ids[0]) in ids
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids
    assert all(attributes.get("alt") for tag, attributes in elements.found if tag == "img")
    ranges = [a for t, a in elements.found if t == "input" and a["type"] == "range"]
    assert len(ranges) == 6 and all(a["aria-label"] for a in ranges)
    groups = {a["name"] for t, a in elements.found if t == "input" and a["type"] == "radio"}
    assert len(groups) == 6


def test_numbers_are_those_of_the_evaluation(elements, made):
    confusion, results = made.confusion, made.evaluation.results
    data = json.loads(next(text for text in elements.scripts if text.startswith('{"names"')))
    assert data["counts"] == confusion.counts.tolist()
    assert data["names"] == list(made.evaluation.label_map.names)
    text = elements.texts
    assert f"{100 * results['miou']:.1f}" in text
    for iou in confusion.per_class_iou():
        assert ("–" if iou is None else f"{100 * iou:.1f}") in text
    wrong = confusion.counts - np.diag(np.diag(confusion.counts))
    truth, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    share = wrong.max() / confusion.class_pixels[truth]
    assert f"{100 * share:.1f}" in text and predicted == (truth + 1) % 5
    assert "step 7,000" in text and "revision 012345678" in text
    assert "0123456789abcdef, with uncommitted changes" in text
    assert any("experiment_name:" in part for part in text)


def test_sections_are_there_only_for_what_was_computed(made, make_evaluation):
    def titles(evaluation):
        found = Elements(page.render(evaluation)).found
        return [attributes["id"] for tag, attributes in found if tag == "section"]

    assert titles(made.evaluation) == ["classes", "confusion", "images", "failures", "run"]
    bare = make_evaluation(superpixels=False).evaluation
    for key in ("failure_analysis", "boundary_iou"):
        bare.results.pop(key)
    bare.results["modes"] = {"single_scale": bare.results}
    bare.results["step"] = bare.results["checkpoint"] = None
    bare.environment = {**bare.environment, "git": None}
    text = page.render(bare)
    assert titles(bare) == ["classes", "confusion", "images", "run"]
    assert "Superpixels of" not in text and "Prediction of" in text
    kind = dict.fromkeys(superpixel_metrics.MEASURES, 0.25)
    kinds = [
        {"kind": "model", "factor": None, "images": 3, "achievable_miou": 0.5, **kind},
        {
            "kind": "SLIC",
            "factor": 2,
            "images": 3,
            "achievable_miou": 0.75,
            **kind,
            "compactness": None,
        },
    ]
    lines = {"model": [[100, 0.5]], "SLIC": [[200, None]]}
    curves = dict.fromkeys(superpixel_scores.HIGHER_IS_BETTER, lines)
    bare.superpixels = {"kinds": kinds, "curves": curves}
    assert titles(bare) == ["classes", "confusion", "images", "superpixels", "run"]
    assert '<td class="best" data-value="">75.00</td>' in page.render(bare)


def test_150_classes_fold_their_legend_and_scroll_their_table(make_evaluation):
    evaluation = make_evaluation(num_classes=150, num_images=2).evaluation
    text = page.render(evaluation)
    assert "Colours of the 150 classes" in text
    assert 'class="scroll long" tabindex="0" role="region"' in text
    # The empty one of 150 classes is a row without a number.
    assert len(text) < 2e6


def test_one_image_of_one_pixel(make_evaluation):
    evaluation = make_evaluation(num_images=1, size=(6, 1)).evaluation
    found = Elements(page.render(evaluation)).found
    assert sum(tag == "figure" for tag, _ in found) == 1
