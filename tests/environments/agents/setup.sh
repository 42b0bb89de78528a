#!/bin/sh
# The environment of tests/environments/agents/test_clients.py: the openai package and smolagents on it (some 60 MB).
#
#   sh tests/environments/agents/setup.sh ~/.cache/policyopt-agents
#   POLICYOPT_AGENTS=~/.cache/policyopt-agents pytest -m heavy tests/environments/agents
set -eu
folder=$1
python=${PYTHON:-python3}

"$python" -m venv "$folder"
"$folder/bin/pip" install -q "openai==3.57.0" "smolagents[openai]==1.26.0"
echo "The clients are ready in $folder"
