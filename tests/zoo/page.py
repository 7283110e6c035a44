"""The page of a half: tables and figures in one file that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

from plotly import graph_objects as go

from tests.zoo import table
from tests.zoo.score import Rate, Record, grouped, score

STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; color: #1c2733 }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; display: block;
  overflow-x: auto }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #dde3ea; text-align: left; white-space: nowrap }
th { background: #f4f6f9 }
details { margin: 1rem 0 }
"""
MEANING: Final = """Each rate is a count with its 95 % Clopper-Pearson interval. Right kind, wrong kind and detected
are over all confirmed faulty runs; culprit and onset over those whose kind was right; alarms over healthy runs, of
which every program counts once a seed, and the sound twin of every faulty run once. Detected says nothing without the
alarms: a tool that always warns detects all."""


def html(records: Sequence[Record], title: str) -> str:
    """Returns the page."""
    found = table.sizes(records)
    reasons = found.pop("reasons")
    parts = [
        f"<h1>Sick and healthy training runs: {escape(title)}</h1><p>{MEANING}</p>",
        _rows(("", ""), [[name, str(value)] for name, value in found.items()]),
        f"<h2>Tools</h2>{_drawn(_tools(records), first=True)}",
        _rows(("tool", *table.HEADINGS), table.by_tool(records)),
    ]
    parts.append(_rows(("a whole half has", "wanted", "found", "met"), table.requirements(records)))
    for by in ("kind", "family", "framework"):
        parts.append(f"<h2>gradwatch by {by}</h2>")
        parts += [_drawn(_groups(records, by))] if by != "framework" else []
        parts.append(_rows((by, *table.HEADINGS), table.by_group(records, by)))
    parts.append(f"<h2>What is in it</h2>{_rows(table.BREADTH, table.breadth(records))}")
    parts.append(f"<h2>Rejected draws</h2>{_rows(('reason', 'draws'), [[r, str(n)] for r, n in reasons.items()])}")
    parts.append(f"<h2>Cases</h2>{_cases(records)}")
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'


def _tools(records: Sequence[Record]) -> go.Figure:
    scores = {tool: score(records, tool) for tool in table.NAMES}
    return _bars({heading: {tool: getattr(scores[tool], name) for tool in scores} for heading, name in _SHOWN})


def _groups(records: Sequence[Record], by: str) -> go.Figure:
    parts = {key: score(part, "gradwatch") for key, part in grouped(records, by).items()}
    return _bars({heading: {key: getattr(found, name) for key, found in parts.items()} for heading, name in _SHOWN})


_SHOWN: Final = (("right kind", "kind"), ("wrong kind", "wrong"), ("healthy alarmed", "alarms"))
_COLOURS: Final = ("#2a7f62", "#c77d1e", "#b3363e")


def _bars(series: dict[str, dict[str, Rate]]) -> go.Figure:
    figure = go.Figure()
    for (name, rates), colour in zip(series.items(), _COLOURS, strict=True):
        known = {key: rate for key, rate in rates.items() if rate.n}
        shares = [100 * rate.share for rate in known.values()]
        spans = [rate.interval() for rate in known.values()]
        error: dict[str, Any] = {
            "type": "data",
            "symmetric": False,
            "array": [100 * high - share for (_, high), share in zip(spans, shares, strict=True)],
            "arrayminus": [share - 100 * low for (low, _), share in zip(spans, shares, strict=True)],
        }
        figure.add_bar(name=name, x=list(known), y=shares, error_y=error, marker_color=colour)
    figure.update_layout(
        barmode="group", height=380, margin={"t": 20, "b": 40}, yaxis={"title": "% (95 % interval)", "range": [0, 100]}
    )
    return figure


def _drawn(figure: go.Figure, *, first: bool = False) -> str:
    text: str = figure.to_html(full_html=False, include_plotlyjs=first, config={"displaylogo": False})
    return text


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _cases(records: Sequence[Record]) -> str:
    rows = []
    for record in sorted(records, key=lambda record: record["number"]):
        for run in record.get("runs", []):
            truth = record.get("truth", {})
            meant = f"{record['kind']} {', '.join(truth.get('layers', [])[:3])} @{truth.get('onset')}"
            rows.append([record["id"], meant if record["kind"] else "healthy", _said(run)])
        if "twin" in record:
            rows.append([record["id"], "sound twin", _said(record["twin"])])
    body = _rows(("id", "truth", "gradwatch"), rows)
    return f"<details><summary>{len(rows)} runs, with the id to run each again</summary>{body}</details>"


def _said(run: Record) -> str:
    claims = [claim for claim in run["claims"]["gradwatch"] if claim["serious"]]
    return "; ".join(f"{c['kind']} {', '.join(c['layers'][:3])} @{c['step']}" for c in claims)
