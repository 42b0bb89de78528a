#!/bin/sh
# The environment of the servers of tests/environments/openenv/test_openenv.py: the package openenv, whose dependencies clash with others'.
#
#   sh tests/environments/openenv/setup.sh ~/.cache/policyopt-openenv
#   POLICYOPT_OPENENV=~/.cache/policyopt-openenv pytest -m heavy tests/environments/openenv
set -eu
"${PYTHON:-python3}" -m venv "$1"
"$1/bin/pip" install -q "openenv==0.10.0"
echo "OpenEnv is ready in $1"
