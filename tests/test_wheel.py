"""The wheel holds all that the package needs, and works where the checkout is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DATA = (
    "policyopt/py.typed",
    "policyopt/claims.json",
    *(f"policyopt/templates/{p.name}" for p in (ROOT / "policyopt" / "templates").iterdir()),
)


def ran(*line: object, folder: Path) -> str:
    """What a command prints, in a folder, with nothing in the environment that leads to the checkout."""
    clean = {name: x for name, x in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in line], cwd=folder, env=clean, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "policyopt", folder / "policyopt", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ran(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        "dist",
        ".",
        folder=folder,
    )
    [built] = (folder / "dist").glob("*.whl")
    return built


def test_it_holds_every_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        held = {name for name in files.namelist() if name.startswith("policyopt/")}
    code = {str(p.relative_to(ROOT)) for p in (ROOT / "policyopt").rglob("*.py")}
    assert held == {*code, *DATA}


def test_it_works_in_a_fresh_environment(wheel: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Its dependencies are those of this environment, so that nothing is fetched."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    ran(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        wheel,
        folder=tmp_path,
    )
    [there] = (tmp_path / "env").glob("lib/python*/site-packages")
    (there / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    policyopt = python.with_name("policyopt")
    assert str(there) in ran(python, "-c", "import policyopt; print(policyopt.__file__)", folder=tmp_path)
    assert ran(policyopt, "--version", folder=tmp_path).split()[-1] == wheel.name.split("-")[1]
    assert "grpo" in ran(policyopt, "list", folder=tmp_path)
    said = ran(
        policyopt, "train", "grpo", "--steps", 1, "--model", tiny_model, "--batch", 8, "--max-tokens", 8, "--eval.prompts", 2,
        "--eval.samples", 0, "--device", "cpu", folder=tmp_path,
    )  # fmt: skip
    assert "report: runs/grpo-chain_sum-seed0/report.html" in said
    assert (tmp_path / "runs/grpo-chain_sum-seed0/report.html").is_file()
