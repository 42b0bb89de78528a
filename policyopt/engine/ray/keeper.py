"""A process that keeps a Ray of a run's own: it starts one, says where it listens, and ends it when the run is gone.

``python -m policyopt.engine.ray.keeper CPUS FOLDER``, with a pipe to the run as standard input. It leads a session of its
own, so that no signal of the run's terminal reaches Ray; and however the run ends, by SIGKILL too, the pipe ends with it.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys

ADDRESS = "ray listens at "
"""What stands before the address."""


def main(cpus: int, folder: str) -> None:
    """Keep Ray until standard input ends; then nothing of it is left, neither a process nor its ``folder``."""
    import ray

    try:
        ray.init(
            num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, _temp_dir=folder
        )
        print(f"{ADDRESS}{ray.get_runtime_context().gcs_address}", flush=True)
        sys.stdin.read()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            ray.shutdown()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.killpg(0, signal.SIGKILL)  # what of Ray outlives its own end by a minute


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
