#!/bin/sh
# The environment of tests/environments/verifiers/test_verifiers.py: the package verifiers, whose dependencies clash with others'.
#
#   sh tests/environments/verifiers/setup.sh ~/.cache/policyopt-verifiers
#   POLICYOPT_VERIFIERS=~/.cache/policyopt-verifiers pytest -m heavy tests/environments/verifiers
set -eu
"${PYTHON:-python3}" -m venv "$1"
"$1/bin/pip" install -q "verifiers==0.4.0"
echo "verifiers is ready in $1"
