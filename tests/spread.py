"""Which tests go to one worker of pytest-xdist, and which go first."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadFileScheduling

TOGETHER = ("tests/engine/ray/", "tests/engine/sharded/")
"""Folders whose files share what takes long to start."""


class ByFile(LoadFileScheduling):
    """A file, or a folder of ``TOGETHER``, is one worker's: what its tests share is made once. In the order of collection."""

    def __init__(self, config: Any, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in TOGETHER if nodeid.startswith(folder)), super()._split_scope(nodeid))
