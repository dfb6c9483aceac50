"""Settings -> variants, and what is refused."""

import pytest

from sp_transformer.benchmarking import variants
from sp_transformer.benchmarking.settings import Settings
from sp_transformer.config import ConfigError

CITYSCAPES = "configs/cityscapes/resnet50.textproto"
ONE_LAYER = "configs/cityscapes/resnet50_1ca.textproto"


def plan(*files, **arguments):
    return variants.plan(Settings(config_files=files or (CITYSCAPES,), **arguments))


def test_defaults_are_those_of_the_config():
    (variant,) = plan(overrides=("training { precision: BFLOAT16 }",))
    assert variant.name == "cityscapes/resnet50"
    assert variant.size == (1024, 2048) and variant.batch_size == 1
    assert variant.precision == "bfloat16" and variant.implementation == "fold"
    assert variant.mode == "inference" and not variant.jit_compile
    assert variant.inference_form
    (variant,) = plan(overrides=("model { tokenizer { implementation: GATHER } }",))
    assert variant.implementation == "gather"


def test_cross_product_in_the_order_of_the_axes():
    planned = plan(
        modes=("inference", "training"),
        sizes=((64, 128),),
        precisions=("float32", "bfloat16"),
        jit_compile=(False, True),
    )
    assert [variant.name for variant in planned] == [
        "inference, float32, graph",
        "inference, float32, XLA",
        "inference, bfloat16, graph",
        "inference, bfloat16, XLA",
        "training, float32, graph",
        "training, float32, XLA",
        "training, bfloat16, graph",
        "training, bfloat16, XLA",
    ]
    assert [v.inference_form for v in planned] == [True] * 4 + [False] * 4


def test_choices_reach_the_config_that_is_built():
    planned = plan(
        batch_sizes=(3,),
        precisions=("float32", "bfloat16"),
        implementations=("gather",),
        jit_compile=(True,),
    )
    options = planned[1].config.training
    assert options.precision == options.BFLOAT16 and options.batch_size == 3
    assert options.jit_compile
    assert planned[0].config.training.precision == options.FLOAT32
    tokenizer = planned[0].config.model.tokenizer
    assert tokenizer.implementation == tokenizer.GATHER


def test_size_leaves_the_tables_of_the_config():
    (variant,) = plan(sizes=((512, 1024),))
    assert variant.size == (512, 1024)
    assert variant.config.data.crop_height == 1024 and variant.config.model.input_height == 0


def test_names_say_only_what_differs():
    names = [v.name for v in plan(CITYSCAPES, ONE_LAYER, batch_sizes=(1, 4))]
    assert names == [
        "cityscapes/resnet50, batch 1",
        "cityscapes/resnet50, batch 4",
        "cityscapes/resnet50_1ca, batch 1",
        "cityscapes/resnet50_1ca, batch 4",
    ]
    names = [v.name for v in plan(inference_form=(True, False), sizes=((64, 64), (96, 64)))]
    assert names[:2] == ["64x64, inference form", "64x64, as trained"]


def test_descriptions_are_plain_values():
    (variant,) = plan()
    assert variant.describe() == {
        "variant": "cityscapes/resnet50",
        "config": "cityscapes/resnet50",
        "mode": "inference",
        "size": "1024x2048",
        "batch_size": 1,
        "precision": "float32",
        "jit_compile": False,
        "implementation": "fold",
        "inference_form": True,
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"report": "speed"}, "report 'speed' is unknown; use model or stages or attention"),
        ({"modes": ("inferenze",)}, "mode 'inferenze'"),
        ({"modes": ()}, "mode is an empty list"),
        ({"precisions": ("float16",)}, "precision 'float16'.*float32 or bfloat16"),
        ({"implementations": ("slices",)}, "implementation 'slices'"),
        ({"batch_sizes": (0,)}, "batch_size 0"),
        ({"batch_sizes": (2, 2)}, "asked for twice"),
        ({"jit_compile": ()}, "jit_compile is an empty list"),
        ({"sizes": ((0, 64),)}, "size 0x64"),
        ({"rounds": 0}, "rounds 0"),
        ({"warmup": -1}, "warmup -1"),
        ({"modes": ("training",), "inference_form": (True,)}, "inference_form true"),
        ({"report": "stages", "peak_memory": True}, "peak_memory"),
        (
            {"modes": ("training",), "sizes": ((100, 64),)},
            "100 is not a multiple of 32.*96 and 128",
        ),
        ({"report": "stages", "sizes": ((64, 20),)}, "20 is not a multiple of 32.*fit: 32"),
    ],
)
def test_faulty_settings_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        plan(**arguments)


def test_the_same_config_twice_is_refused():
    with pytest.raises(ValueError, match="asked for twice"):
        plan(CITYSCAPES, CITYSCAPES)


def test_an_implied_duplicate_is_refused():
    """The config's own precision is float32 already: naming both is fine, repeating one is not."""
    assert len(plan(precisions=("float32", "bfloat16"))) == 2
    with pytest.raises(ValueError, match=r"float32.*asked for twice"):
        plan(precisions=("float32", "float32"))


def test_attention_takes_one_config():
    with pytest.raises(ValueError, match="one config_file, not 2"):
        plan(CITYSCAPES, ONE_LAYER, report="attention")


def test_inference_takes_any_size():
    assert plan(sizes=((100, 70),))[0].size == (100, 70)


def test_a_faulty_config_is_a_config_error():
    with pytest.raises(ConfigError, match="chanels"):
        plan(overrides=("model { chanels: 3 }",))
