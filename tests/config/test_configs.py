"""Every shipped config loads, and holds what it says it reproduces."""

import pytest

from sp_transformer.config import derived, load_config, loading

EXPERIMENTS = [path for path in loading.bundled_configs() if "/label_maps/" not in path]
LABEL_MAPS = [path for path in loading.bundled_configs() if "/label_maps/" in path]


def read(path):
    return loading._BUNDLED_ROOTS[0].parent.joinpath(path).read_text()


def test_the_configs_are_found():
    assert len(EXPERIMENTS) >= 9 and len(LABEL_MAPS) >= 3


@pytest.mark.parametrize("path", EXPERIMENTS)
def test_experiment_loads_and_opens_with_its_manual(path):
    config = load_config(path)
    assert path == f"configs/{config.experiment_name}.textproto"
    comment = read(path).split("\n\n")[0]
    assert comment.startswith("# ")
    for heading in ("# Command:", "# Hardware:", "# Expected:"):
        assert heading in comment
    # A command that names another file would train something else.
    assert path in comment


@pytest.mark.parametrize("path", LABEL_MAPS)
def test_label_map_merges_onto_an_experiment_and_is_none_itself(path, write):
    write(read(path), "map.textproto")
    config = load_config(
        write('base_config: "configs/cityscapes/resnet50.textproto" base_config: "map.textproto"')
    )
    assert derived.num_classes(config) == len(config.data.label_map.classes) > 0
    with pytest.raises(ValueError, match=r"data\.dataset is not set.*base_config"):
        load_config(path)


@pytest.mark.parametrize(
    ("name", "grid"),
    [("resnet50", (32, 64)), ("resnet50_16x32", (16, 32)), ("resnet50_64x128", (64, 128))],
)
def test_cityscapes_superpixel_grids_are_the_published(name, grid):
    config = load_config(f"configs/cityscapes/{name}.textproto")
    stride = config.model.tokenizer.superpixel_stride
    assert tuple(side // stride for side in derived.input_size(config)) == grid
    assert config.model.hypercolumn.stride == 8


def test_cityscapes_trains_as_published():
    config = load_config("configs/cityscapes/resnet50.textproto")
    training, augmentation = config.training, config.data.augmentation
    assert (training.batch_size, training.steps, training.warmup_steps) == (32, 60000, 5000)
    assert (training.learning_rate, training.weight_decay) == (1e-3, 0.05)
    assert (augmentation.min_scale, augmentation.max_scale) == (0.5, 2.0)
    assert (augmentation.scale_step, augmentation.color_policy) == (0.1, "jitter")
    assert derived.num_classes(config) == 19


def test_ablations_differ_from_the_main_model_only_where_they_say():
    main = load_config("configs/cityscapes/resnet50.textproto")
    one_layer = load_config("configs/cityscapes/resnet50_1ca.textproto")
    assert one_layer.model.tokenizer.layers == 1
    one_layer.model.tokenizer.ClearField("layers")
    one_layer.experiment_name = main.experiment_name
    assert one_layer == main
    convnext = load_config("configs/cityscapes/convnext_large.textproto")
    assert convnext.model.backbone.name == "convnext_large"
    assert convnext.model.backbone.drop_path_rate == 0.2
    assert derived.endpoint_strides(convnext) == [4, 8, 32]


def test_ade20k_has_the_published_grids():
    config = load_config("configs/ade20k/resnet50.textproto")
    height, width = derived.input_size(config)
    assert (height // config.model.hypercolumn.stride, width // 4) == (160, 160)
    assert height // config.model.tokenizer.superpixel_stride == 40
    assert (config.training.batch_size, config.training.steps) == (64, 100000)
    assert derived.num_classes(config) == 150
    large = load_config("configs/ade20k/convnext_large.textproto")
    assert (large.training.steps, large.training.batch_size) == (150000, 64)
