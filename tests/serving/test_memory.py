"""The estimate of what an image needs, and the limit that follows."""

import pytest

from sp_transformer.config import load_config
from sp_transformer.serving import memory


@pytest.fixture
def config():
    return load_config("configs/cityscapes/resnet50.textproto")


def test_attention_grows_with_the_square_of_the_superpixels(config):
    small, large = (memory.needed_bytes(side, side, config) for side in (1024, 10240))
    tokens = (10240 // 32) ** 2
    # Scores of 4 heads and their softmax, in float32.
    assert large - 100 * small == pytest.approx(2 * 4 * 4 * tokens**2, rel=0.01)


def test_finer_superpixels_need_more_and_images_made_smaller_need_less(config):
    published = memory.needed_bytes(2000, 3000, config)
    assert published == memory.needed_bytes(2000, 3000)
    config.model.tokenizer.superpixel_stride = 8
    assert memory.needed_bytes(2000, 3000, config) > 10 * published
    config.data.resize_height, config.data.resize_width = 64, 128
    assert memory.needed_bytes(2000, 3000, config) < published


def test_a_model_of_one_size_sees_no_more_of_a_large_image(config):
    limit = memory.SizeLimit(config, available=16 * 2**30, model_size=(512, 1024))
    limit.check(10000, 10000)
    # The image itself, its maps and pictures still have to fit.
    with pytest.raises(ValueError, match=r"50000x50000.*186\.\d GiB"):
        limit.check(50000, 50000)
    config.data.resize_height, config.data.resize_width = 64, 128
    small, large = (memory.needed_bytes(side, side, config, (512, 1024)) for side in (10, 1010))
    assert large - small == (1010**2 - 10**2) * 80


def test_the_limit_names_size_need_and_mend(config):
    limit = memory.SizeLimit(config, available=16 * 2**30)
    limit.check(1024, 2048)
    with pytest.raises(ValueError, match=r"10000x10000.*GiB.*16\.0 GiB are free.*--max_megapixels"):
        limit.check(10000, 10000)
    memory.SizeLimit(config, available=None).check(10000, 10000)


def test_a_limit_of_the_users_own_takes_the_place_of_the_estimate(config):
    limit = memory.SizeLimit(config, available=1, max_megapixels=2)
    limit.check(1000, 2000)
    with pytest.raises(ValueError, match=r"1000x2001.*--max_megapixels is 2"):
        limit.check(1000, 2001)


def test_what_is_free_is_the_least_of_machine_and_container(tmp_path, monkeypatch):
    machine, limit, use, stat = (
        tmp_path / name for name in ("meminfo", "max", "current", "memory.stat")
    )
    machine.write_text("MemTotal: 100 kB\nMemAvailable:       50 kB\n")
    monkeypatch.setattr(memory, "_MEMORY_INFO", machine)
    monkeypatch.setattr(memory, "_CONTAINERS", [(limit, use, (stat, "inactive_file"))])
    assert memory.available_bytes() == 51200
    limit.write_text("30000\n")
    use.write_text("10000\n")
    assert memory.available_bytes() == 20000
    # A cache of files gives way.
    stat.write_text("anon 1000\ninactive_file 9000\nactive_file 700\n")
    assert memory.available_bytes() == 29000
    limit.write_text("max\n")
    assert memory.available_bytes() == 51200
    monkeypatch.setattr(memory, "_MEMORY_INFO", tmp_path / "absent")
    assert memory.available_bytes() is None


def test_a_config_that_cannot_be_read_is_none(tmp_path):
    path = tmp_path / "config.textproto"
    assert memory.read_config(path) is None
    path.write_text("model { tokenizer { superpixel_stride: 16 } field_of_the_future: 3 }")
    assert memory.read_config(path).model.tokenizer.superpixel_stride == 16
    path.write_text("model {")
    assert memory.read_config(path) is None
