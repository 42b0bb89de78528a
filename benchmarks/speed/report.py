"""What was measured, as JSON, as Markdown, and as the tables of docs/speed.md."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import statistics
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from speed.arithmetic import Needed, Sizes, needed
from speed.figure import panels, slope
from speed.turns import WARM, Measured

SHOWN = {"floor": "floor", "ours": "policyopt", "trl": "TRL"}
RESULTS = Path(__file__).parents[1] / "results"
DOCS = Path(__file__).parents[2] / "docs" / "speed.md"
FIGURES = {"growth": "seconds of a step", "memory": "MiB above the model and its gradient"}
"""What each shows."""
MARKS = ("<!-- begin: written by benchmarks/run.py -->", "<!-- end -->")


def machine() -> dict[str, Any]:
    """Where numbers come from: hardware and versions, no names."""
    import torch

    def version(package: str) -> str:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(package)
        return "not installed"

    cpu = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text()
        found = re.search(r"model name\s*:\s*(.+)", text)
        memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    except OSError:
        found = memory = None
    return {
        "cpu": found[1] if found else cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "memory (GiB)": round(int(memory[1]) / 2**20) if memory else None,
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__, "transformers": version("transformers"), "TRL": version("trl"),
        "policyopt": version("policyopt"), "Python": platform.python_version(),
    }  # fmt: skip


def told(measured: Measured) -> dict[str, Any]:
    """A workload as plain data."""
    contenders: dict[str, dict[str, Any]] = {}
    for name in sorted(measured.rows, key=[*SHOWN, *measured.rows].index):
        rows = measured.rows[name]
        keys = dict.fromkeys(key for row in rows for key in row)
        found = {key: measured.median(name, key) for key in keys}
        found |= {"above": measured.above(name), "rounds": len(rows)}
        found |= {f"over {other}": measured.ratio(name, other) for other in ("floor", "trl") if other != name}
        contenders[name] = found | {"steps": [round(row["step"], 4) for row in rows]}
    out = {"title": measured.workload.title, "contenders": contenders, "lost": dict(measured.lost)}
    if (begun := measured.begun.get("floor")) is not None:
        rounds = max(map(len, measured.rows.values()), default=1)
        all_rounds = [measured.workload.lengths(WARM + i) for i in range(rounds)]
        sizes = Sizes(**begun["sizes"])
        each = [needed(measured.workload, sizes, lengths, begun["prompt"]) for lengths in all_rounds]
        fields = {"drawing", "update", "bytes", "tokens"}
        out["needed"] = {f: statistics.median(getattr(n, f) for n in each) for f in sorted(fields)}
        out["drawn tokens"] = statistics.median(map(sum, all_rounds))
    return out


class Results:
    """The results in a folder: what is measured anew takes the place of what was there, and the rest stays."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "speed.json"
        self.found: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def put(self, section: str, name: str, what: Mapping[str, Any], at: str | None = None) -> None:
        """Keep a result, and write."""
        place = self.found.setdefault(section, {})
        if at is None:
            place[name] = dict(what)
        else:
            place.setdefault(name, {})[at] = dict(what)
        self.found["machine"] = machine()
        self.write()

    def write(self) -> str:
        """Write what is known; returns it as Markdown."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = self.tables()
        if self.found:
            self.path.write_text(json.dumps(self.found, indent=1) + "\n")
            (self.folder / "speed.md").write_text(f"# Speed\n\n{text}\n\nMade by `python benchmarks/run.py`.\n")
        if self.found and self.folder == RESULTS:
            figures = (f"![{said}](images/{name}.svg)" for name, said in FIGURES.items() if self.figure(name).exists())
            DOCS.write_text(into(DOCS.read_text(), "\n\n".join([text, *figures])))
        return text

    def figure(self, name: str) -> Path:
        """Where a figure is: beside the documents, or with the results where those are somewhere else."""
        return (DOCS.parent / "images" if self.folder == RESULTS else self.folder) / f"{name}.svg"

    def draw(self, section: str, name: str) -> None:
        """Write one of the :data:`FIGURES`."""
        self.figure(name).write_text(panels(self.curves(section), FIGURES[name]))

    def curves(self, section: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
        """Points of the figures: panel -> series -> (x, y)."""
        out: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for panel, points in self.found.get(section, {}).items():
            series = out.setdefault(panel, {})
            for at, point in points.items():
                if "contenders" in point:
                    for name, row in point["contenders"].items():
                        series.setdefault(SHOWN.get(name, name), []).append((point["x"], row["step"]))
                elif "peak" in point:
                    series.setdefault(at.rpartition(" ")[0], []).append((point["x"], point["peak"]))
        return {panel: series for panel, series in out.items() if series}

    # Tables ----------------------------------------------------------------------------------------------------------

    def tables(self) -> str:
        """Everything as Markdown."""
        parts = [
            self.where(), self.training(), self.arithmetic(), self.memory(), self.sharing(), self.loading(), self.growth()
        ]  # fmt: skip
        return "\n\n".join(part for part in parts if part)

    def where(self) -> str:
        return ", ".join(f"{name} {x}" for name, x in self.found.get("machine", {}).items())

    def training(self) -> str:
        head = "workload | who | step (s) | drawing | rest | peak (MiB) | above (MiB) | x floor | x TRL | rounds"
        keys = ("step:.3f", "rollout:.3f", "rest:.3f", "peak:,.0f", "above:,.0f", "over floor:.2f", "over trl:.2f")
        rows: list[list[str]] = []
        for name, found in self.found.get("training", {}).items():
            for who, row in found["contenders"].items():
                cells = [_cell(row.get(key.partition(":")[0]), key.partition(":")[2]) for key in keys]
                rows.append([name, SHOWN.get(who, who), *cells, str(row["rounds"])])
            rows += [[name, SHOWN.get(who, who), f"lost: {why}", *[""] * 7] for who, why in found["lost"].items()]
        text = _table(head, rows)
        passes = [
            f"- {name}: " + ", ".join(f"{k.removeprefix('passes/')} {x:g}" for k, x in row.items() if "passes/" in k)
            for name, found in self.found.get("training", {}).items()
            if (row := found["contenders"].get("ours"))
        ]
        said = "Times that each drawn token passes a model in a step of policyopt:\n\n" + "\n".join(passes)
        return f"{text}\n\n{said}" if passes else text

    def arithmetic(self) -> str:
        head = "workload | drawn tokens | tokens of a pass | drawing (GFLOP) | update (GFLOP) | moved (GB) | floor (GFLOP/s)"
        rows = []
        for name, found in self.found.get("training", {}).items():
            if "needed" not in found or "floor" not in found["contenders"]:
                continue
            need = Needed(**found["needed"])
            cells = [_cell(found["drawn tokens"], ",.0f"), _cell(need.tokens, ",.0f")]
            cells += [_cell(x / 1e9, ",.3g") for x in (need.drawing, need.update, need.bytes)]
            rate = need.flops / found["contenders"]["floor"]["step"] / 1e9
            rows.append([name, *cells, _cell(rate, ",.1f")])
        return _table(head, rows)

    def memory(self) -> str:
        found = self.found.get("W6", {})
        lengths = sorted({p["length"] for points in found.values() for p in points.values()})
        rows = []
        for size, points in found.items():
            for way in dict.fromkeys(p["way"] for p in points.values()):
                mine = {p["length"]: p for p in points.values() if p["way"] == way and "peak" in p}
                curve = [(n, p["peak"]) for n, p in mine.items()]
                cells = [_cell(mine.get(n, {}).get("peak"), ",.0f") for n in lengths]
                last = mine.get(max(lengths), {}).get("seconds")
                rows.append([size, way, *cells, _cell(slope(curve) if len(curve) > 1 else None), _cell(last)])
        head = " | ".join(
            ["W6: parameters", "backward", *(f"{n} tokens (MiB)" for n in lengths), "slope", "longest (s)"]
        )
        return _table(head, rows)

    def sharing(self) -> str:
        rows = []
        for kind, x in self.found.get("W8", {}).items():
            if "error" in x:
                rows.append([kind, f"lost: {x['error']}", *[""] * 6])
                continue
            tokens = [x["tokens, ours"], x["tokens, row by row"]]
            cells = [f"{x['distinct']:,}", *(f"{n:,} ({n / x['distinct']:.2f})" for n in tokens)]
            seconds = (_cell(x[f"seconds, {who}"], ".3f") for who in ("ours", "row by row"))
            rows.append([kind, *cells, *seconds, _cell(x["ratio"]), f"{x['difference']:.0e}"])
        head = "W8 | distinct tokens | policyopt | row by row | policyopt (s) | row by row (s) | ratio | gradients differ by"
        return _table(head, rows)

    def loading(self) -> str:
        found = self.found.get("loading", {}).get("W7", {})
        if "ours" not in found:
            return ""
        return _table(
            "loading SmolLM2-135M | policyopt (s) | transformers (s) | ratio",
            [["", *(_cell(found[k]) for k in ("ours", "transformers", "ratio"))]],
        )

    def growth(self) -> str:
        curves = self.curves("growth")
        names = list(dict.fromkeys(name for series in curves.values() for name in series))
        rows = [
            [axis, *(_cell(slope(series[n]) if len(series.get(n, ())) > 1 else None) for n in names)]
            for axis, series in curves.items()
        ]
        return _table(" | ".join(["step time against (slope)", *names]), rows)


def into(page: str, text: str) -> str:
    """A page with what stands between its :data:`MARKS` exchanged."""
    before, begin, rest = page.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    return f"{before}{begin}\n\n{text}\n\n{end}{after}" if end else page


def _cell(x: float | None, how: str = ".2f") -> str:
    return "" if x is None else format(x, how)


def _table(head: str, rows: Iterable[list[str]]) -> str:
    lines = [head, " | ".join(["---"] * (1 + head.count("|"))), *map(" | ".join, rows)]
    return "\n".join(f"| {line} |" for line in lines) if len(lines) > 2 else ""
