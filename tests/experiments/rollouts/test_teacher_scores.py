"""Offline training on kept teacher scores: the same run, and refusals of foreign scores."""

from __future__ import annotations

import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

from configs import kd as kd_config
from configs import sft as sft_config
from experiments.checkpoints.checkpoints import restore_params
from experiments.config.read import read_config
from experiments.methods import make_recipe
from experiments.pair.pair import load_pair
from experiments.rollouts.synthesis import SYNTHESIS
from experiments.rollouts.trajectory_batches import TrajectoryBatches
from experiments.train.loop import run
from experiments.workdir.workdir import read_log

BATCH, TRAJECTORIES = 10, 20


def small(module=kd_config, **sections) -> ConfigDict:
    config = module.get_config("smoke")
    config.steps, config.batch_size = 3, BATCH
    config.data.train.size = 16
    for name in ("validation", "test", "long"):
        config.data[name].name = ""
    config.rollout.max_total = 64
    config.synthesis.trajectories = TRAJECTORIES
    config.checkpoint.update({"every": 3, "keep_best": False})
    config.samples.every = 0
    for section, values in sections.items():
        config[section].update(values)
    return config


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("kept") / "run"
    run(small(), workdir)
    return workdir


def scores(workdir):
    return sorted((workdir / f"{SYNTHESIS}.teacher").iterdir())


def open_batches(file, **sections):
    config = small(**sections)
    config.synthesis.file = str(file)
    return TrajectoryBatches(
        read_config(config), make_recipe(read_config(config), load_pair(read_config(config))), file
    )


@pytest.mark.slow
def test_a_run_on_kept_scores_is_the_run_with_the_teacher(kept, tmp_path):
    live = small(synthesis={"cache_teacher": False, "file": str(kept / SYNTHESIS)})
    run(live, tmp_path / "live")
    assert len(scores(kept)) == TRAJECTORIES // BATCH
    logs = [
        [r for r in read_log(w / "metrics.jsonl") if r["kind"] == "train"]
        for w in (kept, tmp_path / "live")
    ]
    for ours, theirs in zip(*logs, strict=True):
        for name in ("loss", "divergence", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name
    ours, theirs = (
        restore_params(w / "checkpoints", "final")[0] for w in (kept, tmp_path / "live")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, theirs)


def test_scores_lie_where_their_tokens_do(kept):
    """Packed or not, in whatever order the stream draws them."""
    found = {}
    for pack_to in (0, 256):
        batches = open_batches(kept / SYNTHESIS, synthesis={"pack_to": pack_to})
        t = next(batches)["trajectories"]
        s = t.teacher_scores
        assert s.ids_BxTxK.shape == (*t.tokens_BxT.shape, 32)
        for row in range(len(t.tokens_BxT)):
            for number in range(1, t.segment_ids_BxT[row].max() + 1):
                here = t.segment_ids_BxT[row] == number
                key = tuple(t.tokens_BxT[row][here])
                # The teacher wrote the text: it finds it likely.
                assert np.mean(s.sampled_BxT[row][here][30:]) > -1.5
                assert (np.exp(s.log_probs_BxTxK[row][here]).sum(-1)[1:] > 0.5).all()
                value = s.sampled_BxT[row][here].tolist()
                assert found.setdefault(key, value) == value
    assert len(found) >= BATCH


def test_what_an_interruption_left_out_is_computed(kept, tmp_path):
    shutil.copytree(kept, tmp_path / "run")
    files = scores(tmp_path / "run")
    whole = load_file(files[1])
    files[1].unlink()
    before = files[0].stat().st_mtime_ns
    open_batches(tmp_path / "run" / SYNTHESIS)
    again = load_file(files[1])
    assert all(np.array_equal(again[name], whole[name]) for name in whole)
    assert files[0].stat().st_mtime_ns == before


def test_batches_of_any_size_give_the_same_scores(kept, tmp_path):
    file = tmp_path / SYNTHESIS
    shutil.copy(kept / SYNTHESIS, file)
    config = small()
    config.batch_size = 8  # the last of three holds 4
    TrajectoryBatches(
        read_config(config), make_recipe(read_config(config), load_pair(read_config(config))), file
    )
    for name in ("sampled_BxT", "ids_BxTxK", "tail_BxT"):
        ours, theirs = (
            np.concatenate([load_file(x)[name] for x in scores(w)]) for w in (tmp_path, kept)
        )
        np.testing.assert_allclose(ours, theirs, atol=2e-4, err_msg=name)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"signal": {"top_k": 8}}, r"00000\.safetensors was made with another top_k: 32, now 8"),
        ({"batch_size": 4}, r"another batch_size: 10, now 4"),
        ({"signal": {"top_k_of": "student"}}, r"signal\.top_k_of='student' with kept"),
        ({"teacher": {"dtype": "bfloat16"}}, r"another teacher_dtype: float32, now bfloat16"),
    ],
)
def test_scores_of_something_else_are_refused(kept, sections, message):
    config = small()
    config.synthesis.file = str(kept / SYNTHESIS)
    for name, values in sections.items():
        if isinstance(values, dict):
            config[name].update(values)
        else:
            config[name] = values
    recipe = make_recipe(read_config(config), load_pair(read_config(config)))
    with pytest.raises(ValueError, match=message):
        TrajectoryBatches(read_config(config), recipe, kept / SYNTHESIS)


def test_scores_of_another_file_are_refused(kept, tmp_path):
    shutil.copytree(kept, tmp_path / "run")
    file = tmp_path / "run" / SYNTHESIS
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], *lines[2:], lines[1]]))
    with pytest.raises(
        ValueError, match=r"another trajectories: .*Remove .*synthesis.jsonl.teacher"
    ):
        open_batches(file)


def test_a_file_of_something_else_is_named(kept, tmp_path):
    shutil.copytree(kept, tmp_path / "run")
    files = scores(tmp_path / "run")
    save_file({"x": np.zeros(2)}, files[0])
    with pytest.raises(ValueError, match=r"00000\.safetensors is no file of teacher scores"):
        open_batches(tmp_path / "run" / SYNTHESIS)
    files[0].write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"00000\.safetensors is no file of teacher scores"):
        open_batches(tmp_path / "run" / SYNTHESIS)


def same_arrays(a, b) -> bool:
    ours, theirs = load_file(a), load_file(b)
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[x], theirs[x]) for x in ours)


def test_damaged_or_renamed_scores_are_computed_anew(kept, tmp_path, caplog):
    shutil.copytree(kept, tmp_path / "run")
    files = scores(tmp_path / "run")
    content = bytearray(files[0].read_bytes())
    content[-5] ^= 4
    files[0].write_bytes(content)
    open_batches(tmp_path / "run" / SYNTHESIS)
    assert "00000.safetensors is not what was written: computing its scores anew" in caplog.text
    assert same_arrays(files[0], scores(kept)[0])
    files[0].rename(tmp_path / "kept")
    files[1].rename(files[0])
    (tmp_path / "kept").rename(files[1])
    open_batches(tmp_path / "run" / SYNTHESIS)
    assert "holds the scores of another batch" in caplog.text
    for ours, theirs in zip(files, scores(kept), strict=True):
        assert same_arrays(ours, theirs)


@pytest.mark.slow
def test_a_loss_that_asks_no_teacher_keeps_none(kept, tmp_path):
    config = small(sft_config)
    config.synthesis.cache_teacher = True
    with pytest.raises(ValueError, match=r"synthesis\.cache_teacher=True, but the loss asks"):
        run(config, tmp_path / "run")
