import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from trainers.reporting import charts
from trainers.reporting.page import write_report
from trainers.reporting.published_curves import SCORES, published_curves
from trainers.run_folder import video
from trainers.run_folder.metrics import CSVMetrics

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'
VOID = {"meta", "img"}


class _Page(HTMLParser):
    """Collects tags and the addresses they load, and insists that every opened tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sources = [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "poster", "srcset")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _run(folder, *, task="cartpole_swingup", rows=40, results=True):
    run_dir = folder / task.replace("/", "_") / "2026-01-01"
    log = CSVMetrics(run_dir=run_dir)
    for index in range(rows):
        counters = {
            "env_steps": 1000 * index,
            "decisions": 125 * index,
            "updates": 100 * index,
            "seconds": 10.0 * index,
        }
        seconds = {
            "time/env": index,
            "time/plan": 2 * index,
            "time/wait": index,
            "time/update": 5 * index,
            "time/evaluation": index,
            "time/rest": 0,
        }
        terms = {"loss/image": 1000.0 / (index + 1), "loss/kl": 3.0, "train/return": 10.0 * index}
        log.log_metrics(
            {**counters, **seconds, **terms, "plan/predicted_return": index, "plan/realised_return": index / 2}
        )
        if index % 10 == 9:
            edges = {"eval/return_ci95_low": 15.0 * index, "eval/return_ci95_high": 25.0 * index}
            log.log_metrics({**counters, "eval/return_mean": 20.0 * index, **edges})
    (run_dir / "config.yaml").write_text(f"task: {task}\nagent: {{name: latent_mpc}}\nseed: 3\n")
    (run_dir / "versions.json").write_text(json.dumps({"torch": "2.15.0"}))
    if results:
        done = {
            "return_mean": 812.3,
            "return_ci95": [790.1, 830.0],
            "returns": [812.3] * 10,
            "episodes": 65,
            "look": "fast",
            "backend": "egl",
        }
        (run_dir / "results.json").write_text(json.dumps(done))
    return run_dir


def _text(run_dir):
    text = write_report(run_dir).read_text(encoding="utf-8")
    return text, _Page(text)


def test_everything_is_there_and_nothing_comes_from_outside(tmp_path):
    run_dir = _run(tmp_path)
    frames = np.zeros((8, 16, 16, 3), dtype=np.uint8)
    for name in ("open_loop_9", "evaluation_9"):
        video.write_png(run_dir / "videos" / f"{name}.png", frames[0])
        video.write_mp4(run_dir / "videos" / f"{name}.mp4", frames, fps=10)
    text, page = _text(run_dir)
    assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text
    assert len(page.sources) == 4 and all(source.startswith("data:") for source in page.sources)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    for wanted in (
        "cartpole_swingup",
        ">812<",
        "790 to 830, 10 episodes",
        "this run",
        "DreamerV3",
        "danijar/dreamerv3",
    ):
        assert wanted in text, wanted
    for wanted in ("image (log)", "predicted", "realised", "fast / egl", "2.15.0", "latent_mpc", "39,000", "4,875"):
        assert wanted in text, wanted


def test_uncertainties_have_a_place_where_a_model_logs_them(tmp_path):
    run_dir = _run(tmp_path)
    assert "What the model does not know" not in write_report(run_dir).read_text()
    log = CSVMetrics(run_dir=run_dir)
    for index in range(1, 4):
        log.log_metrics({"env_steps": 10**6 + index, "model/entropy": 1.0, "reward/epistemic": 1 / index}, step=index)
    page = write_report(run_dir).read_text()
    assert "What the model does not know" in page and "model/entropy" in page and "reward/epistemic" in page


def test_time_is_split_in_order_with_percentages(tmp_path):
    text, _ = _text(_run(tmp_path))
    legend = re.findall(r'<li><i class="(\w+)"></i><span>\w+</span><b>([\d.]+)%</b>', text)
    parts = {"env": "10.0", "plan": "20.0", "wait": "10.0", "update": "50.0", "evaluation": "10.0", "rest": "0.0"}
    assert legend == list(parts.items())


def test_a_run_killed_early_still_has_a_report(tmp_path):
    run_dir = tmp_path / "walker_walk" / "now"
    run_dir.mkdir(parents=True)
    text, _ = _text(run_dir)
    assert "walker_walk" in text and "not finished" in text
    (run_dir / "metrics.csv").write_text("env_steps,decisions,updates,seconds,train/return\n100,50,0,1.5,3")
    (run_dir / "results.json").write_text('{"return_mean": 1')
    (run_dir / "versions.json").write_text("[1]")
    (run_dir / "config.yaml").write_text("a: [1\n b: {")
    (run_dir / "videos").mkdir()
    (run_dir / "videos" / "open_loop_1.png").touch()
    _text(run_dir)


@pytest.mark.parametrize("removed", ["results.json", "config.yaml", "versions.json", "metrics.csv"])
def test_any_file_may_be_missing(tmp_path, removed):
    run_dir = _run(tmp_path)
    (run_dir / removed).unlink()
    _text(run_dir)


def test_unfinished_runs_show_the_last_evaluation(tmp_path):
    text, _ = _text(_run(tmp_path, results=False))
    assert ">780<" in text and "last evaluation, 95% interval 585 to 975" in text


def test_hostile_strings_stay_text(tmp_path):
    run_dir = _run(tmp_path, task="cartpole_swingup")
    results = {"task": HOSTILE, "return_mean": HOSTILE, "look": HOSTILE, "backend": [HOSTILE], "env_steps": HOSTILE}
    (run_dir / "results.json").write_text(json.dumps(results))
    (run_dir / "versions.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    (run_dir / "config.yaml").write_text(f"agent: {json.dumps(HOSTILE)}\n")
    CSVMetrics(run_dir=run_dir).log_metrics({f"loss/{HOSTILE}": 1.0, f"time/{HOSTILE}": 1.0})
    video.write_png(run_dir / "videos" / 'open_loop"><script>.png', np.zeros((4, 4, 3), dtype=np.uint8))
    text, page = _text(run_dir)
    assert not {"script", "object"} & set(page.tags) and page.tags.count("img") == 1
    assert "&lt;script&gt;" in text


def test_large_videos_stay_beside_the_page(tmp_path):
    run_dir = _run(tmp_path)
    (run_dir / "videos").mkdir()
    (run_dir / "videos" / "evaluation_1.mp4").write_bytes(b"0" * 3_100_000)
    text, page = _text(run_dir)
    assert "evaluation_1.mp4 (3.1 MB" in text and "video" not in page.tags


def test_the_newest_picture_is_taken_by_its_number(tmp_path):
    run_dir = _run(tmp_path)
    for number in (900, 1000, 50):
        video.write_png(run_dir / "videos" / f"evaluation_{number}.png", np.zeros((4, 4, 3), dtype=np.uint8))
    assert re.findall(r"evaluation_\d+\.png", _text(run_dir)[0]) == ["evaluation_1000.png"]


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="run_dir"):
        write_report(tmp_path / "nowhere")


def test_a_task_nobody_published_has_no_reference(tmp_path):
    text, _ = _text(_run(tmp_path, task="toy_reach"))
    assert "Published curves" not in text and "this run" in text


def test_published_curves_are_the_rows_of_the_table():
    rows = [line.split(",") for line in SCORES.read_text().splitlines()[1:] if line.startswith("walker_walk,")]
    curves = published_curves("walker_walk")
    assert sum(len(curve.env_steps) for curve in curves) == len(rows)
    dreamer = next(curve for curve in curves if curve.method == "DreamerV3")
    expected = sorted((float(row[2]), float(row[3])) for row in rows if row[1] == "dreamerv3")
    np.testing.assert_allclose(np.stack([dreamer.env_steps, dreamer.return_mean], axis=1), expected)
    assert dreamer.seeds > 0 and "danijar/dreamerv3" in dreamer.source


def test_a_task_does_not_take_the_curves_of_a_longer_name():
    for curve in published_curves("cartpole_swingup"):
        assert (np.diff(curve.env_steps) > 0).all(), curve.method


def test_logarithmic_charts_stay_within_the_drawing_area():
    y = np.array([1000.0, 10.0, 0.1])
    text = charts.line_chart([charts.Series(label="", x=np.arange(3.0), y=y)], height=300, log=True)
    heights = [float(point.split(",")[1]) for point in re.search(r'class="line run" points="([^"]+)"', text)[1].split()]
    assert 0 < heights[0] < heights[1] < heights[2] < 300
    np.testing.assert_allclose(np.diff(heights)[0], np.diff(heights)[1], atol=0.2)


def test_axes_map_data_to_the_drawing_area():
    axes = charts.Axes(width=200, height=100, x_range=(0, 10), y_range=(0, 5), margin=(10, 20, 30, 40))
    np.testing.assert_allclose(axes.x([0, 5, 10]), [40, 110, 180])
    np.testing.assert_allclose(axes.y([0, 5]), [70, 10])
    log = charts.Axes(width=200, height=100, x_range=(0, 1), y_range=(1, 100), log=True, margin=(10, 20, 30, 40))
    np.testing.assert_allclose(log.y([1, 10, 100]), [70, 40, 10])


def test_curves_are_cut_at_an_interpolated_point():
    one = charts.Series(label="a", x=np.array([0.0, 10.0, 30.0]), y=np.array([0.0, 10.0, 50.0]))
    cut = charts._finite(one, x_max=20.0)
    np.testing.assert_allclose([cut.x, cut.y], [[0, 10, 20], [0, 10, 30]])


def test_thinning_keeps_the_mean_and_joins_equal_steps():
    x, y = charts.thin(np.array([1.0, 1.0, 2.0]), np.array([1.0, 3.0, 7.0]))
    np.testing.assert_allclose([x, y], [[1, 2], [2, 7]])
    x, y = charts.thin(np.arange(1000.0), np.arange(1000.0) * 2, points=10)
    assert len(x) == 10 and y.mean() == 999.0


def test_labels_of_near_lines_do_not_overlap():
    ends = np.linspace(0.50, 0.51, 8)
    series = [
        charts.Series(label=f"m{i}", x=np.array([0.0, 1.0]), y=np.array([0.0, end])) for i, end in enumerate(ends)
    ]
    spots = sorted(
        float(y) for y in re.findall(r'class="label run" x="[\d.]+" y="([\d.]+)"', charts.line_chart(series))
    )
    assert len(spots) == 8 and min(np.diff(spots)) >= 14.9
    assert spots[0] > 0 and spots[-1] < 420


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 50_000), (-3.2, 8.9), (0.001, 0.0042), (970, 1010)])
def test_ticks_are_round_within_the_range_and_evenly_spaced(low, high):
    ticks = charts.nice_ticks(low, high, count=5)
    assert 3 <= len(ticks) <= 6 and min(ticks) >= low - 1e-9 and max(ticks) <= high + 1e-9
    np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_short_numbers():
    assert [charts.short(value) for value in (0, 0.25, 950, 1500, 50_000, 5.13e6)] == [
        "0",
        "0.25",
        "950",
        "1.5k",
        "50k",
        "5.13M",
    ]


def test_nothing_finite_draws_nothing():
    empty = charts.Series(label="a", x=np.array([1.0]), y=np.array([np.nan]))
    assert charts.line_chart([empty]) == charts.line_chart([]) == charts.stacked_bar([("env", 0.0)]) == ""


def test_one_value_and_constant_values_can_be_drawn():
    for y in ([5.0], [0.0], [0.0, 0.0], [-2.0, -2.0]):
        text = charts.line_chart([charts.Series(label="a", x=np.arange(len(y)) * 1.0, y=np.array(y))])
        assert "nan" not in text and "inf" not in text
