"""Checks that third parties run over their own reporters."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import replace

from gradwatch.analyze import analyze
from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.plugins import Reporter
from gradwatch.record import Site, SiteTable
from gradwatch.recording import Recording, from_records

HOSTILE = "</script><script>alert(1)</script>"


def check_reporter(reporter: Reporter) -> None:
    """Checks what every reporter promises, over healthy, faulty, tiny, empty and hostile runs.

    It has ``render`` and a suffix that starts with a dot; it renders every run to text, the same text for the same
    run, with the verdict in it; it leaves the recording as it was; and an HTML report passes no text on as markup.

    Raises:
        AssertionError: saying which promise is broken, and for which run.
    """
    _promise(isinstance(reporter, Reporter), "it lacks `suffix` or `render(recording, analysis)`")
    _promise(reporter.suffix.startswith("."), f"suffix={reporter.suffix!r} does not start with a dot")
    for name, recording in _runs():
        analysis = analyze(recording)
        before = _fingerprint(recording)
        text = reporter.render(recording, analysis)
        _promise(isinstance(text, str) and bool(text), f"{name}: it rendered {type(text).__name__}, not text")
        _promise(text == reporter.render(recording, analysis), f"{name}: two renders of the same run differ")
        _promise(_fingerprint(recording) == before, f"{name}: rendering changed the recording")
        plain = " ".join(html.unescape(text).split())
        _promise(" ".join(analysis.verdict.split()) in plain, f"{name}: the verdict is missing")
        if reporter.suffix == ".html":
            _promise(HOSTILE not in text, f"{name}: text of the run became markup")


def _promise(kept: bool, broken: str) -> None:
    if not kept:
        raise AssertionError(f"the reporter breaks a promise: {broken}.")


def _runs() -> Iterator[tuple[str, Recording]]:
    for fault in (None, "vanishing", "nonfinite", "disconnected"):
        yield f"fault={fault}", _synthetic(6, 60, fault)
    yield "one step", _synthetic(6, 1, None)
    yield "one layer", _synthetic(1, 60, None)
    yield "no step", _synthetic(6, 0, None)
    yield "nothing", Recording(HOSTILE, SiteTable(), {}, {})
    yield "hostile names", _hostile()


def _synthetic(layers: int, steps: int, fault: str | None) -> Recording:
    run = SyntheticRun(layers=layers, steps=steps, fault=fault)
    return from_records(run.records(), run.sites, name="example")


def _hostile() -> Recording:
    """Returns a faulty run whose layers, name, facts and notes try to become markup."""
    run = SyntheticRun(layers=3, steps=60, fault="disconnected")
    names = {layer: f"{layer}{HOSTILE}" for layer in run.sites.layers}
    sites = SiteTable(optimizers=run.sites.optimizers, order=names.values())
    for site in run.sites:
        sites.add(_renamed(site, names[site.layer]))
    return from_records(run.records(), sites, name=HOSTILE, facts={"note": HOSTILE}, quality=(HOSTILE,))


def _renamed(site: Site, layer: str) -> Site:
    name = site.name.replace(site.layer, layer)
    return replace(site, name=name, layer=layer)


def _fingerprint(recording: Recording) -> list[bytes]:
    """Returns the bytes of every array that a reporter could change by mistake."""
    arrays = [
        array for panel in recording.panels.values() for array in (panel.l2, panel.n, panel.histogram, panel.steps)
    ]
    return [array.tobytes() for array in arrays]
