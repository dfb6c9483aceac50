"""The report in a real browser: loads in silence, asks for nothing, and works by keyboard."""

import pytest
from PIL import Image

from sp_transformer.evaluation.report import page


@pytest.fixture(scope="module")
def tab(browser, tmp_path_factory):
    if browser.PROGRAM is None:
        pytest.skip("no Chromium found; install Debian's package chromium to run the report in one")
    with browser.Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module", params=[5, 150])
def report(request, make_evaluation, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    made = make_evaluation(num_classes=request.param)
    path.write_text(page.render(made.evaluation), encoding="utf-8")
    return path, made


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_loads_without_complaint_or_request_and_fits_the_window(tab, report, width, dark, tmp_path):
    path, _ = report
    tab.open(path, width=width, dark=dark)
    assert tab.complaints() == []
    assert tab.requests() == [path.as_uri()]
    assert tab.script("document.documentElement.scrollWidth") <= width
    loaded = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
    assert tab.script(loaded)
    assert tab.script("document.images.length") > 12
    tab.screenshot(tmp_path / "page.png", whole=False)
    corner = Image.open(tmp_path / "page.png").convert("L").getpixel((2, 2))
    assert (corner < 60) == dark


def test_slider_moves_by_keyboard_and_views_change(tab, report):
    tab.open(report[0])
    tab.script("document.querySelector('.stage input').focus()")
    at = "getComputedStyle(document.querySelector('.example')).getPropertyValue('--at')"
    clipped = "getComputedStyle(document.querySelector('.over.chosen')).clipPath"
    before = tab.script(clipped)
    for _ in range(3):
        tab.press("ArrowRight")
    assert tab.script(at) == "53%" and tab.script(clipped) != before
    spoken = "document.querySelector('.stage input').getAttribute('aria-valuetext')"
    assert tab.script(spoken) == "53 % Prediction"
    tab.script("document.querySelector('.example input[type=radio]').focus()")
    tab.press("ArrowRight")
    chosen = (
        "[...document.querySelector('.example').querySelectorAll('.over.chosen')].map(x => x.alt)"
    )
    (alt,) = tab.script(chosen)
    assert alt.startswith("Superpixels of")
    assert tab.script(spoken) == "53 % Superpixels"
    assert tab.complaints() == []


def test_confusions_are_read_by_arrow_keys(tab, report):
    path, made = report
    tab.open(path)
    tab.script("document.getElementById('matrix').focus()")
    tab.press("ArrowDown")
    tab.press("ArrowRight")
    tab.press("ArrowRight")
    spoken = tab.script("document.getElementById('matrix-readout').textContent")
    count = made.confusion.counts[1, 2]
    share = 100 * count / made.confusion.class_pixels[1]
    assert spoken == f"class 1, taken for class 2: {share:.2f} % of its pixels ({count:,})"
    assert tab.complaints() == []


def test_headings_sort_the_classes(tab, report):
    tab.open(report[0])
    heading = (
        "[...document.querySelectorAll('#classes th button')].find(x => x.textContent === 'IoU')"
    )
    values = (
        "[...document.querySelectorAll('#classes tbody tr')].map(row => row.cells[2].dataset.value)"
    )
    for order in (1, -1):
        tab.script(f"{heading}.focus()")
        tab.script(f"{heading}.click()")
        found = [float(value) for value in tab.script(values) if value != ""]
        assert found == sorted(found, reverse=order == 1)
    # A class without a number stays last either way.
    assert "" not in tab.script(values)[: len(found)]
    assert tab.complaints() == []
