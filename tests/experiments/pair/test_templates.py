"""Chat templates: equal to transformers' own rendering, thinking by role, exact boundaries."""

from __future__ import annotations

import itertools
import json
import shutil

import pytest
from transformers import AutoTokenizer

from atesd.prompts import ExposedPrompts
from configs import atesd, motab
from experiments.config.read import read_config
from experiments.evaluate import measure as measure_module
from experiments.methods import make_recipe
from experiments.pair.model import Model
from experiments.pair.pair import load_pair
from experiments.tasks.chain_tokenizer import EOS, build_chain_tokenizer
from experiments.tasks.example import Example
from models.embedded import model_directory
from models.text.tokenizer import (
    chat_text,
    decode,
    encode,
    encode_response,
    load_tokenizer,
    opens_thinking,
    read_template,
    render_prompt,
)

# A small tokenizer with a template like Qwen3's: special tokens, and a switch for thinking.
SMALL_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_end|>' if not loop.first }}{{ m.role }}: {{ m.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}A:{% if enable_thinking is defined and not "
    "enable_thinking %}<think></think>{% endif %}{% endif %}"
)
CONVERSATIONS = [
    [{"role": "user", "content": "1+1?"}],
    [{"role": "user", "content": "  Leading, trailing  \n\n"}],
    [{"role": "user", "content": "Find $\\frac{1}{2}$ of \\[x^{2}\\].\n\nPut it in \\boxed{}."}],
    [{"role": "user", "content": "<think>not mine</think> {problem} {{ braces }} {% raw %}"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
    [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "<think>\n2 and 2\n</think>\n\nIt is 4."},
        {"role": "user", "content": "And 3+3?"},
    ],
]
FOREIGN = [
    [{"role": "user", "content": "Größe 你好 🙂 e\u0301 \u00a0 \r\n\t"}],
    [{"role": "user", "content": "Ends <|im_end|> here <|endoftext|>"}],
]


@pytest.fixture(scope="module")
def small():
    tokenizer = build_chain_tokenizer()
    tokenizer.chat_template = SMALL_TEMPLATE
    return tokenizer


@pytest.fixture(scope="module")
def qwen(qwen3_directory):
    return load_tokenizer(qwen3_directory)


def check(ours, theirs, conversation, thinking):
    switch = {} if thinking == "default" else {"enable_thinking": thinking == "on"}
    text = chat_text(ours, conversation, thinking)
    expected = theirs.apply_chat_template(
        conversation, tokenize=False, add_generation_prompt=True, **switch
    )
    assert text.encode() == expected.encode()
    assert encode(ours, text) == theirs.apply_chat_template(
        conversation, add_generation_prompt=True, return_dict=False, **switch
    )


@pytest.mark.parametrize("thinking", ["default", "on", "off"])
def test_small_conversations_are_those_of_transformers(small, tmp_path, thinking):
    small.save_pretrained(str(tmp_path))
    theirs = AutoTokenizer.from_pretrained(str(tmp_path))
    for conversation in CONVERSATIONS:
        check(small, theirs, conversation, thinking)


@pytest.mark.parametrize("thinking", ["default", "on", "off"])
def test_qwen_conversations_are_those_of_transformers(qwen, qwen3_directory, thinking):
    theirs = AutoTokenizer.from_pretrained(str(qwen3_directory))
    for conversation in [*CONVERSATIONS, *FOREIGN]:
        check(qwen, theirs, conversation, thinking)


def test_qwen_text_is_what_its_template_says(qwen):
    [asked] = CONVERSATIONS[2]
    before = f"<|im_start|>user\n{asked['content']}<|im_end|>\n<|im_start|>assistant\n"
    assert chat_text(qwen, [asked], "on") == chat_text(qwen, [asked]) == before
    assert chat_text(qwen, [asked], "off") == before + "<think>\n\n</think>\n\n"
    ids = render_prompt(qwen, "Why?", system="Be brief.", thinking="off")
    assert qwen.decode(ids) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert [ids.count(qwen.convert_tokens_to_ids(t)) for t in ("<|im_start|>", "<think>")] == [3, 1]


@pytest.mark.parametrize("thinking", ["on", "off"])
def test_the_first_token_of_a_response_begins_where_the_prompt_ends(qwen, thinking):
    prompt = render_prompt(qwen, "1+1?", thinking=thinking)
    for response in ("It is 2.", "\n\nIt is", " 2", "<think>\nso\n</think>\n\n2", "👍", "\n"):
        ids = [*prompt, *encode(qwen, response)]
        assert decode(qwen, ids[len(prompt) :]) == response
        # Joined by ids: written as one text, line ends on both sides would become one token.
        assert qwen.decode(ids) == qwen.decode(prompt) + response
    joined = encode(qwen, qwen.decode(prompt) + "\n\nIt is")
    assert joined != [*prompt, *encode(qwen, "\n\nIt is")]


def test_a_thinking_reference_behind_a_prompt_that_thinks():
    opening, closing = build_chain_tokenizer(), build_chain_tokenizer()
    opening.chat_template = "{{ messages[0].content }}:<think>\n"
    closing.chat_template = "{{ messages[0].content }}:<think>\n\n</think>\n\n"
    reference = "<think>\nso\n</think>\n2"
    prompt = render_prompt(opening, "1+1?")
    ids = [*prompt, *encode_response(opening, prompt, reference)]
    assert decode(opening, ids) == "1+1?:<think>\nso\n</think>\n2"
    assert encode_response(opening, prompt, "so") == encode(opening, "so")
    assert encode_response(opening, prompt, " \n" + reference) == ids[len(prompt) :]
    prompt = render_prompt(closing, "1+1?")
    assert encode_response(closing, prompt, "2") == encode(closing, "2")
    for spaces in ("", "\n ", "\t"):
        with pytest.raises(ValueError, match=r"set student\.thinking='on'"):
            encode_response(closing, prompt, spaces + reference)
    plain = build_chain_tokenizer()
    prompt = render_prompt(plain, "1+1?")
    assert decode(plain, encode_response(plain, prompt, reference)) == reference


@pytest.fixture
def template(tmp_path):
    file = tmp_path / "small.jinja"
    file.write_text(SMALL_TEMPLATE)
    return str(file)


def test_motab_wants_one_prompt_for_both(template, monkeypatch):
    config = motab.get_config("smoke")
    config.prompt.template, config.prompt.system = template, "Brief."
    config.student.thinking, config.teacher.thinking = "off", "on"
    pair = load_pair(read_config(config))
    off, on = (pair.tokenizer.decode(render("1")) for render in (pair.render, pair.teacher_render))
    assert off == on + "<think></think>" == "system: Brief.\n<|im_end|>user: 1\nA:<think></think>"
    with pytest.raises(
        ValueError, match=r"(?s)same prompt.*student: .*<think></think>'.*teacher: "
    ):
        make_recipe(read_config(config), pair)
    # Each is evaluated as it is asked by itself.
    asked = []
    monkeypatch.setattr(
        measure_module, "evaluate", lambda *_, render, **__: asked.append(render("1"))
    )
    for as_teacher in (False, True):
        model = Model({}, pair.student_config)
        measure_module.measure(read_config(config), pair, model, [], as_teacher=as_teacher)
    assert asked == [pair.render("1"), pair.teacher_render("1")]
    config.teacher.thinking = "off"
    assert make_recipe(read_config(config), load_pair(read_config(config))).pair.render(
        "1"
    ) == pair.render("1")


def test_prompts_that_look_alike_do_not_hide_that_one_model_thinks(tmp_path):
    """Qwen3-32B and an Instruct-2507 student: alike at the default, but one expects <think> first."""
    teacher = tmp_path / "teacher"
    shutil.copytree(model_directory("embedded:teacher"), teacher)
    own = load_tokenizer(teacher).chat_template
    switch = "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    (teacher / "chat_template.jinja").write_text(own + switch)
    config = motab.get_config("smoke")
    config.teacher.path = str(teacher)
    pair = load_pair(read_config(config))
    assert pair.render("1") == pair.teacher_render("1")
    assert pair.thinking_switches == (False, True)
    with pytest.raises(
        ValueError,
        match=r"teacher's chat template has a switch .*the student's has none.*prompt\.template",
    ):
        make_recipe(read_config(config), pair)
    # The teacher's directory names the one template, and both are told the same.
    config.prompt.template = str(teacher)
    config.student.thinking = config.teacher.thinking = "off"
    pair = make_recipe(read_config(config), load_pair(read_config(config))).pair
    assert decode(pair.tokenizer, pair.render("1")).endswith("<think></think>")
    assert read_template(teacher) == own + switch


def test_atesds_student_and_teacher_may_differ(template):
    config = atesd.get_config("fixed-smoke")
    config.prompt.template, config.exposure.probe_size = template, 0
    config.student.thinking, config.exposure.thinking = "off", "on"
    recipe = make_recipe(read_config(config), load_pair(read_config(config)))
    tokenizer = recipe.pair.tokenizer
    assert decode(tokenizer, recipe.pair.render("1")).endswith("A:<think></think>")
    row = recipe._prompts("1+1?", "It is 2.\n\\boxed{2}", "2")
    assert decode(tokenizer, row.tail).endswith("1+1?\nA:")
    config.exposure.thinking = "off"
    row = make_recipe(read_config(config), load_pair(read_config(config)))._prompts(
        "1?", "\\boxed{1}", "1"
    )
    assert decode(tokenizer, row.tail).endswith("1?\nA:<think></think>")


def test_a_switch_that_a_template_lacks_is_refused(small):
    chain = build_chain_tokenizer()
    assert render_prompt(chain, "a?") == render_prompt(chain, "a?", thinking="default")
    with pytest.raises(ValueError, match=r"thinking='on'.*reads none of enable_thinking"):
        render_prompt(chain, "a?", thinking="on")
    with pytest.raises(ValueError, match="choose one of default, on, off"):
        render_prompt(small, "a?", thinking="yes")
    for options in ({"system": "Brief."}, {"thinking": "off"}):
        with pytest.raises(ValueError, match="need a chat template, and chat is off"):
            render_prompt(small, "a?", chat=False, **options)


def test_a_template_of_another_file_takes_the_models_place(tmp_path):
    directory = model_directory("embedded:student")
    file = tmp_path / "mine.jinja"
    file.write_text("Q {{ messages[0].content }} A")
    tokenizer = load_tokenizer(directory, str(file))
    assert decode(tokenizer, render_prompt(tokenizer, "1+1?")) == "Q 1+1? A"
    with pytest.raises(FileNotFoundError, match=r"none\.jinja.*no such file"):
        load_tokenizer(directory, str(tmp_path / "none.jinja"))


def test_a_prompt_that_opens_the_thinking_is_seen(small):
    opening = build_chain_tokenizer()
    opening.chat_template = "{{ messages[0].content }}<|im_end|>A:<think>\n"
    assert opens_thinking(opening, render_prompt(opening, "1?"))
    assert not opens_thinking(small, render_prompt(small, "1? <think> is a tag"))
    assert not opens_thinking(small, render_prompt(small, "1?", thinking="off"))


def test_contexts_of_a_teacher_may_think_while_the_student_does_not(small):
    example = Example("0", "1+1?", "It is 2.\n\\boxed{2}", "2", "")
    template = "{problem} {reference}"
    tails = {
        thinking: ExposedPrompts(small, 32, template, system="Brief.", thinking=thinking)(
            example.problem, example.reference, example.answer
        )
        for thinking in ("on", "off")
    }
    on, off = (decode(small, tails[thinking].tail) for thinking in ("on", "off"))
    assert off == on + "<think></think>"
    # The special token that the template writes between the messages is there once.
    eos = small.convert_tokens_to_ids(EOS)
    assert list(tails["on"].head).count(eos) == 1
    assert small.decode(list(tails["on"].head)).startswith("system: Brief.\n<|im_end|>user: 1+1?")


def test_named_templates_and_their_switches(small, tmp_path):
    """Some directories hold several templates; the one called default is used."""
    small.save_pretrained(str(tmp_path))
    (tmp_path / "chat_template.jinja").unlink()
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["chat_template"] = [
        {"name": "default", "template": SMALL_TEMPLATE},
        {"name": "tool_use", "template": "tools"},
    ]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(tmp_path)
    for conversation, thinking in itertools.product(CONVERSATIONS[:2], ("default", "off")):
        assert chat_text(tokenizer, conversation, thinking) == chat_text(
            small, conversation, thinking
        )
