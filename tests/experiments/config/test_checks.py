"""A config is read before anything is made: unknown fields, types, ranges, and what goes together."""

from __future__ import annotations

import importlib
import math

import pytest
from ml_collections import ConfigDict

from configs import atesd, gkd, grpo, imitkd, kd, motab, opd, opsd, pretrain, rft, sft, skd, topd
from experiments.config.read import read_config
from experiments.config.sections import RuleSettings
from experiments.config.tree import METHODS
from experiments.train.loop import run
from models.sharding import DEFAULT_RULES

ARMS = (atesd, gkd, grpo, imitkd, kd, motab, opd, opsd, rft, sft, skd, topd)
VARIANTS = [
    (module, arg)
    for module in (*ARMS, pretrain)
    for arg in (pretrain.ROLES if module is pretrain else module.ARGUMENTS)
]


@pytest.mark.parametrize(("module", "arg"), VARIANTS)
def test_every_config_of_ours_is_read(module, arg):
    config = module.get_config(arg)
    tree = read_config(config)
    assert type(tree) is METHODS[config.method]
    assert (tree.seed, tree.steps) == (config.seed, config.steps)
    # As what config.json holds.
    assert read_config(config.to_dict()) == tree


def changed(path: str, value, config: ConfigDict | None = None) -> ConfigDict:
    """A config with another value, or a new field, at a dotted path."""
    config = motab.get_config() if config is None else config
    config = ConfigDict(config.to_dict(), type_safe=False)
    *parents, name = path.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[name] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("stepz", 3, r"^stepz: there is no such field; .* The nearest is steps\.$"),
        ("student.zzz", 1, r"^student\.zzz: there is no such field; there are path, "),
        ("checkpoint.evry", 1, r"^checkpoint\.evry: .* The nearest is checkpoint\.every\.$"),
        ("student.lora.rnk", 4, r"The nearest is student\.lora\.rank\.$"),
        ("student.rules.hedas", (), r"The nearest is student\.rules\.heads\.$"),
        ("data.train.filter.uniq", True, r"The nearest is data\.train\.filter\.unique\.$"),
        ("data.trian", {"name": "chain/train"}, r"The nearest is data\.train\.$"),
        ("motab.gama_0", 0.3, r"The nearest is motab\.gamma_0\.$"),
        ("windows", {}, r"^windows: method='motab' reads no such section; topd would"),
        ("method", 3, r"^method=3: choose one of"),
        ("method", ["motab"], r"^method=\['motab'\]: choose one of"),
        ("method", "motabb", r"^method='motabb': choose one of"),
        ("steps", "many", r"^steps='many' must be a whole number"),
        ("steps", 2.5, r"^steps=2\.5 must be a whole number"),
        ("steps", True, r"^steps=True must be a whole number"),
        ("steps", 0, r"^steps=0 must be at least 1"),
        ("batch_size", 0, r"^batch_size=0 must be at least 1"),
        ("seed", -1, r"^seed=-1 must lie in \[0, 4294967295\]"),
        ("seed", 2**70, r"^seed=\d+ must lie in \[0, "),
        ("stop_after_skipped", 0, r"^stop_after_skipped=0 must be at least 1"),
        ("student", "embedded:student", r"^student='embedded:student' must be a section"),
        ("student.path", 3, r"^student\.path=3 must be a string"),
        ("student.path", "", r"^student\.path is empty"),
        ("student.dtype", "float31", r"^student\.dtype='float31': choose one of"),
        ("student.thinking", "maybe", r"^student\.thinking='maybe': choose one of"),
        ("student.remat", "some", r"^student\.remat='some': choose one of"),
        ("student.rules.mlp", ("gpu",), r"^student\.rules\.mlp=\('gpu',\): list some of"),
        ("student.lora.rank", -1, r"^student\.lora\.rank=-1 must be"),
        ("student.lora", {"rank": 2, "alpha": 1.0, "targets": ["w"]}, r"^student\.lora\.targets="),
        ("teacher.attention", "slow", r"^teacher\.attention='slow': choose one of"),
        ("teacher.remat", "dots", r"^teacher\.remat: there is no such field"),
        ("mesh.fsdp", 0, r"^mesh\.fsdp=0 must be at least 1, or -1"),
        ("mesh.fsdp", -1, r"^mesh=.* only one of them may be -1"),
        ("prompt.chat", "yes", r"^prompt\.chat='yes' must be True or False"),
        ("prompt.format", "Solve it.", r"^prompt\.format='Solve it\.' does not contain"),
        ("prompt.max_tokens", 0, r"^prompt\.max_tokens=0 must be at least 1"),
        ("evaluation.top_p", "1", r"^evaluation\.top_p='1' must be a number"),
        ("evaluation.top_p", 2.0, r"^evaluation\.top_p=2\.0 must lie in \(0, 1\]"),
        ("evaluation.top_p", 0.0, r"^evaluation\.top_p=0\.0 must lie in \(0, 1\]"),
        ("evaluation.temperature", -0.1, r"^evaluation\.temperature=-0\.1 must be"),
        ("evaluation.temperature", math.nan, r"^evaluation\.temperature=nan must be"),
        ("evaluation.temperature", math.inf, r"^evaluation\.temperature=inf must be finite"),
        ("evaluation.samples", 0, r"^evaluation\.samples=0 must be at least 1"),
        ("evaluation.batch_size", 0, r"^evaluation\.batch_size=0 must be at least 1"),
        ("checkpoint.every", 0, r"^checkpoint\.every=0 must be at least 1"),
        ("checkpoint.max_to_keep", 0, r"^checkpoint\.max_to_keep=0 must be at least 1"),
        ("samples.every", -1, r"^samples\.every=-1 must be at least 0"),
        ("profile.first", 0, r"^profile\.first=0 must be at least 1"),
        ("tracking.wandb", "on", r"^tracking\.wandb='on': choose one of"),
        ("data.train.name", None, r"^data\.train\.name=None must be a string"),
        ("data.train.name", "", r"^data\.train\.name is empty"),
        ("data.test.size", -1, r"^data\.test\.size=-1 must be"),
        ("data.test.on_error", "panic", r"^data\.test\.on_error='panic': choose one of"),
        ("data.train.fields.problm", "q", r"The nearest is data\.train\.fields\.problem\.$"),
        ("data.train.filter.overlap", 0.0, r"^data\.train\.filter\.overlap=0\.0 must lie in"),
        (
            "data.train.filter.against",
            "aime24",
            r"^data\.train\.filter\.against='aime24' must be a",
        ),
        ("data.train.filter.where", "level", r"^data\.train\.filter\.where='level' must be of the"),
        ("motab.gamma_0", 5.0, r"^motab\.gamma_0=5\.0 must lie in \[0, 1\]"),
        ("motab.gamma_0", math.nan, r"^motab\.gamma_0=nan must"),
        ("motab.delimiter", "", r"^motab\.delimiter is empty"),
        (
            "optimizer.micro_batches",
            5,
            r"^optimizer\.micro_batches=5 does not divide batch_size=32",
        ),
        ("optimizer.learning_rate", math.nan, r"^optimizer\.learning_rate=nan must"),
        ("synthesis.mode", "sometimes", r"^synthesis\.mode='sometimes': choose one of"),
        ("synthesis.slots", -1, r"^synthesis\.slots=-1 must be"),
        ("synthesis.trajectories", 8, r"^synthesis\.trajectories=8 is less than one round of 32"),
        ("synthesis.cache_teacher", True, r"^synthesis\.cache_teacher=True, but the loss asks"),
    ],
)
def test_a_bad_field_is_named_before_anything_is_made(path, value, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(changed(path, value), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["seed", "method", "steps", "student", "data", "motab"])
def test_a_missing_field_is_named(name):
    config = ConfigDict(motab.get_config().to_dict())
    del config[name]
    with pytest.raises(ValueError, match=rf"^{name} is missing\."):
        read_config(config)


def test_a_missing_field_of_a_section_is_named():
    config = atesd.get_config()
    del config.exposure["max_tail"]
    with pytest.raises(ValueError, match=r"^exposure\.max_tail is missing\."):
        read_config(config)


def test_what_is_not_a_mapping_is_no_config():
    with pytest.raises(ValueError, match=r"config=\[\] must be a section"):
        read_config([])  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, 2**31, 2**32 - 1])
def test_seeds_are_what_keys_tell_apart(value):
    assert read_config(changed("seed", value)).seed == value


def together(name: str, arg: str = "", **sections) -> ConfigDict:
    """A config with other values by section; None removes a section."""
    config = ConfigDict(
        importlib.import_module(f"configs.{name}").get_config(arg).to_dict(), type_safe=False
    )
    for section, values in sections.items():
        if values is None:
            del config[section]
        elif isinstance(values, dict) and section in config:
            config[section].update(values)
        else:
            config[section] = values
    return config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            together("motab", "online", steps=50),
            r"synthesis\.sync_every=50 with steps=50: .* never",
        ),
        (
            together("grpo", synthesis={"sync_every": 200}),
            r"synthesis\.sync_every=200 with steps=200",
        ),
        (together("motab", teacher=None), r"method='motab' needs a teacher: set teacher\.path"),
        (together("topd", teacher=None), r"method='topd' needs a teacher"),
        (together("opd", teacher=None), r"rollout\.policy='student' .* needs a teacher"),
        (together("grpo", batch_size=30), r"batch_size=30 is not a multiple of .*_per_prompt=8"),
        (
            together("grpo", synthesis={"trajectories_per_prompt": 1}),
            r"trajectories_per_prompt=1 with",
        ),
        (
            together("grpo", synthesis={"mode": "offline"}),
            r"synthesis\.mode='offline' with method='grpo'",
        ),
        (
            together("atesd", synthesis={"mode": "offline"}),
            r"synthesis\.mode='offline' with method='at",
        ),
        (
            together("topd", synthesis={"mode": "offline"}),
            r"synthesis\.mode='offline' with method='topd'",
        ),
        (
            together("opd", synthesis={"mode": "offline"}),
            r"synthesis\.mode='offline' with rollout\.pol",
        ),
        (
            together("rft", synthesis={"mode": "online"}),
            r"synthesis\.mode='online' with rollout\.policy",
        ),
        (
            together("sft", signal={"divergence": "jsd"}),
            r"signal: rollout\.loss='likelihood' reads no",
        ),
        (together("opd", signal=None), r"signal is missing: rollout\.loss='divergence'"),
        (
            together("opd", rollout={"delimiter": "."}),
            r"rollout\.delimiter: rollout\.policy='student' do",
        ),
        (
            together("opd", rollout={"student_top_p": 1.5}),
            r"rollout\.student_top_p=1\.5 must lie in",
        ),
        (
            together("gkd", rollout={"on_policy_share": 2.0}),
            r"rollout\.on_policy_share=2\.0 must lie in",
        ),
        (
            together("opd", rollout={"loss": "likelihood"}, signal=None),
            r"rollout\.loss='likelihood' wi",
        ),
        (
            together("opd", "sampled", rollout={"student_top_p": 0.9}),
            r"student_top_p=0\.9 with signal",
        ),
        (
            together("opd", "sampled", synthesis={"sync_every": 2}),
            r"synthesis\.sync_every=2 with signal",
        ),
        (
            together("atesd", exposed={"weights": "ema"}, teacher={"path": "x"}),
            r"exposed\.weights='ema'",
        ),
        (
            together("atesd", exposure={"probe_size": 0}),
            r"exposure\.probe_size=0 with controller\.poli",
        ),
        (
            together("atesd", exposure={"template": "{problem}"}),
            r"exposure\.template='\{problem\}'",
        ),
        (together("atesd", data={"validation": {"name": ""}}), r"data\.validation\.name is empty"),
        (
            together("topd", guidance={"buffer": 20}, windows={"low_rows": 0}),
            r"guidance\.buffer=20 holds",
        ),
        (
            together("topd", windows={"per_rollout": 500}),
            r"windows\.per_rollout=500 with rollout\.max_t",
        ),
        (
            together("pretrain", "student", student={"path": "x"}),
            r"student\.path='x' with student\.init",
        ),
        (
            together("pretrain", "student", student={"tokenizer": ""}),
            r"student\.tokenizer is empty",
        ),
        (
            together("sft", student={"tokenizer": "x"}),
            r"student\.tokenizer='x' without student\.init",
        ),
    ],
)
def test_fields_that_do_not_go_together_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        read_config(config)


def test_an_architecture_says_nothing_that_the_student_says():
    config = pretrain.get_config("student")
    config.student.init["dtype"] = "bfloat16"
    with pytest.raises(ValueError, match=r"student\.init\.dtype is no part .* Set student\.dtype"):
        read_config(config)


def test_fresh_weights_at_every_update_need_no_second_update():
    assert read_config(together("opd", steps=1)).steps == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": ("model",)}, r"rules\.heads=\('model',\): list some of the mesh axes"),
        ({"heads": "tensor"}, r"rules\.heads='tensor': list some"),
        ({"mlp": ("tensor", "tensor")}, r"rules\.mlp=.*named twice"),
        ({"batch": ("data",)}, "batch"),
    ],
)
def test_a_wrong_table_of_rules_is_refused(changes, message):
    assert RuleSettings().table("rules") == DEFAULT_RULES
    with pytest.raises((ValueError, TypeError), match=message):
        RuleSettings(**changes)
