"""What results were measured with: versions, and the card by name.

python benchmarks/gpu/machine.py OUT.json [--device cpu]
"""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("torch", "triton", "transformers", "trl", "liger-kernel", "flash-attn", "peft", "numpy")


def installed(package: str) -> str | None:
    """The version of a package, where it is there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Print, write, and fail where there is no card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    args = parser.parse_args()
    found = {"python": platform.python_version(), "cuda": torch.version.cuda, "threads": torch.get_num_threads()}
    found |= {name: known for name in PACKAGES if (known := installed(name)) is not None}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found |= {
            "card": card.name,
            "GiB": round(card.total_memory / 2**30),
            "capability": f"{card.major}.{card.minor}",
        }
    elif args.device == "cuda":
        raise SystemExit("there is no GPU that torch can use: --dry runs everything on the CPU")
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
