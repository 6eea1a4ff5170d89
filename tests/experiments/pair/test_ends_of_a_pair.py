"""A text of a pair ends where either model's files end one, in the run and in what it exports."""

import json
import shutil

import pytest

from configs import motab
from experiments.config.read import read_config
from experiments.export import _generation_config
from experiments.pair.pair import load_pair
from models.embedded import model_directory

EOS = 97  # the chain tokenizer's <|im_end|>


@pytest.fixture
def config(tmp_path):
    config = motab.get_config("smoke")
    for role in ("student", "teacher"):
        shutil.copytree(model_directory(f"embedded:{role}"), tmp_path / role)
        config[role].path = str(tmp_path / role)
    return config


@pytest.mark.parametrize(
    ("student", "teacher", "ends"),
    [
        (None, None, [EOS]),
        (5, None, [EOS, 5]),
        (None, [EOS, 6], [EOS, 6]),
        ([EOS, 5], [6, 5], [EOS, 5, 6]),
    ],
)
def test_both_models_end_a_text(config, tmp_path, student, teacher, ends):
    for role, ids in (("student", student), ("teacher", teacher)):
        if ids is not None:
            (tmp_path / role / "generation_config.json").write_text(
                json.dumps({"eos_token_id": ids})
            )
    assert list(load_pair(read_config(config)).eos_ids) == ends
    run = json.loads(config.to_json_best_effort())
    assert _generation_config(run, tmp_path / "student")["eos_token_id"] == ends
    # Where the teacher is not at hand any more, the student's own are known.
    shutil.rmtree(tmp_path / "teacher")
    own = _generation_config(run, tmp_path / "student")["eos_token_id"]
    assert own == ([EOS] if student is None else [EOS, 5] if student == 5 else student)
