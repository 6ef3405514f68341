import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest

from datamodules.envs.seeds import SeedRank, episode_seed
from datamodules.envs.toy import optimal_return
from tests.trainers.reporting.run_folders import write_run
from trainers.reporting.published_curves import SCORES, published_curves
from trainers.reporting.run_page import write_report
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
        loaded = [value for name, value in attrs if name in ("src", "href", "poster", "srcset")]
        self.sources += [value for value in loaded if not value.startswith("#")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

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
    for drawing in _drawings(text):
        ElementTree.fromstring(drawing)
    assert (
        "http:" not in text
        and "https:" not in text
        and "@import" not in text
        and text.count("url(") == text.count("url(#")
    )
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


def _drawings(text):
    found = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(found) == text.count("<svg") > 0
    return found


def test_every_colour_is_defined_for_light_and_dark(tmp_path):
    text, _ = _text(_run(tmp_path))
    light, dark = (set(re.findall(r"--([a-z]+):", block)) for block in re.findall(r":root {(.*?)}", text, re.DOTALL))
    used = set(re.findall(r"var\(--([a-z]+)\)", text))
    assert light == dark and used <= light and {"run", "reference", "soft", "rule"} <= used
    drawn = " ".join(_drawings(text))
    assert not re.findall(r"#[0-9a-f]{6}(?=[;\"])", drawn), "a colour that dark mode cannot change"


def test_names_inside_drawings_are_used_by_one_drawing_alone(tmp_path):
    drawings = _drawings(_text(_run(tmp_path))[0])
    names = [name for drawing in drawings for name in set(re.findall(r' id="([^"]+)"', drawing))]
    assert len(names) == len(set(names)) > 0
    for drawing in drawings:
        assert set(re.findall(r"#([\w-]+)", drawing)) <= set(re.findall(r' id="([^"]+)"', drawing))


def test_a_phone_sees_every_curve_s_end(tmp_path):
    narrow = [one for one in _drawings(_text(_run(tmp_path))[0]) if 'class="chart narrow"' in one]
    assert narrow and all(float(re.search(r'viewBox="0 0 (\d+)', one)[1]) < 320 for one in narrow)
    assert "this run" in narrow[0] and "DreamerV3" not in narrow[0]


def test_random_and_the_optimum_are_in_the_curve(tmp_path):
    run_dir = _run(tmp_path, task="toy_point")
    facts = {"task": {"name": "toy_point", "source": "toy", "env": {"episode_steps": 50, "random_goal": False}}}
    (run_dir / "config.yaml").write_text(json.dumps({**facts, "seed": 3}))
    CSVMetrics(run_dir=run_dir).log_metrics({"train/random_return": 17.0, "env_steps": 0})
    text = _text(run_dir)[0]
    best = np.mean(
        [
            optimal_return(episode_seed(3, SeedRank.EVALUATION, 0, i), episode_steps=50, random_goal=False)
            for i in range(10)
        ]
    )
    assert "what random actions earn here, 17" in text and f"the optimum, {best:.0f}." in text
    assert ">random<" in text and ">optimum<" in text
    (run_dir / "config.yaml").write_text('{"task": {"name": "cartpole_swingup", "source": "dmc"}}')
    (run_dir / "spec.json").write_text('{"task": "cartpole_swingup", "pixels": [3, 64, 64], "episode_steps": 1000}')
    text = _text(run_dir)[0]
    assert "the most that is possible, 1000" in text and ">possible<" in text and "pixels 3 x 64 x 64" in text


def test_facts_are_those_of_the_machine_and_none_is_no_fact(tmp_path):
    run_dir = _run(tmp_path)
    versions = {"git_commit": "0123abc, changed", "wandb": "none", "device": "NVIDIA H200"}
    (run_dir / "versions.json").write_text(json.dumps(versions))
    (run_dir / "config.yaml").write_text("task: {name: x}\ntrainer: {accelerator: auto, precision: 32-true}\n")
    (run_dir / "results.json").write_text(json.dumps({"look": "none", "backend": "none", "return_mean": 3.0}))
    text, _ = _text(run_dir)
    rows = dict(re.findall(r"<tr><th>(.*?)</th><td>(.*?)</td></tr>", text))
    assert rows["git commit"] == "0123abc, changed" and rows["device"] == "NVIDIA H200"
    assert not {"none", "auto", ""} & set(rows.values()) and "render" not in dict(
        re.findall(r"<div><span>(.*?)</span><b>(.*?)</b>", text)
    )


def test_a_single_seed_is_said(tmp_path):
    text, _ = _text(_run(tmp_path))
    assert "10 episodes, one training seed" in text and "One training seed: the interval is over the episodes" in text


def test_reading_a_run_loads_neither_torch_nor_lightning(tmp_path):
    run_dir = _run(tmp_path)
    code = (
        "import sys; from trainers import report; report.main(sys.argv[1:]); "
        "print({'torch', 'pytorch_lightning', 'jax'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run_dir)], capture_output=True, text=True, timeout=120)
    assert done.stdout == "set()\n", done.stderr


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
    legend = re.findall(r'<li><i class="(\w+)"></i><span>\w+</span>\s*<b>([\d.]+)%</b>', text)
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


def test_small_returns_keep_their_digits(tmp_path):
    write_run(tmp_path / "x", task="maze", final=0.392, curve=[(1000, 0.784), (2000, 0.392)])
    text, _ = _text(tmp_path / "x")
    assert ">0.392<" in text and ">0.784<" in text


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
    assert set(re.findall(r"evaluation_\d+\.png", _text(run_dir)[0])) == {"evaluation_1000.png"}


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="run_dir"):
        write_report(tmp_path / "nowhere")


def test_a_task_nobody_published_has_no_reference(tmp_path):
    text, _ = _text(_run(tmp_path, task="toy_reach"))
    assert "Published curves" not in text and "this run" in text


def test_the_table_of_published_curves_interpolates_nothing(tmp_path):
    text, _ = _text(_run(tmp_path, task="walker_walk"))
    assert "return at 50k" in text
    assert re.search(r"<th>DreamerV3</th><td>366</td>", text) and re.search(r"<th>TD-MPC2</th><td></td>", text)


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


WHO = {
    "agent: {name: latent_mpc, act_with: planner}\nplanner: {name: icem}": (
        "The planner (icem) in the environment",
        True,
    ),
    "agent: {name: latent_mpc, act_with: actor}\nplanner: {name: icem}": ("The actor in the environment", False),
    "agent: {name: student, act_with: actor}\nplanner: {name: null}": ("The student in the environment", False),
}


@pytest.mark.parametrize("config", WHO)
def test_a_page_says_who_acted_and_shows_plans_where_there_were_some(tmp_path, config):
    text, planned = WHO[config]
    predictions = [1.0, 2.0] if planned else [float("nan")] * 2
    plans = {"plan/predicted_return": predictions, "plan/realised_return": [1.0, 2.0]}
    write_run(tmp_path / "run", final=2.0, curve=[(1000, 1.0), (2000, 2.0)], settings=config, **plans)
    (tmp_path / "run" / "videos").mkdir()
    (tmp_path / "run" / "videos" / "evaluation_final.png").write_bytes(b"still")
    page = write_report(tmp_path / "run").read_text()
    assert text in page and ("Plans against reality" in page) == planned and "nan" not in page.lower().split("<svg")[0]
