"""The notebook of the documents runs, is stored without outputs, and shows what it should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "first_model.ipynb"

nbformat = pytest.importorskip("nbformat", reason="needs nbformat (pip install nbclient ipykernel)")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient (pip install nbclient ipykernel)")


def ran(cells: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: int = 120) -> list[Any]:
    """The outputs of cells that ran in a kernel, from the cell that ``cells`` begins with."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=seconds, resources={"metadata": {"path": str(folder)}}).execute()
    return [cell.outputs for cell in notebook.cells]


def of_kind(outputs: list[Any], kind: str) -> list[str]:
    """What a cell shows as a kind of data."""
    return [o.data[kind] for o in outputs if "data" in o and kind in o.data]


def sources() -> list[str]:
    cells = json.loads(PAGE.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_it_is_stored_without_outputs() -> None:
    nbformat.validate(nbformat.read(PAGE, as_version=4))
    for cell in json.loads(PAGE.read_text())["cells"]:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None


def test_the_notebook_runs(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another model and fewer steps; :func:`test_the_notebook_runs_as_it_is` is the whole."""
    parameters, *cells = sources()
    assert parameters.splitlines() == ["MODEL = None", "STEPS = 40"]
    small = [cell.replace("    max_tokens=48,", "    max_tokens=8, batch=16,") for cell in cells]
    interrupted = """
import os, signal

def stop(metrics):
    if metrics["step"] == 2:
        os.kill(os.getpid(), signal.SIGINT)

cut = po.train("grpo", model=model, task=rows, judge=last_number, steps=100000, batch=16, max_tokens=8,
               eval={"prompts": 4, "samples": 0}, on_step=stop)
print(cut.summary["stopped"], cut.summary["steps"])
"""
    outputs = ran([f'MODEL = "{tiny_model}"\nSTEPS = 2', *small, interrupted], tmp_path, monkeypatch)
    shown = dict(zip(["", *small, "cut"], outputs, strict=True))
    [trained] = [found for source, found in shown.items() if "on_step=enough" in source]
    view, table = of_kind(trained, "text/html")
    assert len(of_kind(trained, "text/plain")) == 2, "one output that is redrawn, and the result"
    assert "step 2/2" in view and "done" in view and "\x1b" not in view
    assert "finished after 2 steps" in table and table.count("<svg") >= 6 and "report.html" in table
    assert [o for o in trained if o.output_type == "stream" and "step" in o.text] == []
    [plot] = of_kind(shown["result.plot()"], "text/html")
    assert plot.startswith("<svg") and "Accuracy" in plot
    assert "interrupted 2" in "".join(o.text for o in shown["cut"] if o.output_type == "stream")


@pytest.mark.heavy
def test_the_notebook_runs_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = ran(
        [*sources(), 'print(result.summary["after"]["accuracy"] - result.summary["before"]["accuracy"])'],
        tmp_path,
        monkeypatch,
        900,
    )
    assert float(outputs[-1][0].text) > 0.1
