"""Which changes of the config a resumed run accepts."""

import json

import pytest
import tensorflow as tf

from sp_transformer.data import source
from sp_transformer.training import run_directory


def prepared(tmp_path, config, model):
    run_directory.prepare(tmp_path, config, model, resuming=False)
    return tmp_path


def test_accepts_what_does_not_change_the_run(tmp_path, config, tiny):
    model = tiny.build_model()
    prepared(tmp_path, config, model)
    config.training.steps = 99
    config.training.steps_per_loop = 2
    config.training.log_interval_steps = 50
    config.training.save_interval_steps = 50
    config.training.picture_interval_steps = 50
    config.training.checkpoints_to_keep = 9
    config.training.jit_compile = True
    config.data.data_dir = "elsewhere"
    config.evaluation.batch_size = 3
    config.data.seed = 0  # Its default, spelt out.
    run_directory.prepare(tmp_path, config, model, resuming=True)
    assert "steps: 99" in (tmp_path / "config.textproto").read_text()


def test_names_every_changed_field_with_both_values(tmp_path, config, tiny):
    model = tiny.build_model()
    prepared(tmp_path, config, model)
    config.training.learning_rate = 0.5
    config.training.precision = config.training.BFLOAT16
    config.model.backbone.name = "resnet18"
    config.data.label_map.classes.add(name="road", color="#000000")
    before = (tmp_path / "config.textproto").read_text()
    with pytest.raises(run_directory.RunMismatchError) as error:
        run_directory.prepare(tmp_path, config, model, resuming=True)
    text = str(error.value)
    assert "training.learning_rate: 0.01 before, 0.5 now" in text
    assert "training.precision: FLOAT32 before, BFLOAT16 now" in text
    assert "model.backbone.name: 'resnet50' before, 'resnet18' now" in text
    assert "data.label_map.classes[0]: (not set) before" in text
    assert "another model_dir" in text
    assert (tmp_path / "config.textproto").read_text() == before


def test_a_new_run_may_replace_a_config_without_checkpoints(tmp_path, config, tiny):
    model = tiny.build_model()
    prepared(tmp_path, config, model)
    config.training.learning_rate = 0.5
    run_directory.prepare(tmp_path, config, model, resuming=False)
    assert "learning_rate: 0.5" in (tmp_path / "config.textproto").read_text()


def test_refuses_other_trainable_variables(tmp_path, config, tiny):
    model = tiny.build_model()
    prepared(tmp_path, config, model)
    model.blocks[0].trainable = False
    with pytest.raises(run_directory.RunMismatchError, match=r"no longer trained: blocks/0/bias"):
        run_directory.prepare(tmp_path, config, model, resuming=True)


def test_the_list_of_variables_does_not_depend_on_models_built_before(tmp_path, config, tiny):
    prepared(tmp_path, config, tiny.build_model())
    run_directory.prepare(tmp_path, config, tiny.build_model(), resuming=True)
    text = (tmp_path / "trainable_variables.txt").read_text()
    assert "backbone/conv/kernel [3, 3, 3, 8]\n" in text and "blocks/1/bias [8]\n" in text


class Names(source.NamedSource):
    """A source of nothing but names."""

    def __init__(self, names):
        self._names = names

    def read(self, index):
        raise AssertionError(f"image {index} is read, and names alone should tell")


def test_refuses_other_images_and_names_both_counts(tmp_path, config, tiny, caplog):
    model = tiny.build_model()

    def prepare(names, resuming=True):
        data = run_directory.describe_data(config, Names(names))
        run_directory.prepare(tmp_path, config, model, resuming, data=data)

    prepare(["a", "b", "c"], resuming=False)
    prepare(["a", "b", "c"])
    assert caplog.text == ""
    for names, words in (
        (["a", "c"], "3 images before, 2 now"),
        (["a", "b", "c", "d"], "3 images before, 4 now"),
        (["a", "c", "b"], "other names or in another order"),
    ):
        with pytest.raises(run_directory.RunMismatchError, match=words) as error:
            prepare(names)
        assert "restore the images" in str(error.value) and "another model_dir" in str(error.value)
    # Images that have lost their labels are left out on request; from then on those count.
    config.data.skip_corrupt = True
    prepare(["a", "c"])
    assert "3 images before, 2 now; data.skip_corrupt lets it go on" in caplog.text
    config.data.skip_corrupt = False
    prepare(["a", "c"])


def test_data_that_cannot_be_compared_is_no_other(tmp_path, config, tiny, caplog):
    model, data = tiny.build_model(), {"split": "train", "num_images": 3, "names_sha256": None}
    run_directory.prepare(tmp_path, config, model, resuming=False)
    run_directory.prepare(tmp_path, config, model, resuming=True, data=data)
    assert "training_data.json is missing" in caplog.text
    caplog.clear()
    for digest in ("abc", None):
        run_directory.prepare(
            tmp_path, config, model, resuming=True, data={**data, "names_sha256": digest}
        )
    assert caplog.text == ""


def test_a_missing_config_is_a_warning(tmp_path, config, tiny, caplog):
    run_directory.prepare(tmp_path, config, tiny.build_model(), resuming=True)
    assert "config.textproto is missing" in caplog.text


def test_sessions_are_recorded_and_another_environment_is_named(tmp_path, caplog):
    run_directory.record_session(tmp_path, 0, replicas=1, workers=1)
    run_directory.record_session(tmp_path, 40, replicas=1, workers=1)
    assert caplog.text == ""
    path = tmp_path / run_directory.SESSIONS_FILE
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["first_step"] for line in lines] == [0, 40]
    assert lines[0]["versions"]["tensorflow"] == tf.__version__
    assert lines[0]["devices"] == ["CPU:0"] and set(lines[0]["git"]) == {"revision", "dirty"}
    lines[1]["versions"]["tensorflow"] = "1.0"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run_directory.record_session(tmp_path, 80, replicas=2, workers=1)
    assert '"tensorflow": "1.0"' in caplog.text and "replicas: 1 before, 2 now" in caplog.text
    assert "workers:" not in caplog.text and "git:" not in caplog.text
    path.write_text('{"torn')
    run_directory.record_session(tmp_path, 90, replicas=2, workers=1)


def test_the_end_of_a_run_is_marked_and_taken_back(tmp_path):
    assert run_directory.finished_step(tmp_path) is None
    run_directory.mark_finished(tmp_path, 60)
    assert run_directory.finished_step(tmp_path) == 60
    run_directory.mark_finished(tmp_path, None)
    run_directory.mark_finished(tmp_path, None)
    assert run_directory.finished_step(tmp_path) is None
    for text in ("", "[1]", '{"step": "x"}'):
        (tmp_path / run_directory.FINISHED_FILE).write_text(text)
        assert run_directory.finished_step(tmp_path) is None


def test_a_new_run_does_not_start_over_the_best_checkpoint_of_another(tmp_path, config, tiny):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "best.json").write_text('{"step": 4, "miou": 0.5}')
    with pytest.raises(run_directory.RunMismatchError, match=r"best checkpoint(.|\n)*move it away"):
        run_directory.prepare(tmp_path, config, tiny.build_model(), resuming=False)
    assert not (tmp_path / "config.textproto").exists()


def test_a_worker_that_does_not_write_only_checks(tmp_path, config, tiny):
    model = tiny.build_model()
    run_directory.prepare(tmp_path / "run", config, model, resuming=False, writes=False)
    assert not (tmp_path / "run").exists()
    prepared(tmp_path, config, model)
    config.training.learning_rate = 0.5
    with pytest.raises(run_directory.RunMismatchError, match="learning_rate"):
        run_directory.prepare(tmp_path, config, model, resuming=True, writes=False)
