"""Tokenizers: bytes of tokens, prompts, pairs; on the embedded, a sentencepiece-like and Qwen3's."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from experiments.pair.tokenizers import compare_tokenizers
from experiments.tasks.chain_tokenizer import EOS, PAD, build_chain_tokenizer, save_chain_tokenizer
from models.text.tokenizer import (
    decode,
    encode,
    eos_ids,
    load_tokenizer,
    render_prompt,
    token_bytes,
)

PRINTABLE = "".join(map(chr, range(0x20, 0x7F))) + "\n"


@pytest.fixture(scope="module")
def chain_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("chain")
    save_chain_tokenizer(path)
    return path


@pytest.fixture(scope="module")
def chain(chain_dir):
    return load_tokenizer(chain_dir)


@pytest.fixture(scope="module")
def qwen(qwen3_directory):
    return load_tokenizer(qwen3_directory)


@pytest.fixture(scope="module")
def sentencepiece():
    """Llama 2's kind: spaces as U+2581, bytes as <0xNN>, one leading space dropped in decoding."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for token in [*(f"<0x{b:02X}>" for b in range(256)), "▁", *"abc.", "▁a", "ab", "▁ab"]:
        vocab[token] = len(vocab)
    merges = [("▁", "a"), ("a", "b"), ("▁a", "b")]
    backend = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def test_chain_tokenizer_has_98_ids_one_per_character(chain):
    assert len(chain) == 98
    ids = encode(chain, PRINTABLE)
    assert sorted(ids) == list(range(96))
    assert decode(chain, ids) == PRINTABLE
    assert (chain.pad_token, chain.eos_token) == (PAD, EOS)


@settings(deadline=None)
@given(text=st.text(alphabet=PRINTABLE, max_size=300))
def test_chain_tokenizer_round_trip(text):
    tokenizer = build_chain_tokenizer()
    if PAD not in text and EOS not in text:
        ids = encode(tokenizer, text)
        assert len(ids) == len(text)
        assert decode(tokenizer, ids) == text


def test_chain_tokenizer_loads_like_any_other(chain_dir, chain):
    other = AutoTokenizer.from_pretrained(str(chain_dir))
    text = "b=3+8=1.\n\n\\boxed{1}"
    assert other.encode(text) == encode(chain, text)
    assert other.chat_template == chain.chat_template


def test_a_character_without_token_is_refused(chain):
    with pytest.raises(ValueError, match=r"cannot write \['\\t', 'é'\]"):
        encode(chain, "aé\tb")


def check_bytes(tokenizer, text):
    table = token_bytes(tokenizer, len(tokenizer) + 7)
    ids = encode(tokenizer, text)
    assert b"".join(table[i] for i in ids) == decode(tokenizer, ids).encode()
    assert table[len(tokenizer) :] == [b""] * 7


@settings(max_examples=50, deadline=None)
@given(text=st.text(alphabet="ab.\n\\{} 0", max_size=50))
def test_bytes_of_chain_tokens(text):
    check_bytes(build_chain_tokenizer(), text)


def test_bytes_of_qwen_tokens(qwen):
    for text in (
        "Hello wörld 你好 🙂\n\n x.\n\n\\boxed{3}   .\n\nHowever,",
        "<think>\nso\n</think>\n\n\x00\x7f",
    ):
        check_bytes(qwen, text)
    table = token_bytes(qwen, 151_936)
    assert table[qwen.eos_token_id] == b""
    # Every byte occurs as a token of its own, and no token without bytes but the special ones.
    assert {bytes([b]) for b in range(256)} <= set(table)
    assert sum(not b for b in table) == 151_936 - 151_669 + 14


@pytest.mark.parametrize("text", ["ab a abc.", "é ab🙂", "  a", ""])
def test_bytes_of_sentencepiece_tokens(sentencepiece, text):
    table = token_bytes(sentencepiece, len(sentencepiece))
    ids = encode(sentencepiece, text)
    joined = b"".join(table[i] for i in ids)
    assert joined.removeprefix(b" ") == decode(sentencepiece, ids).encode() == text.encode()
    assert table[:3] == [b""] * 3


def test_bytes_need_room_for_all_tokens(chain):
    with pytest.raises(ValueError, match="vocab_size is 90"):
        token_bytes(chain, 90)


def test_compare_accepts_equal_and_extended(chain):
    longer = build_chain_tokenizer()
    longer.add_tokens(["<think>"])
    assert compare_tokenizers(chain, build_chain_tokenizer()) == 98
    assert compare_tokenizers(longer, chain) == compare_tokenizers(chain, longer) == 98


def test_compare_lists_differing_ids(chain, sentencepiece):
    with pytest.raises(
        ValueError, match=r"98 of 98 ids .* 0: 'Ġ' / '<unk>', .* 93 more\n[\s\S]*one family"
    ):
        compare_tokenizers(chain, sentencepiece)


def test_compare_sees_special_tokens_and_eos(chain):
    other = build_chain_tokenizer()
    other.add_special_tokens({"additional_special_tokens": ["!"]})
    with pytest.raises(ValueError, match=r"only the student .* special: 1: '!'"):
        compare_tokenizers(chain, other)
    other = build_chain_tokenizer()
    other.eos_token = PAD
    with pytest.raises(ValueError, match=r"ends with '<\|im_end\|>' / '<\|endoftext\|>'"):
        compare_tokenizers(chain, other)


def merging(*pairs):
    """The chain tokenizer with one more token, and perhaps a rule that writes it."""
    backend = json.loads(build_chain_tokenizer().backend_tokenizer.to_str())
    backend["model"]["vocab"]["th"] = 98
    backend["model"]["merges"] = [list(pair) for pair in pairs]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)), eos_token=EOS, pad_token=PAD
    )


def test_compare_sees_that_the_same_tokens_are_cut_at_other_places():
    with pytest.raises(ValueError, match=r"cut into different tokens: .* / \['th'"):
        compare_tokenizers(merging(), merging(("t", "h")))
    assert compare_tokenizers(merging(("t", "h")), merging(("t", "h"))) == 99


def test_compare_reports_everything_at_once():
    other = merging(("t", "h"))
    other.add_special_tokens({"additional_special_tokens": ["!"]})
    other.eos_token = PAD
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - looked at below
        compare_tokenizers(merging(), other)
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["*"] * 3
    for part, line in zip(("special: 1: '!'", "cut into", "ends with"), lines[1:-1], strict=True):
        assert part in line


def test_compare_qwen_with_itself_in_another_format(qwen, qwen3_directory):
    assert compare_tokenizers(qwen, AutoTokenizer.from_pretrained(str(qwen3_directory))) == 151_669


def test_chain_prompt_is_the_problem_and_a_newline(chain):
    ids = render_prompt(chain, "a=3,b=+8?")
    assert decode(chain, ids) == "a=3,b=+8?\n"
    message = [{"role": "user", "content": "a=3,b=+8?"}]
    assert ids == chain.apply_chat_template(message, add_generation_prompt=True, return_dict=False)


def test_qwen_prompt(qwen):
    asked = "{problem}\nPut the answer in \\boxed{}."
    ids = render_prompt(qwen, "1+1?", prompt_format=asked, thinking="off")
    assert qwen.decode(ids) == (
        "<|im_start|>user\n1+1?\nPut the answer in \\boxed{}.<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    message = [{"role": "user", "content": "1+1?"}]
    direct = qwen.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    assert render_prompt(qwen, "1+1?") == direct


def test_prompt_without_template(chain, sentencepiece):
    with pytest.raises(ValueError, match="no chat template"):
        render_prompt(sentencepiece, "a")
    with pytest.raises(ValueError, match="prompt_format"):
        render_prompt(chain, "a", prompt_format="solve")
    ids = render_prompt(chain, "a=3?", chat=False, prompt_format="Q: {problem}\n")
    assert decode(chain, ids) == "Q: a=3?\n"


@pytest.mark.parametrize("adds_bos", [True, False])
def test_beginning_of_text_is_written_once(chain_dir, tmp_path, adds_bos):
    shutil.copytree(chain_dir, tmp_path, dirs_exist_ok=True)
    fields = json.loads((tmp_path / "tokenizer.json").read_text())
    if adds_bos:
        fields["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": PAD, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {PAD: {"id": PAD, "ids": [96], "tokens": [PAD]}},
        }  # fmt: skip
        (tmp_path / "tokenizer.json").write_text(json.dumps(fields))
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["bos_token"] = PAD
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    template = "{{ bos_token }}{{ messages[0]['content'] }}"
    (tmp_path / "chat_template.jinja").write_text(template)
    tokenizer = load_tokenizer(tmp_path)
    assert render_prompt(tokenizer, "a") == [96, 65]
    plain = [96, 65] if adds_bos else [65]
    assert render_prompt(tokenizer, "a", chat=False) == plain
    written = render_prompt(tokenizer, "a", chat=False, prompt_format=PAD + "{problem}")
    assert written == [96, 65]


def test_eos_ids_of_qwen(qwen, qwen3_directory):
    assert eos_ids(qwen, qwen3_directory) == (151645, 151643)


def test_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no directory"):
        load_tokenizer(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
