"""What is seen in runs, and what addresses it, on a terminal and as the page docs/choose.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from rich.console import Console
from rich.text import Text

from policyopt.claims import recorded
from policyopt.comparing.advise.condition import COURSE, written
from policyopt.comparing.advise.diagnosis import Diagnosis, Moved, Seen, ranked
from policyopt.comparing.advise.symptoms import SYMPTOMS, Symptom
from policyopt.comparing.measures import shown
from policyopt.docs import plain
from policyopt.index import index
from policyopt.training.console import writable
from policyopt.training.plans import Format

PAGE = """\
# Which method?

Begin with `grpo`. It needs no critic and no second model but the reference, most of what is published is a change to it, and it is what you will compare
with. When a run shows one of the symptoms below, change that one thing. [`policyopt advise RUN`](advise.md) reads the log and says which of them it shows,
`policyopt explain METHOD --vs grpo` what you would change, and the last column how you would see that it worked. The numbers are those of
[the glossary](glossary.md); the start of a run is the first tenth of its steps, the end the last quarter.

This page is the output of `policyopt advise --markdown > docs/choose.md`.

| symptom | how it shows | look first | then try | it worked if |
| --- | --- | --- | --- | --- |
{rows}

A change that is worth keeping wins on held-out questions over several seeds, at the same number of tokens: `policyopt compare`. One run says little."""


def page() -> str:
    """The page of all symptoms, in Markdown."""
    rows = []
    for s in SYMPTOMS:
        tries = [*_tries(s.settings), *_tries(s.methods)]
        shows = "; ".join(map(str, s.when)) or "no log shows it"
        rows.append(f"| **{s.name}**: {s.says} | {shows} | {s.first} | {'; '.join(tries)} | {s.worked} |")
    return PAGE.format(rows="\n".join(rows))


def _tries(tries: Mapping[str, str]) -> list[str]:
    return [f"`{name}` ({why})" for name, why in tries.items()]


def show_all(out: Console) -> None:
    """Print the symptoms, a line each."""
    width = max(len(s.name) for s in SYMPTOMS)
    for s in SYMPTOMS:
        _row(s.name, [Text(s.says)], out, width, "cyan")


def show_symptoms(symptoms: Sequence[Symptom], out: Console) -> None:
    """Print what addresses some symptoms."""
    for i, s in enumerate(symptoms):
        if i:
            out.print()
        _head(s, out)
        _row("shows", [Text(plain(str(c))) for c in s.when] or [Text("in no log")], out)
        _addressed(s, ranked(s.methods), out)


def show(found: Sequence[Diagnosis], out: Console) -> None:
    """Print what is seen in some runs, and what addresses it."""
    for i, d in enumerate(found):
        if i:
            out.print()
        about = " on ".join(filter(None, (d.method, d.task)))
        told = f"{d.run}: {about}{', ' if about else ''}{d.steps} step{'s' * (d.steps != 1)}"
        out.print(Text(writable(told, out), "bold"), soft_wrap=True)
        if d.steps < COURSE:
            out.print(
                Text(f"So few steps have levels but no course: what rises or falls is told from {COURSE} steps on.")
            )
        if not d.seen:
            out.print(Text("Nothing stands out. This was looked at, from the start to the end of the run:"))
            width = max((len(m.metric) for m in d.looked), default=0)
            for m in d.looked:
                _row(m.metric, [Text(_numbers(m))], out, width)
        for s in d.seen:
            out.print()
            _head(s.symptom, out)
            _row("seen", [Text(line) for line in _seen(s)], out)
            _row("beside", [Text(f"{m.metric} {_numbers(m)}") for m in s.beside], out)
            _addressed(s.symptom, s.methods, out)
        line = compare_line(d)
        if line:
            out.print(Text("\nOne run says little. What is worth a change wins over several seeds:"))
            out.print(Text(f"  {writable(line, out)}"), soft_wrap=True)


def show_cells(found: Mapping[str, Sequence[Diagnosis]], out: Console) -> None:
    """Print in short which symptoms the runs of each contender of a comparison show."""
    named: dict[str, None] = {}
    for contender, runs in found.items():
        out.print(Text(writable(f"{contender}, {len(runs)} run{'s' * (len(runs) != 1)}", out), "bold"), soft_wrap=True)
        having: dict[str, list[Seen]] = {}
        for d in runs:
            for s in d.seen:
                having.setdefault(s.symptom.name, []).append(s)
        for name, seen in having.items():
            named[name] = None
            _row(
                name, [Text(f"in {len(seen)} of {len(runs)}, such as: {'; '.join(_seen(seen[0]))}")], out, style="cyan"
            )
        if not having:
            out.print(Text(" nothing stands out"))
    if named:
        out.print(Text("\nWhat addresses them:"))
        for name in named:
            out.print(Text(f"  policyopt advise --symptom {name}"))


def _seen(seen: Seen) -> list[str]:
    """The numbers that show a symptom, each with what is said of it."""
    said: dict[str, list[str]] = {}
    for r in seen.readings:
        said.setdefault(r.told, []).append(plain(r.condition.words))
    return [f"{numbers}: {' and '.join(words)}" for numbers, words in said.items()]


def compare_line(found: Diagnosis) -> str:
    """The line that holds the first methods of a diagnosis against that of the run; empty where it is none of the library, or
    nothing was found."""
    methods = list(dict.fromkeys(m for s in found.seen for m in s.methods))
    known = index().get(found.method)
    if not methods or known is None or known.kind != "method" or not found.task:
        return ""
    return f"policyopt compare {' '.join([found.method, *methods[:2]])} --task {found.task} --seeds 5"


def _head(symptom: Symptom, out: Console) -> None:
    out.print(Text.assemble((symptom.name, "bold cyan"), ": ", symptom.says), soft_wrap=True)


def _addressed(symptom: Symptom, methods: Sequence[str], out: Console) -> None:
    """Print what is to be looked at and tried."""
    known = recorded()
    tries = [Text.assemble((name, "bold"), f": {plain(why)}") for name, why in symptom.settings.items()]
    tries += [
        Text.assemble((m, "bold"), f": {plain(symptom.methods[m])} ", (f"({replicated(known.get(m))})", "dim"))
        for m in methods
    ]
    _row("first", [Text(plain(symptom.first))], out)
    _row("then", tries, out)
    _row("worked if", [Text(plain(symptom.worked))], out)


def _row(name: str, lines: Sequence[Text], out: Console, width: int = 9, style: str = "dim") -> None:
    """Print lines beside a name: wrapped to a terminal below their own beginning, or whole lines that nothing wraps."""
    for i, line in enumerate(lines):
        pieces = line.wrap(out, max(20, out.width - width - 4)) if out.is_terminal else [line]
        for j, piece in enumerate(pieces):
            piece.rstrip()
            head = name if i == j == 0 else ""
            out.print(Text.assemble(" ", (head.ljust(width), style), "  ", piece), soft_wrap=True)


def replicated(record: Mapping[str, Any] | None) -> str:
    """What came of the claim of a method, as ``policyopt replicate`` recorded it, in words."""
    if record is None:
        return "not replicated yet"
    verdict = str(record.get("verdict"))
    effects = [e for e in record.get("effects") or () if e.get("difference")]
    if not effects:
        return f"its claim: {verdict}"
    told = []
    for e in effects:
        difference, form = e["difference"], cast(Format, e.get("format", "number"))
        mean, low, high = (shown(difference[key], form, True) for key in ("mean", "low", "high"))
        told.append(f"{e['metric']} {mean}{' points' if form == 'percent' else ''}, {low} to {high}")
    where = f"on {record['testbed']} against {record['against']}, {record['seeds']} seeds"
    return f"its claim: {verdict}: {'; '.join(told)}, {where}"


def _numbers(m: Moved) -> str:
    return f"{written(m.start)} -> {written(m.end)}"
