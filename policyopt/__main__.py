"""``python -m policyopt``."""

import sys

from policyopt.cli import main

sys.exit(main())
