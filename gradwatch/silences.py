"""Findings that somebody does not want to be told: by kind and by pattern of layers."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from gradwatch.errors import GradwatchError
from gradwatch.findings import KINDS, Analysis, Finding, verdict

ANY = "*"


@dataclass(frozen=True, slots=True)
class Silence:
    """What is not told: a kind, or ``*`` for all, in layers whose dotted path matches a pattern.

    A finding without a culprit matches only the pattern ``*``. ``str`` gives the text it is parsed from.
    """

    kind: str
    layers: str = ANY

    @classmethod
    def parse(cls, text: str) -> Silence:
        """Reads ``KIND`` or ``KIND:PATTERN``, such as ``dead-units:encoder.*``.

        Raises:
            GradwatchError: for a kind that does not exist.
        """
        kind, _, layers = text.partition(":")
        if kind != ANY and kind not in KINDS:
            raise GradwatchError(
                f"silence={text!r} names no kind of trouble; write KIND or KIND:LAYERS with one of {', '.join(KINDS)}."
            )
        return cls(kind, layers or ANY)

    def __str__(self) -> str:
        return self.kind if self.layers == ANY else f"{self.kind}:{self.layers}"

    def matches(self, finding: Finding) -> bool:
        """Tells whether a finding is not to be told."""
        if self.kind not in (ANY, finding.kind):
            return False
        return self.layers == ANY or (finding.layer is not None and fnmatch.fnmatchcase(finding.layer, self.layers))


def parsed(texts: str | Collection[str]) -> tuple[Silence, ...]:
    """Reads one text or several.

    Raises:
        GradwatchError: for a kind that does not exist.
    """
    return tuple(map(Silence.parse, [texts] if isinstance(texts, str) else texts))


def stated(value: Any) -> tuple[Silence, ...]:
    """Reads what a manifest states, leaving out what is not to be understood: another release may have written it."""
    texts = [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
    return parsed([text for text in texts if text.partition(":")[0] in (ANY, *KINDS)])


def silenced(analysis: Analysis, silences: Iterable[Silence]) -> Analysis:
    """Returns an analysis without the findings that are not to be told, which it keeps apart; symptoms go with roots.

    The verdict is over the rest.
    """
    silences = tuple(silences)
    quiet = tuple(finding for finding in analysis.findings if any(silence.matches(finding) for silence in silences))
    if not quiet:
        return analysis
    told = tuple(finding for finding in analysis.findings if finding not in quiet)
    analysis = replace(analysis, findings=told, silenced=(*analysis.silenced, *quiet))
    return replace(analysis, verdict=verdict(analysis))
