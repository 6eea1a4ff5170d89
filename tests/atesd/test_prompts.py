"""Teacher contexts as text, with the embedded task's and Qwen3's tokenizer."""

from __future__ import annotations

import json

import jax.numpy as jnp
import pytest

from atesd.exposure import ReferenceWidths, expose, pack_references
from atesd.prompts import DEFAULT_TEMPLATE, ExposedPrompts, encode_with_ends
from atesd.references import sentence_ends
from experiments.data.sources import load_source
from experiments.tasks.chain import ChainSource
from experiments.tasks.chain_tokenizer import EOS, PAD, build_chain_tokenizer
from experiments.tasks.example import Example
from models.text.tokenizer import load_tokenizer

from ..real_files import DATA

GSM8K = DATA / "gsm8k" / "test.jsonl"
SHORT = "R:{reference}\n#\n{problem}"
CHAIN_EXAMPLE = Example("0", "a=3,b=+8,c=*4?", "b=3+8=1.\n\nc=1*4=4.\n\n\\boxed{4}", "4", "chain")


@pytest.fixture(scope="module")
def chain():
    return build_chain_tokenizer()


@pytest.fixture(scope="module")
def qwen(qwen3_directory):
    return load_tokenizer(qwen3_directory)


def pieces(prompts, example):
    """What `prompts` make of an example."""
    return prompts(example.problem, example.reference, example.answer)


def texts(tokenizer, row, exposures=(0.0, 0.5, 1.0)):
    """The contexts of one example as text, by exposure."""
    widths = ReferenceWidths(1024, 1024, 64, 1024)
    references = pack_references([row], widths)
    shown = []
    for exposure in exposures:
        contexts, lengths = expose(references, jnp.float32(exposure))
        shown.append(tokenizer.decode(contexts[0, : int(lengths[0])].tolist()))
    return shown


@pytest.mark.parametrize(("chat", "end"), [(True, "\n"), (False, "")])
def test_chain_contexts(chain, chat, end):
    prompts = ExposedPrompts(chain, 64, SHORT, chat=chat)
    behind = "\\boxed{4}\n#\na=3,b=+8,c=*4?" + end
    assert texts(chain, pieces(prompts, CHAIN_EXAMPLE), (0, 0.49, 0.5, 0.99, 1)) == [
        "R:" + behind,
        "R:" + behind,
        "R:b=3+8=1.\n\n" + behind,
        "R:b=3+8=1.\n\n" + behind,
        "R:b=3+8=1.\n\nc=1*4=4.\n\n" + behind,
    ]
    by_token = ExposedPrompts(chain, 64, SHORT, "token", chat)
    assert texts(chain, pieces(by_token, CHAIN_EXAMPLE), (0.49,)) == ["R:b=3+8=1.\n" + behind]


def test_whole_chain_references_are_told_as_they_are_written(chain):
    prompts = ExposedPrompts(chain, 256, SHORT, chat=False)
    for example in list(ChainSource("validation", size=8, style="both")):
        row = pieces(prompts, example)
        assert row.had_answer and not row.empty and not row.overlong
        assert chain.decode([*row.reasoning, *row.answer]) == example.reference
        expected = SHORT.replace("{reference}", example.reference).replace(
            "{problem}", example.problem
        )
        assert texts(chain, row, (1.0,)) == [expected]


def test_flags_of_odd_references(chain):
    prompts = ExposedPrompts(chain, 12, SHORT)
    empty = prompts("a=3?", "", "3")
    assert (empty.reasoning, empty.empty, empty.had_answer) == ((), True, False)
    assert texts(chain, empty)[0] == "R:\\boxed{3}\n#\na=3?\n"
    long = pieces(prompts, CHAIN_EXAMPLE)
    assert long.overlong and chain.decode(long.reasoning) == "b=3+8=1.\n\n"
    with pytest.raises(ValueError, match=r"cannot write \['é'\]"):
        prompts("a=3?", "é", "3")


def test_places_in_a_problem_are_left_alone(chain):
    example = Example("3", "a {reference} {problem}?", "b.", "3", "chain")
    template = "{problem}|{reference}|{problem}"
    row = pieces(ExposedPrompts(chain, 9, template, chat=False), example)
    assert texts(chain, row, (1.0,)) == [
        "a {reference} {problem}?|b.\n\\boxed{3}|a {reference} {problem}?"
    ]


def test_beginning_of_text_is_written_once(chain, tmp_path):
    chain.save_pretrained(str(tmp_path))
    config = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"bos_token": PAD}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    fields = json.loads((tmp_path / "tokenizer.json").read_text())
    fields["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": PAD, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {PAD: {"id": PAD, "ids": [96], "tokens": [PAD]}},
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(fields))
    (tmp_path / "chat_template.jinja").write_text(
        "{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}"
    )
    tokenizer = load_tokenizer(tmp_path)
    rendered = SHORT.replace("{reference}", "x.\n\\boxed{3}").replace("{problem}", "a?")
    for chat, end in ((True, EOS), (False, "")):
        row = ExposedPrompts(tokenizer, 9, SHORT, chat=chat)("a?", "x.", "3")
        assert texts(tokenizer, row, (1.0,)) == [PAD + rendered + end]
        assert [*row.head, *row.reasoning, *row.answer, *row.tail].count(96) == 1


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{reference}", r"exposure\.template=.*does not contain '\{problem\}'"),
        ("{problem}", r"exposure\.template=.*'\{reference\}' 0 times"),
        ("{problem}{reference}{reference}", r"exposure\.template=.*'\{reference\}' 2 times"),
    ],
)
def test_templates_are_checked(chain, template, message):
    with pytest.raises(ValueError, match=message):
        ExposedPrompts(chain, 9, template)


def test_chat_templates_are_checked():
    tokenizer = build_chain_tokenizer()
    for chat_template, fault in (
        ("no message", "leaves out what the user says"),
        ("{{ messages[0]['content'] * 2 }}", "shows the message 2 times"),
    ):
        tokenizer.chat_template = chat_template
        with pytest.raises(ValueError, match=fault):
            pieces(ExposedPrompts(tokenizer, 9, SHORT), CHAIN_EXAMPLE)
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        ExposedPrompts(tokenizer, 9, SHORT)
    ExposedPrompts(tokenizer, 9, SHORT, chat=False)


def test_ends_of_tokens(qwen):
    text = "Say “hi”. Ünïcode 🙂.\n\n  Then x = 3.14\n"
    ids, ends = encode_with_ends(qwen, text)
    assert ends == sorted(ends) and ends[-1] == len(text)
    for i, end in enumerate(ends, 1):
        if end < [*ends[i:], len(text) + 1][0]:
            assert qwen.decode(ids[:i]) == text[:end]


def test_qwen_contexts_of_gsm8k(qwen):
    if not GSM8K.is_file():
        pytest.skip("needs GSM8K beside the repository")
    prompts = ExposedPrompts(qwen, 512, thinking="off")
    for example in load_source({"name": str(GSM8K), "size": 8}):
        row = pieces(prompts, example)
        assert row.had_answer and not row.overlong
        lines = example.reference.splitlines(keepends=True)
        reasoning = "".join(lines[:-1])
        whole = DEFAULT_TEMPLATE.replace("{problem}", example.problem)

        def rendered(kept, whole=whole, answer=lines[-1]):
            message = whole.replace("{reference}", kept + answer)
            return (
                f"<|im_start|>user\n{message}<|im_end|>\n"
                "<|im_start|>assistant\n<think>\n\n</think>\n\n"
            )

        nothing, half, all_of_it = texts(qwen, row)
        assert nothing == rendered("")
        assert all_of_it == rendered(reasoning)
        # Cut once, at the start or behind a sentence or line, never inside one.
        kept = [
            k for k in [0, *sentence_ends(reasoning)] if half == rendered(reasoning[:k].rstrip(" "))
        ]
        assert len(kept) == 1 and kept[0] < len(reasoning)
        assert [*row.head, *row.tail].count(qwen.convert_tokens_to_ids("<|im_start|>")) == 2
