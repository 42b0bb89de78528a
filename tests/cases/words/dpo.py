"""What cases call things in DPO."""

from __future__ import annotations

from ._pairs import GIVEN as GIVEN
from ._pairs import KEYS as KEYS

PARAMS = {"variant": {"sigmoid": {}, "cdpo": {}, "robust": {"robust": True}}.__getitem__}
