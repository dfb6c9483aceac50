"""Broken configs, each giving its one clear error: field, value and mend."""

import pytest

from sp_transformer.config import ConfigError, load_config, registries


def backbone(text):
    return f"model {{ backbone {{ {text} }} }}"


def hypercolumn(text):
    return f"model {{ hypercolumn {{ {text} }} }}"


def tokenizer(text):
    return f"model {{ tokenizer {{ {text} }} }}"


def classifier(text):
    return f"model {{ classifier {{ {text} }} }}"


def data(text):
    return f"data {{ {text} }}"


def augmentation(text):
    return f"data {{ augmentation {{ {text} }} }}"


def training(text):
    return f"training {{ {text} }}"


def label_map(text):
    return f"data {{ label_map {{ {text} }} }}"


def splits(text):
    return f"data {{ folder {{ {text} }} }}"


TRAIN = 'splits { name: "train" images: "a/*.jpg" labels: "a/*.png" }'
VAL = 'splits { name: "val" images: "b/*.jpg" labels: "b/*.png" }'

# Override that breaks the valid folder config -> parts that its one fault must hold, in order.
BROKEN = {
    # Backbone.
    backbone('name: "resnet5"'): ['model.backbone.name "resnet5" is unknown', 'mean "resnet50"'],
    backbone('name: "keras_cv/mobilenet_v3"'): [
        '"keras_cv/mobilenet_v3" is unknown',
        "did you mean",
        "keras_cv/mobilenet_v3_small",
    ],
    backbone('name: "resnet18" stride_in_first_conv: true'): [
        "model.backbone.stride_in_first_conv true has no effect on resnet18; remove it",
        "resnet50 or resnet101",
    ],
    backbone('name: "convnext_tiny" stem_max_pool: true'): [
        "model.backbone.stem_max_pool true has no effect on convnext_tiny; remove it",
        "resnet50",
    ],
    backbone('name: "convnext_tiny" conv_bias: true'): ["model.backbone.conv_bias true"],
    backbone('name: "keras_cv/resnet18" zero_init_residual: false'): [
        "model.backbone.zero_init_residual false has no effect on keras_cv/resnet18",
        "its default, true",
    ],
    backbone('name: "convnext_tiny" batch_norm_epsilon: 1e-5'): [
        "model.backbone.batch_norm_epsilon 1e-05 has no effect on convnext_tiny",
        "its default, 0.001",
    ],
    backbone('name: "keras_cv/resnet18" drop_path_rate: 0.1'): [
        "model.backbone.drop_path_rate 0.1 has no effect on keras_cv/resnet18; remove it",
        "EfficientNet",
    ],
    backbone("drop_path_rate: 1"): [
        "model.backbone.drop_path_rate 1 lies outside [0, 1)",
        "set it",
    ],
    backbone("batch_norm_momentum: -0.1"): ["batch_norm_momentum -0.1 lies outside [0, 1)"],
    backbone("batch_norm_epsilon: 0"): ["batch_norm_epsilon 0 is not above 0; set it"],
    # Hypercolumn.
    hypercolumn("stride: 5"): ["model.hypercolumn.stride 5 is not", "one of 1, 2, 4, 8, 16, 32"],
    hypercolumn("endpoint_strides: 64 endpoint_strides: 8"): [
        "model.hypercolumn.endpoint_strides 64 is not an endpoint of resnet50",
        "it has 2, 4, 8, 16, 32",
    ],
    backbone('name: "convnext_tiny" } hypercolumn { endpoint_strides: 2'): [
        "endpoint_strides 2 is not an endpoint of convnext_tiny; it has 4, 8, 16, 32"
    ],
    hypercolumn("endpoint_strides: 8 endpoint_strides: 8"): [
        "endpoint_strides 8 is listed 2 times; list each endpoint once"
    ],
    hypercolumn("max_hidden_channels: 0"): [
        "model.hypercolumn.max_hidden_channels 0 is not above 0"
    ],
    # Tokenizer, classifier, association, channels.
    tokenizer("superpixel_stride: 4 } hypercolumn { stride: 8"): [
        "model.tokenizer.superpixel_stride 4 is not a multiple of 8 (model.hypercolumn.stride 8",
        "the nearest that fits is 8",
    ],
    tokenizer("superpixel_stride: -32"): ["model.tokenizer.superpixel_stride -32 is not above 0"],
    tokenizer("layers: 0"): [
        "model.tokenizer.layers 0 is not above 0; set it to a positive number"
    ],
    tokenizer("heads: 3"): [
        "model.tokenizer.heads 3 does not divide model.channels 256",
        "the nearest that do are 2 and 4",
    ],
    tokenizer("position_embedding_stride: 0"): ["position_embedding_stride 0 is not above 0"],
    tokenizer("feed_forward_width: -1"): [
        "model.tokenizer.feed_forward_width -1 is below 0",
        "or to 0 (no such layer)",
    ],
    classifier("heads: 5"): ["model.classifier.heads 5 does not divide", "are 4 and 8"],
    classifier("layers: -1"): ["model.classifier.layers -1 is below 0", "set it"],
    classifier("feed_forward_width: 0"): ["model.classifier.feed_forward_width 0 is not above 0"],
    "model { association { scale: -1 } }": [
        "model.association.scale -1 is below 0",
        "channels^-0.5",
    ],
    "model { association { scale: nan } }": ["model.association.scale nan is not finite"],
    "model { channels: 0 }": ["model.channels 0 is not above 0; set it"],
    # Sizes.
    "model { input_height: 64 }": ["model.input_width is not set", "64", "set both or none"],
    "model { input_height: 64 input_width: 100 }": [
        "model.input_width 100 is not a multiple of 32",
        "96 and 128",
    ],
    "model { num_classes: 3 }": [
        "model.num_classes 3 does not agree with the 2 classes of data.label_map",
        "set it to 2",
    ],
    data("crop_height: 1000"): [
        "data.crop_height 1000 is not a multiple of 32 "
        "(superpixel stride 32, largest endpoint stride 32); the nearest that fit are 992 and 1024"
    ],
    data("crop_width: 10"): ["data.crop_width 10 is not a multiple of 32", "fits is 32"],
    data("crop_width: 0"): ["data.crop_width 0 is not above 0; set it"],
    tokenizer("superpixel_stride: 24") + data("crop_height: 192 crop_width: 128"): [
        "data.crop_width 128 is not a multiple of 96 (superpixel stride 24",
        "96 and 192",
    ],
    data("resize_height: 64"): ["data.resize_width is not set", "64", "set both, or"],
    data("resize_height: 64 resize_width: 64 resize_longer_side: 99"): [
        "data.resize_longer_side 99 contradicts data.resize_height 64",
        "set either",
    ],
    data("resize_longer_side: -1"): ["data.resize_longer_side -1 is below 0", "no resizing"],
    # Sources and splits.
    data('dataset: "folders"'): ['data.dataset "folders" is unknown; did you mean "folder"?'],
    data('train_split: "trian"'): ['data.train_split "trian" is unknown', 'mean "train"'],
    data('eval_split: "test"'): ['data.eval_split "test" names a split without labels', "give"],
    data('dataset: "synthetic_streets" label_map { classes { name: "a" color: "#000000" } }'): [
        "data.label_map.classes lists 1 classes but synthetic_streets draws Cityscapes' 19",
        "use configs/label_maps/cityscapes.textproto",
    ],
    data("synthetic_streets { train_images: 0 }"): [
        "synthetic_streets.train_images 0 is not above"
    ],
    splits(TRAIN + VAL + TRAIN): [
        'data.folder.splits[2].name "train" is already that of splits[0]; name each split once'
    ],
    splits(TRAIN + VAL + 'splits { images: "x/*.png" }'): [
        "folder.splits[2].name is not set; give"
    ],
    splits(TRAIN + VAL + 'splits { name: "test" }'): [
        "splits[2].images is empty; give at least one"
    ],
    splits(TRAIN + 'splits { name: "val" images: "/b/*.jpg" labels: "b/*.png" }'): [
        'data.folder.splits[1].images "/b/*.jpg" is absolute; write it relative to data.data_dir'
    ],
    splits(TRAIN + 'splits { name: "val" images: "b/*.jpg" labels: "" }'): [
        'data.folder.splits[1].labels "" is an empty glob; remove it'
    ],
    data("parallel_calls: -1"): ["data.parallel_calls -1 is below 0", "tf.data decides"],
    # Label map.
    label_map('classes { name: "a" color: "red" } classes { name: "b" color: "#000000" }'): [
        'data.label_map.classes[0].color "red" is not a colour',
        "#rrggbb",
    ],
    label_map('classes { name: "a" color: "#000000" } classes { color: "#000000" }'): [
        "data.label_map.classes[1].name is not set; name the class"
    ],
    label_map('classes { name: "a" color: "#000000" } classes { name: "a" color: "#000001" }'): [
        'data.label_map.classes[1].name "a" is already that of classes[0]; names must differ'
    ],
    label_map("ignore_label: 1"): [
        'data.label_map.ignore_label 1 is the train id of class "sky"; set it to 2 or more'
    ],
    label_map("ignore_label: -1"): ["data.label_map.ignore_label -1 lies outside [0, 65535]"],
    label_map("id_map { from: 7 to: 2 }"): [
        "data.label_map.id_map[0].to 2 is neither a class (0 to 1) nor ignore_label 255",
        "map id 7",
    ],
    label_map("id_map { from: 7 to: 0 } id_map { from: 7 to: 1 }"): [
        "data.label_map.id_map[1].from 7 is already mapped by id_map[0]; list each id once"
    ],
    label_map("id_map { to: 0 }"): ["data.label_map.id_map[0].from is not set; set it"],
    label_map("id_map { from: 70000 to: 0 }"): ["id_map[0].from 70000 lies outside [0, 65535]"],
    label_map("ignore_unlisted_ids: true"): ["ignore_unlisted_ids true has no id_map", "remove it"],
    # Augmentation.
    augmentation('color_policy: "jiter"'): ['color_policy "jiter" is unknown', 'mean "jitter"'],
    augmentation("color_strength: 1.5"): ["color_strength 1.5 lies outside [0, 1]"],
    augmentation("min_scale: 2"): ["min_scale 2 exceeds max_scale 1; exchange"],
    augmentation("min_scale: 0 scale_step: 1"): ["augmentation.min_scale 0 is not above 0; set"],
    augmentation("scale_step: 0"): ["augmentation.scale_step 0 is not above 0"],
    augmentation("min_scale: 0.5 max_scale: 2 scale_step: 0.4"): [
        "scale_step 0.4 does not divide the range 0.5 to 2 into whole steps",
        "the nearest that does is 0.375",
    ],
    # Training and evaluation.
    training("batch_size: 0"): ["training.batch_size 0 is not above 0; set it to a positive"],
    training("steps: 0"): ["training.steps 0 is not above 0; set it"],
    training("steps: 100"): [
        "training.warmup_steps 5000 exceeds training.steps 100; set it to at most 100"
    ],
    training("warmup_steps: -1"): ["training.warmup_steps -1 is below 0", "no warmup"],
    training("learning_rate: inf"): ["training.learning_rate inf is not finite; set it"],
    training("poly_end_learning_rate: 0.1"): [
        "training.poly_end_learning_rate 0.1 exceeds training.learning_rate 0.001",
        "set it to less",
    ],
    training("poly_power: 0"): ["training.poly_power 0 is not above 0"],
    training("backbone_learning_rate_multiplier: -1"): [
        "backbone_learning_rate_multiplier -1 is bel"
    ],
    training("weight_decay: -0.1"): ["training.weight_decay -0.1 is below 0"],
    training("beta_2: 1"): ["training.beta_2 1 lies outside [0, 1)"],
    training("ema_decay: 1"): ["training.ema_decay 1 lies outside [0, 1)"],
    training("batch_size_per_replica: -1"): ["batch_size_per_replica -1 is below 0"],
    training("learning_rate_reference_batch_size: -1"): ["reference_batch_size -1 is below 0"],
    training("gradient_accumulation_steps: 0"): ["gradient_accumulation_steps 0 is not above 0"],
    training("gradient_accumulation_steps: 5"): [
        "training.gradient_accumulation_steps 5 does not divide training.batch_size 32",
        "4 and 8",
    ],
    training("batch_size_per_replica: 6 gradient_accumulation_steps: 4"): [
        "gradient_accumulation_steps 4 does not divide training.batch_size_per_replica 6"
    ],
    training(
        'rematerialize_backbone: true } model { backbone { name: "keras_cv/mobilenet_v3_small" }'
    ): ["rematerialize_backbone has no effect on keras_cv/mobilenet_v3_small"],
    "evaluation { averaged_weights: true }": [
        "evaluation.averaged_weights (--averaged_weights) is true and training.ema_decay 0"
    ],
    training("gradient_clip_norm: -1"): ["gradient_clip_norm -1 is below 0", "no clipping"],
    training("superpixel_loss_weight: -1"): [
        "superpixel_loss_weight -1 is below 0",
        "no such loss",
    ],
    training("top_k_fraction: 20"): ["training.top_k_fraction 20 lies outside (0, 1]; set it"],
    training("top_k_fraction: 1e-5"): ["top_k_fraction 1e-05 of a crop of 6144 pixels", "at least"],
    training("steps_per_loop: 30"): [
        "training.steps_per_loop 30 does not divide training.save_interval_steps 1000",
        "25 and 40",
    ],
    training("save_interval_steps: 0"): ["training.save_interval_steps 0 is not above 0"],
    training("log_interval_steps: 0"): ["training.log_interval_steps 0 is not above 0"],
    training("picture_interval_steps: -1"): ["picture_interval_steps -1 is below 0", "no pictures"],
    training("checkpoints_to_keep: 0"): ["training.checkpoints_to_keep 0 is not above 0"],
    "evaluation { batch_size: 0 }": ["evaluation.batch_size 0 is not above 0"],
    "evaluation { max_images: -5 }": ["evaluation.max_images -5 is below 0", "all images"],
    "evaluation { pictures: -5 }": ["evaluation.pictures -5 is below 0", "no pictures"],
}


@pytest.mark.parametrize(("override", "parts"), BROKEN.items(), ids=BROKEN)
def test_broken_config_gives_its_one_clear_error(folder_config, override, parts):
    overrides = [override]
    if "steps_per_loop" in override:
        overrides.append("training { log_interval_steps: 300 picture_interval_steps: 0 }")
    with pytest.raises(ConfigError) as caught:
        load_config(folder_config, overrides)
    assert len(caught.value.faults) == 1, caught.value.faults
    rest = caught.value.faults[0]
    for part in parts:
        assert part in rest, caught.value.faults[0]
        rest = rest[rest.index(part) + len(part) :]


def test_the_number_of_broken_configs_does_not_shrink():
    assert len(BROKEN) >= 25


@pytest.mark.parametrize(
    "override",
    [
        "training { picture_interval_steps: 0 }",
        "training { steps: 5000 }",
        "training { top_k_fraction: 1 }",
        "training { steps_per_loop: 100 }",
        "evaluation { pictures: 0 }",
        "model { classifier { layers: 0 } }",
        "model { num_classes: 2 input_height: 128 input_width: 32 }",
        "model { tokenizer { superpixel_stride: 16 } }",
        "model { hypercolumn { endpoint_strides: 32 endpoint_strides: 4 } }",
        'model { backbone { name: "convnext_tiny" drop_path_rate: 0.9 } }',
        # Setting a ResNet's option back to its default is how an override undoes a base file.
        'model { backbone { name: "convnext_tiny" stem_max_pool: false conv_bias: false } }',
        'model { backbone { name: "keras_cv/mobilenet_v3_small" } }',
        'model { backbone { name: "keras_cv/efficientnetlite_b0" drop_path_rate: 0.2 } }',
        "data { resize_longer_side: 77 }",
        "data { resize_height: 77 resize_width: 33 }",
        "data { augmentation { min_scale: 0.5 max_scale: 2.0 scale_step: 0.1 } }",
        "data { augmentation { min_scale: 0.7 max_scale: 0.7 scale_step: 0.1 } }",
        "data { label_map { ignore_label: 2 id_map { from: 0 to: 2 } id_map { from: 1 to: 0 } } }",
        "data { label_map { id_map { from: 9 to: 255 } ignore_unlisted_ids: true } }",
        'data { train_split: "val" }',
    ],
)
def test_values_at_the_limits_are_accepted(folder_config, override):
    load_config(folder_config, [override])


@pytest.mark.parametrize("name", registries.backbone_names())
def test_every_registered_backbone_passes_with_default_endpoints(folder_config, name):
    load_config(folder_config, [f'model {{ backbone {{ name: "{name}" }} }}'])


def test_unset_dataset_is_one_fault(write):
    with pytest.raises(ConfigError) as caught:
        load_config(write("training { steps: 6000 }"))
    (fault,) = caught.value.faults
    assert "data.dataset is not set" in fault and "synthetic_streets, folder" in fault


def test_unset_crop_names_what_would_fit(write):
    with pytest.raises(ConfigError) as caught:
        load_config(write('data { dataset: "synthetic_streets" crop_height: 64 }'))
    (fault,) = caught.value.faults
    assert "data.crop_width is not set" in fault and "multiple of 32" in fault


def test_folder_without_splits_and_classes(write):
    with pytest.raises(ConfigError) as caught:
        load_config(write('data { dataset: "folder" crop_height: 64 crop_width: 64 }'))
    no_splits, no_classes = caught.value.faults
    assert "data.folder.splits is empty; describe" in no_splits
    assert "data.label_map.classes is empty" in no_classes and "base_config" in no_classes


@pytest.mark.parametrize(
    ("dataset", "classes"), [("synthetic_streets", 19), ("cityscapes", 19), ("ade20k", 150)]
)
def test_num_classes_is_checked_against_the_default_label_map(write, dataset, classes):
    text = f'data {{ dataset: "{dataset}" crop_height: 64 crop_width: 64 }}'
    for stated in (7, classes + 2):
        message = f"num_classes {stated} does not agree with the {classes} classes"
        with pytest.raises(ConfigError, match=message):
            load_config(write(text), [f"model {{ num_classes: {stated} }}"])
    load_config(write(text), [f"model {{ num_classes: {classes} }}"])


def make_data(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


FILES = ("train/a.jpg", "train/a.png", "val/b.jpg", "val/b.png")


def test_data_are_only_looked_for_when_asked(folder_config, tmp_path):
    load_config(folder_config, data_dir=tmp_path / "nowhere")
    with pytest.raises(ConfigError) as caught:
        load_config(folder_config, data_dir=tmp_path / "nowhere", check_data=True)
    (fault,) = caught.value.faults
    assert f'data.data_dir "{tmp_path / "nowhere"}" is not an existing folder' in fault
    assert "--data_dir" in fault


def test_unset_data_dir_is_a_fault_when_data_are_checked(folder_config):
    with pytest.raises(ConfigError, match=r"data\.data_dir is not set; give .*--data_dir"):
        load_config(folder_config, check_data=True)


def test_complete_data_pass_also_without_the_unused_test_split(folder_config, tmp_path):
    make_data(tmp_path, FILES)
    load_config(folder_config, data_dir=tmp_path, check_data=True)


@pytest.mark.parametrize("missing", FILES)
def test_glob_without_files_is_named(folder_config, tmp_path, missing):
    make_data(tmp_path, [name for name in FILES if name != missing])
    with pytest.raises(ConfigError) as caught:
        load_config(folder_config, data_dir=tmp_path, check_data=True)
    (fault,) = caught.value.faults
    split, extension = missing.split("/")[0], missing.rsplit(".")[-1]
    field = "images" if extension == "jpg" else "labels"
    index = ("train", "val").index(split)
    assert f'data.folder.splits[{index}].{field} "{split}/*.{extension}" matches no file' in fault
    assert str(tmp_path) in fault and "correct the glob" in fault


def test_remote_data_are_left_to_tensorflow(folder_config):
    load_config(folder_config, data_dir="gs://bucket/data", check_data=True)
