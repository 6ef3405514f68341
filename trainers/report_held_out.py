"""The part of a report about episodes that were never learned from."""

from trainers import report_template as html
from trainers.charts import Series, line_chart, thin
from trainers.run_folder import Run, is_number

KINDS = {1: "run", 5: "second", 15: "reference"}


def held_out_error(run: Run) -> tuple[str, float | None]:
    """What was predicted, the image or, of a model without a decoder, the reward; and the last error with all seen."""
    image = run.last("held_out/image")
    return ("image", image) if image is not None else ("reward", run.last("held_out/reward"))


def held_out(run: Run) -> str:
    """Errors over the run, and the last ones beside those of showing the last seen frame; "" where there are none."""
    what, error = held_out_error(run)
    if error is None:
        return ""
    names = [("seen", f"held_out/{what}", "train")]
    names += [(f"{k} ahead", f"held_out/{what}_{k}", KINDS[k]) for k in KINDS]
    series = [
        Series(label=label, x=x, y=y, kind=kind) for label, name, kind in names for x, y in [thin(*run.series(name))]
    ]
    series = [one for one in series if len(one.x)]
    title = f"held-out {what} error"
    chart = line_chart(series, height=300, x_label=run.axis, y_from_zero=True, title=title)
    text = (
        f"Episodes kept apart: error of the {what} while every frame is seen, and decisions after the last one, as a "
        f"share of the {what}s' variance. 0 is perfect, 1 about as good as the mean {what}."
    )
    table = html.table(_rows(run), head=("", "image", "copied last frame", "reward"))
    return html.section("Held-out episodes", text, f'<div class="scroll">{chart}</div>', table)


def _rows(run: Run) -> list[tuple[str, str, str, str]]:
    kinds = [("every frame seen", "image", "", "reward")]
    kinds += [(f"{k} decisions ahead", f"image_{k}", f"still_{k}", f"reward_{k}") for k in KINDS]
    rows = [(label, *(_last(run, name) for name in names)) for label, *names in kinds]
    return [row for row in rows if any(row[1:])]  # type: ignore[misc]


def _last(run: Run, name: str) -> str:
    value = run.last(f"held_out/{name}") if name else None
    return f"{value:.3g}" if is_number(value) else ""
