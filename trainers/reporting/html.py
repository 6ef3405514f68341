"""The report's page: its style sheet and the pieces of HTML it is put together from; every text is escaped here."""

from collections.abc import Iterable
from html import escape

STYLE = """
:root { --page: #f6f7f9; --card: #ffffff; --ink: #14181f; --soft: #5b6472; --faint: #98a1ae; --rule: #e6e9ee;
  --run: #2563eb; --second: #d9730d; --train: #8fb0f2; --reference: #b6bdc8;
  --env: #2563eb; --plan: #0f9f7f; --wait: #d64545; --update: #e0930f; --evaluation: #8b5cf6; --rest: #a7afbb;
  --good: #12805c;
  color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --page: #0e1116; --card: #161b22; --ink: #e8ecf2; --soft: #9aa4b2;
  --faint: #6b7584; --rule: #262d37; --run: #6ea0ff; --second: #f2a057; --train: #4f77c4; --reference: #4c5665;
  --env: #6ea0ff; --plan: #3cc9a7; --wait: #f08080; --update: #f0b44c; --evaluation: #b197fc; --rest: #5d6674;
  --good: #4fd1a5; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.55 ui-sans-serif, system-ui, -apple-system,
  "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; -webkit-font-smoothing: antialiased; }
main { max-width: 980px; margin: 0 auto; padding: 44px 20px 72px; }
header { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: flex-end; gap: 20px 40px;
  margin-bottom: 26px; }
.eyebrow { color: var(--soft); font-size: 13px; letter-spacing: .02em; }
h1 { margin: 2px 0 4px; font-size: clamp(27px, 5vw, 40px); line-height: 1.12; letter-spacing: -.025em; font-weight: 680;
  overflow-wrap: anywhere; }
.hero { text-align: right; } .hero b { display: block; font-size: clamp(40px, 8vw, 60px); line-height: 1;
  letter-spacing: -.035em; font-weight: 680; color: var(--run); font-variant-numeric: tabular-nums; }
.hero span { color: var(--soft); font-size: 13px; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 14px; padding: 22px 24px 20px;
  margin-top: 18px; }
h2 { margin: 0; font-size: 18px; letter-spacing: -.01em; font-weight: 640; }
h3 { margin: 0 0 2px; font-size: 13px; font-weight: 560; color: var(--soft); }
p { margin: 4px 0 14px; color: var(--soft); max-width: 88ch; } p:last-child { margin-bottom: 0; }
.tiles { display: flex; flex-wrap: wrap; gap: 1px; overflow: hidden;
  background: var(--rule); border: 1px solid var(--rule); border-radius: 14px; }
.tiles div { flex: 1 1 118px; background: var(--card); padding: 13px 16px; }
.tiles span { display: block; color: var(--soft); font-size: 12.5px; }
.tiles b { font-size: 19px; font-weight: 620; font-variant-numeric: tabular-nums; letter-spacing: -.01em; }
.scroll { overflow-x: auto; } .scroll .chart { min-width: 620px; }
.chart { display: block; width: 100%; height: auto; overflow: visible; }
.small { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 20px 26px;
  margin-top: 14px; }
.tick { fill: var(--faint); font-size: 12px; font-variant-numeric: tabular-nums; }
.grid { stroke: var(--rule); } .axis { stroke: var(--faint); stroke-opacity: .7; }
.line { fill: none; stroke-width: 2.4; stroke-linejoin: round; stroke-linecap: round; }
.hit { fill: none; stroke: transparent; stroke-width: 14; }
.line.run { stroke: var(--run); } .line.second { stroke: var(--second); }
.line.loss { stroke: var(--run); stroke-width: 1.7; } .line.reference { stroke: var(--reference); stroke-width: 1.5; }
.band.run { fill: var(--run); fill-opacity: .15; } .band.second { fill: var(--second); fill-opacity: .14; }
.dot.reference { fill: var(--reference); } .dot.train { fill: var(--train); fill-opacity: .75; }
.marker { fill: var(--card); stroke: var(--run); stroke-width: 2.2; } .marker:hover { fill: var(--run); }
.leader { fill: none; stroke: var(--reference); stroke-width: .8; stroke-opacity: .75; }
.label { font-size: 12.5px; fill: var(--soft); } .label.run { fill: var(--run); font-weight: 650; font-size: 13.5px; }
.label.second { fill: var(--second); font-weight: 600; }
g:hover > .line.reference { stroke: var(--ink); stroke-width: 2.4; } g:hover > .label.reference { fill: var(--ink);
  font-weight: 650; }
.bar { display: block; width: 100%; height: 34px; margin: 12px 0 14px; }
.part { fill: var(--rest); } .part.env { fill: var(--env); } .part.plan { fill: var(--plan); }
.part.wait { fill: var(--wait); } .part.update { fill: var(--update); } .part.evaluation { fill: var(--evaluation); }
.legend { display: flex; flex-wrap: wrap; gap: 6px 20px; font-size: 14px; list-style: none; margin: 0; padding: 0; }
.legend li { font-variant-numeric: tabular-nums; } .legend i { display: inline-block; width: 10px; height: 10px;
  border-radius: 3px; margin-right: 8px; background: var(--rest); } .legend b { font-weight: 620; margin: 0 6px; }
.legend span, .legend em { color: var(--soft); font-style: normal; }
i.env { background: var(--env); } i.plan { background: var(--plan); } i.wait { background: var(--wait); }
i.update { background: var(--update); }
i.evaluation { background: var(--evaluation); } i.dotted { background: var(--train); border-radius: 50%; }
figure { margin: 14px 0 0; } figure img, video { display: block; max-width: 100%; height: auto; border-radius: 8px;
  background: none; } figure img { width: 100%; image-rendering: pixelated; } video { height: 320px; width: auto; }
figcaption { color: var(--faint); font-size: 12.5px; margin-top: 6px; overflow-wrap: anywhere; }
.films { display: flex; flex-wrap: wrap; gap: 18px; } .seen { color: var(--good); font-weight: 600; }
.blind { color: #d64545; font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; } td, th { text-align: left; padding: 6px 14px 6px 0;
  border-bottom: 1px solid var(--rule); vertical-align: top; overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 500; } tr:last-child > * { border-bottom: 0; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(270px, 1fr)); gap: 8px 44px; margin-top: 8px; }
details { margin-top: 14px; } summary { cursor: pointer; color: var(--soft); font-size: 13.5px; }
summary:hover { color: var(--ink); } details table, details pre { margin-top: 10px; }
pre { overflow-x: auto; background: var(--page); border: 1px solid var(--rule); border-radius: 8px; padding: 14px 16px;
  font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@media (max-width: 560px) { main { padding: 26px 12px 48px; } section { padding: 18px 16px; }
  .hero { text-align: left; } }
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""


def page(*, title: str, body: str) -> str:
    """The whole document: style inside, nothing from outside; `title` is plain text, `body` is HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Even a hostile string that slipped through could neither run nor fetch anything.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:; media-src data:">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>{body}</main></body></html>\n"
    )


def header(*, eyebrow: str, title: str, subtitle: str, value: str, note: str) -> str:
    """The title on the left, the one figure that matters on the right; plain texts."""
    hero = f'<div class="hero"><b>{escape(value)}</b><span>{escape(note)}</span></div>' if value else ""
    return (
        f'<header><div><div class="eyebrow">{escape(eyebrow)}</div><h1>{escape(title)}</h1>'
        f'<div class="eyebrow">{escape(subtitle)}</div></div>{hero}</header>'
    )


def section(title: str, text: str, *parts: str) -> str:
    """A card with a heading, one plain sentence and HTML parts; "" when every part is empty."""
    body = "".join(parts)
    return f"<section><h2>{escape(title)}</h2><p>{escape(text)}</p>{body}</section>\n" if body else ""


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """Figures in a row, (name, value) plain texts, those without a value left out."""
    cells = "".join(f"<div><span>{escape(name)}</span><b>{escape(value)}</b></div>" for name, value in pairs if value)
    return f'<div class="tiles">{cells}</div>' if cells else ""


def table(rows: Iterable[Iterable[str]], *, head: Iterable[str] = ()) -> str:
    """Rows of plain texts; the first cell of a row is its name."""
    lines = ["".join(f"<{tag}>{escape(cell)}</{tag}>" for tag, cell in zip(_tags(), row, strict=False)) for row in rows]
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    if not lines:
        return ""
    return "<table>" + (f"<tr>{top}</tr>" if top else "") + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def details(summary: str, body: str) -> str:
    """HTML behind a line of plain text, closed at first; "" when there is nothing behind it."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>" if body else ""


def _tags() -> Iterable[str]:
    yield "th"
    while True:
        yield "td"
