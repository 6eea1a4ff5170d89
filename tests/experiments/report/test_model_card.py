"""Model cards: what they say, and what they keep to themselves."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard

from experiments.report.model_card import model_card, without_folders
from models.embedded import EMBEDDED

CACHE = "/home/me/.cache/huggingface/hub"
HUB = f"{CACHE}/models--Qwen--Qwen3-0.6B/snapshots/c1899de289a04d12100db370d81485cdf75e47ca"


def head(card):
    return yaml.safe_load(card.split("---")[1])


def config_of(card):
    return json.loads(card.split("```json")[1].split("```")[0])


def test_a_card_without_results():
    card = model_card({"seed": 1}, None, 5)
    assert "Results" not in card
    assert config_of(card) == {"seed": 1}
    assert head(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["distillation", "reasoning"],
        "license": "other",
        "license_name": "unknown",
    }
    assert "trained from scratch" in card


def test_a_card_names_the_base_and_its_licence(tmp_path):
    run = {"method": "motab", "student": {"path": HUB}, "teacher": {"path": "/data/Qwen3-32B/"}}
    (tmp_path / "README.md").write_text(
        "---\nlicense: other\nlicense_name: qwen-research\nlicense_link: LICENSE\n---\n# Qwen\n"
    )
    card = model_card(run, None, 5, tmp_path)
    facts = ModelCard(card).data.to_dict()
    assert facts["base_model"] == "Qwen/Qwen3-0.6B"
    assert facts["license"] == "other" and facts["license_name"] == "qwen-research"
    assert "started from `Qwen/Qwen3-0.6B`, taught by `Qwen3-32B`." in card
    assert str(tmp_path) not in card and "/home" not in card and "/data" not in card
    # What the base's card does not say, or cannot, is not made up.
    for text in ("# Qwen\n", "---\nlicense: [a, b]\n---\n", "---\n: [\n---\n", "---\n3\n---\n", ""):
        (tmp_path / "README.md").write_text(text)
        card = model_card(run, None, 5, tmp_path)
        assert head(card)["license_name"] == "unknown"
        assert "Licence: unknown, as `Qwen/Qwen3-0.6B` says none" in card


def test_the_embedded_models_have_the_projects_licence():
    card = model_card({"student": {"path": "embedded:student"}}, None, 5, EMBEDDED / "student")
    assert (head(card)["base_model"], head(card)["license"]) == ("embedded:student", "apache-2.0")


@pytest.mark.parametrize(
    ("value", "public"),
    [
        ("/data/models/Qwen3-4B", "Qwen3-4B"),
        ("/data/models/Qwen3-4B/", "Qwen3-4B"),
        ("/data", "data"),
        ("~/models/Qwen3-4B", "Qwen3-4B"),
        ("~me/models/Qwen3-4B", "Qwen3-4B"),
        ("../../home/me/Qwen3-4B", "Qwen3-4B"),
        (HUB, "Qwen/Qwen3-0.6B"),
        (HUB + "/tokenizer.json", "Qwen/Qwen3-0.6B/tokenizer.json"),
        ("jsonl:/mnt/data/train.jsonl", "jsonl:train.jsonl"),
        ("gsm8k=/mnt/data/train.jsonl", "gsm8k=train.jsonl"),
        ("C:\\Users\\me\\Qwen3-4B", "Qwen3-4B"),
        ("see /etc/motab/mine.jinja and more", "see mine.jinja and more"),
        # What is no absolute path stays.
        ("checkpoints/Qwen3-4B", "checkpoints/Qwen3-4B"),
        ("embedded:student", "embedded:student"),
        ("Qwen/Qwen3-4B", "Qwen/Qwen3-4B"),
        ("https://huggingface.co/Qwen/Qwen3-4B", "https://huggingface.co/Qwen/Qwen3-4B"),
        ("{problem} /no_think", "{problem} /no_think"),
        ("<think>a</think> 1/2/3 and and/or/not", "<think>a</think> 1/2/3 and and/or/not"),
        ("Put it in \\boxed{\\frac{1}{2}}.", "Put it in \\boxed{\\frac{1}{2}}."),
    ],
)
def test_folders_stay_at_home(value, public):
    assert without_folders(value) == public
    nested = {"data": {"train": [{"path": value}, 3, None]}, "seed": 1}
    assert without_folders(nested) == {"data": {"train": [{"path": public}, 3, None]}, "seed": 1}
    card = model_card({"prompt": {"format": value}}, None, 1)
    assert config_of(card)["prompt"]["format"] == public
