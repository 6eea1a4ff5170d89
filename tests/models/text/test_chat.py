"""Chat templates that fail, run on or leave something out; test_templates has those that do not."""

import json
import os
import re
import sys

import pytest

from experiments.tasks.chain_tokenizer import build_chain_tokenizer, save_chain_tokenizer
from models.text import load_tokenizer, render_prompt
from models.text.chat import MAX_LINES, MAX_SECONDS, chat_text

GOOD = "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}A:"


def with_template(template):
    tokenizer = build_chain_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


FAIL = {
    "{% for m in messages %}{{ m.content }}": "line 1, TemplateSyntaxError: Unexpected end of",
    "a\nb {{ messages[0].content ": "line 2, TemplateSyntaxError",
    "{{ raise_exception('no such role') }}": "TemplateError: no such role",
    "{{ messages[9].content.strip() }}": "UndefinedError",
    "{{ messages[0]['content'] + 3 }}": "TypeError",
    "{{ 1 / 0 }}": "ZeroDivisionError",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "RecursionError",
    "{{ ''.__class__.__mro__ }}{{ messages.append(1) }}": "SecurityError",
    "{% for i in range(9999999) %}{% endfor %}": "OverflowError: Range too big",
    "{% include 'config.json' %}": "TypeError",
    "{{ messages | nothing }}": "line 1, TemplateAssertionError: No filter named 'nothing'",
}


@pytest.mark.parametrize("template", list(FAIL))
def test_a_template_that_fails_is_named(template):
    with pytest.raises(ValueError, match="The chat template cannot be rendered: ") as raised:
        render_prompt(with_template(template), "1+1?")
    assert FAIL[template] in str(raised.value)
    assert "prompt.template" in str(raised.value)


LOOPS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{{ j }}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{% for i in range(99999) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endfor %}"
    "{% endmacro %}{{ f(50) }}",
    "{% set x = namespace(n=0) %}{% for i in range(99999) %}{% for j in range(99999) %}"
    "{% set x.n = x.n + 1 %}{% endfor %}{% endfor %}{{ messages[0].content }}",
]


@pytest.mark.parametrize("template", LOOPS)
def test_a_template_that_runs_on_is_stopped(template):
    traced = sys.gettrace()
    with pytest.raises(
        ValueError, match=f"still running after ({MAX_LINES:,} l|{MAX_SECONDS:.0f} s)"
    ):
        render_prompt(with_template(template), "1+1?")
    assert sys.gettrace() is traced
    # A loop of a length that one may have is none of our business.
    short = (
        "{% for i in range(9999) %}{% if i == 5 %}{{ messages[0].content }}{% endif %}{% endfor %}"
    )
    assert chat_text(with_template(short), [{"role": "user", "content": "1?"}]) == "1?"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a\n{{ 9 ** 9 ** 9 }}", "line 2, TemplateSyntaxError: powers are not supported"),
        ("{{ 'a' * 10 ** 10 }}", "powers are not supported"),
        ("{{ 'a' * 100000000000 }}", "100000000000 is too large a number"),
        ("{{ 'a' * 0xFFFFFFFFFF }}", "0xFFFFFFFFFF is too large a number"),
        ("{{ ('a' * 10000000) * 10000000 }}", "MemoryError"),
        ("{{ 'a' * 10000000 }}", "writes 10,000,000 characters"),
        pytest.param(
            "{% for i in range(9999) %}{{ range(99999) | sum }}{% endfor %}",
            f"still running after {MAX_SECONDS:.0f} seconds",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_template_that_fills_the_memory_or_the_day_is_stopped(template, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        render_prompt(with_template(template), "1+1?")


def test_a_long_problem_is_no_fault_of_the_template():
    problem = "1+" * 1_000_000
    assert (
        chat_text(with_template(GOOD), [{"role": "user", "content": problem}]).count("1+") == 10**6
    )


def test_what_is_asked_is_in_the_prompt():
    asked = {"role": "user", "content": "  1+1?\n"}
    brief = {"role": "system", "content": "Be brief."}
    assert chat_text(with_template(GOOD), [brief, asked]) == "system: Be brief.\nuser: 1+1?\nA:"
    for template in (
        "Hello.",
        "{{ messages[0].content[:2] }}",
        "{{ messages[0].content | upper }}x",
    ):
        with pytest.raises(ValueError, match="leaves out what the user says: '  ab1"):
            chat_text(with_template(template), [{"role": "user", "content": "  ab1+1?"}])
    for template in ("{{ messages[-1].content }}", "{{ messages[0].content }}"):
        with pytest.raises(ValueError, match=r"leaves out what the (user|system) says"):
            chat_text(with_template(template), [brief, asked])
    # Thinking of former answers may go, and nothing is easily left out.
    conversation = [asked, {"role": "assistant", "content": "<think>so</think>2"}, asked]
    users = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    assert chat_text(with_template(users), conversation) == "  1+1?\n" * 2
    assert chat_text(with_template(GOOD), [{"role": "user", "content": ""}]) == "user: \nA:"


def test_a_template_of_another_file_must_parse(tmp_path):
    save_chain_tokenizer(tmp_path)
    file = tmp_path / "mine.jinja"
    for content, message in (
        (b"{% if %}", r"Chat template '.*mine\.jinja', line 1: "),
        (b"a\n{% nothing %}", r"mine\.jinja', line 2: .*unknown tag 'nothing'"),
        (b"\xff\xfe", r"mine\.jinja is not UTF-8 text"),
        (b" \n", r"mine\.jinja is empty"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_tokenizer(tmp_path, str(file))
    # One that asks for more than the one message it is tried with is looked at when it is used.
    file.write_text("{{ raise_exception('a system message first') }}")
    tokenizer = load_tokenizer(tmp_path, str(file))
    with pytest.raises(ValueError, match=r"cannot be rendered.*a system message first"):
        render_prompt(tokenizer, "1+1?")
    file.write_text(LOOPS[0])
    load_tokenizer(tmp_path, str(file))
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ValueError, match="not a regular file"):
        load_tokenizer(tmp_path, str(file))


def tokenizer_config(directory, **changes):
    values = json.loads((directory / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(json.dumps(values | changes))


def test_where_templates_stand(tmp_path):
    save_chain_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    asked = [{"role": "user", "content": "1?"}]
    with pytest.raises(ValueError, match="has no chat template"):
        chat_text(load_tokenizer(tmp_path), asked)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "P " + GOOD}))
    assert chat_text(load_tokenizer(tmp_path), asked) == "P user: 1?\nA:"
    tokenizer_config(tmp_path, chat_template="C " + GOOD)
    assert chat_text(load_tokenizer(tmp_path), asked) == "C user: 1?\nA:"
    named = [{"name": n, "template": f"{n} " + GOOD} for n in ("tool_use", "default")]
    tokenizer_config(tmp_path, chat_template=named)
    assert chat_text(load_tokenizer(tmp_path), asked) == "default user: 1?\nA:"
    tokenizer_config(tmp_path, chat_template=named[:1])
    with pytest.raises(ValueError, match=rf"template of {tmp_path} cannot be rendered.*tool_use"):
        chat_text(load_tokenizer(tmp_path), asked)
    (tmp_path / "chat_template.jinja").write_text("F " + GOOD)
    assert chat_text(load_tokenizer(tmp_path), asked) == "F user: 1?\nA:"
    (tmp_path / "chat_template.jinja").unlink()
    for wrong in (5, [5], ["a"], [{"name": "default"}], {"default": 3}, True):
        tokenizer_config(tmp_path, chat_template=wrong)
        with pytest.raises(ValueError, match=rf"{tmp_path}/tokenizer_config\.json"):
            load_tokenizer(tmp_path)
