"""The report's panels: what is drawn, what is left out, and that nothing else is touched."""

import warnings

import numpy as np
import pytest

from experiments.report.picture import draw_report, write_report
from experiments.workdir.workdir import Workdir

VALIDATION = [
    {"step": s, "kind": "validation", "accuracy": a, "low": a - 0.1, "high": a + 0.1, "n": 64}
    for s, a in ((0, 0.4), (10, 0.6), (20, 0.8))
]
TRAIN = [{"step": s, "kind": "train", "loss": 2.0 / s, "grad_norm": 1.0} for s in range(1, 21)]
RESULTS = {
    "before": {"accuracy": 0.4, "interval": [0.3, 0.5], "n": 64},
    "after": {"accuracy": 0.8, "interval": [0.7, 0.9], "n": 64},
    "teacher": {"accuracy": 0.95, "interval": [0.9, 1.0], "n": 64},
}
TRAJECTORIES = [
    {"step": 1, "id": 0, "values": [0.9, 0.8], "boundaries": [0.6, 0.5], "breach": -1, "root": -1},
    {"step": 1, "id": 1, "values": [0.9, 0.7, 0.1], "boundaries": [0.6, 0.6, 0.6],
     "breach": 2, "root": 1},
    {"step": 2, "id": 2, "values": [0.2], "boundaries": [0.7], "breach": 0, "root": 0},
    {"step": 2, "id": 3, "values": [0.8, 0.3], "boundaries": [0.7, 0.4], "breach": 1, "root": 1},
]  # fmt: skip


def titles(figure):
    return [axes.get_title().split(":")[0].split(",")[0] for axes in figure.axes]


def test_the_four_panels_show_the_data():
    figure = draw_report(VALIDATION + TRAIN, TRAJECTORIES, RESULTS)
    assert titles(figure) == ["Accuracy", "Training loss", "Monitor", "Backtracked"]
    accuracy, loss, monitor, depth = figure.axes
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
    line = accuracy.lines[0]
    np.testing.assert_array_equal(line.get_xdata(), [0, 10, 20])
    np.testing.assert_array_equal(line.get_ydata(), [0.4, 0.6, 0.8])
    labels = {text.get_text() for text in accuracy.get_legend().get_texts()}
    assert labels == {"validation", "before (test)", "after (test)", "teacher (test)"}
    np.testing.assert_allclose(loss.lines[0].get_ydata(), 2.0 / np.arange(1, 21))
    safe, breached = (c.get_offsets() for c in monitor.collections[-2:])
    assert len(safe) == 5
    np.testing.assert_allclose(sorted(map(tuple, breached)), [(0.4, 0.3), (0.6, 0.1), (0.7, 0.2)])
    assert [bar.get_height() for bar in depth.patches] == [2, 1]
    assert depth.get_title() == "Backtracked: 75 % of 4 sampled"


@pytest.mark.parametrize(
    ("metrics", "trajectories", "results", "expected"),
    [
        ([], [], {}, []),
        (TRAIN, [], {}, ["Training loss"]),
        (TRAIN + VALIDATION, [], {"before": RESULTS["before"]}, ["Accuracy", "Training loss"]),
        ([], [], RESULTS, ["Accuracy"]),
        (TRAIN, TRAJECTORIES[:1], {}, ["Training loss", "Monitor", "Backtracked"]),
        (TRAIN[:1], [{"step": 1, "values": [], "parts": []}], {}, ["Training loss"]),
        ([{"step": 1, "kind": "train"}, *VALIDATION], [], {"teacher": None}, ["Accuracy"]),
        ([], [], {"seed": 0, "teacher": None}, []),
    ],
)
def test_what_is_not_there_is_left_out(tmp_path, metrics, trajectories, results, expected):
    assert titles(draw_report(metrics, trajectories, results)) == expected
    with Workdir(tmp_path, {}) as run:
        for record in metrics:
            run.append_metrics(record)
        run.append_trajectories(trajectories)
        if results:
            run.write_results(results)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert write_report(tmp_path).read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.unfinished"))


def test_numbers_that_are_not_finite_are_no_crash(tmp_path):
    with Workdir(tmp_path, {}) as run:
        for step in range(1, 100):
            run.append_metrics({"step": step, "kind": "train", "loss": float("nan")})
        run.append_metrics({"step": 9, "kind": "validation", "accuracy": float("nan")})
        run.append_trajectories(
            [{"step": 1, "values": [float("nan"), 0.5], "boundaries": [0.5, 0.6], "breach": 1,
              "root": 1}]
        )  # fmt: skip
        run.write_results({"after": {"accuracy": float("nan"), "interval": [float("nan")] * 2}})
    (tmp_path / "metrics.jsonl").open("a").write('{"step": 100, "lo')
    assert write_report(tmp_path).stat().st_size > 1000


def test_pyplot_is_left_alone(tmp_path):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    draw_report(VALIDATION, TRAJECTORIES, RESULTS)
    assert plt.get_fignums() == before


def controlled(step, **fields):
    settled = {"beta_a": 1.7 + step / 20, "beta_b": 1.7, "decisions_completed": max(0, step - 5)}
    reward = {"gain": 0.01 * step, "grounding": -0.5, "decision_reward": 1.0, "probe_loss": 0.2}
    seen = {"exposure": 0.1 * (step // 5), "mismatch": 0.3 / step}
    return {"step": step, "kind": "train", "loss": 1.0, **seen, **settled, **reward, **fields}


def test_the_exposure_panels_show_the_controller():
    train = [controlled(step) for step in range(1, 21)]
    figure = draw_report(train, [], {})
    drawn = ["Training loss", "Exposure", "Beta policy over time", "Reward of completed decisions"]
    assert [title for title in titles(figure) if title][:4] == drawn
    panels = {axes.get_title(): axes for axes in figure.axes}
    path, policy_mean = panels["Exposure"].lines
    np.testing.assert_allclose(path.get_ydata(), [0.1 * (step // 5) for step in range(1, 21)])
    expected = [(1.7 + s / 20) / (3.4 + s / 20) for s in range(1, 21)]
    np.testing.assert_allclose(policy_mean.get_ydata(), expected)
    density = panels["Beta policy over time"].collections[0].get_array().reshape(100, 20)
    # A density over a: it integrates to 1 at every step, and its mode moves up.
    np.testing.assert_allclose(density.mean(axis=0), 1.0, atol=0.02)
    assert np.argmax(density[:, -1]) > np.argmax(density[:, 0])
    gain = panels["Reward of completed decisions"].lines[0]
    np.testing.assert_array_equal(gain.get_xdata(), range(6, 21))
    mismatch = panels["Mismatch, KL(teacher, student)"].lines[0]
    np.testing.assert_allclose(mismatch.get_ydata(), [0.3 / step for step in range(1, 21)])


def test_fixed_and_grouped_exposures_are_drawn():
    fixed = [{"step": 1, "kind": "train", "loss": 1.0, "exposure": 1.0, "mismatch": 0.1}]
    assert titles(draw_report(fixed, [], {})) == ["Training loss", "Exposure", "Mismatch"]
    grouped = [
        controlled(step, **{f"{n}_{g}": 1.0 + g for n in ("beta_a", "beta_b") for g in range(3)},
                   **{f"exposure_{g}": 0.2 * g for g in range(3)})
        for step in range(1, 4)
    ]  # fmt: skip
    figure = draw_report(grouped, [], {})
    paths = next(axes for axes in figure.axes if axes.get_title() == "Exposure").lines
    assert [line.get_ydata()[-1] for line in paths] == [0.0, 0.2, 0.4]
    texts = [t.get_text() for axes in figure.axes for t in axes.texts]
    assert "none yet" in texts
