#!/bin/sh
# The environment of tests/engines/skyrl/test_skyrl.py: SkyRL's Tinker server with its jax backend, on a CPU (some 2.3 GB).
#
#   sh tests/engines/skyrl/setup.sh ~/.cache/policyopt-skyrl
#   POLICYOPT_SKYRL=~/.cache/policyopt-skyrl pytest -m heavy tests/engines/skyrl
set -eu
folder=$1
python=${PYTHON:-python3}

"$python" -m venv "$folder"
"$folder/bin/pip" install -q "skyrl[tinker,jax]==0.3.0" torch==2.13.0
# The client of the protocol that this server speaks; it stands before the one of the tests' own environment.
"$folder/bin/pip" install -q --no-deps --target "$folder/sdk" tinker==0.22.3

# Before Python 3.12, pydantic refuses the TypedDict of the standard library, which the server uses.
site=$("$folder/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")
printf 'import typing\n\nimport typing_extensions\n\ntyping.TypedDict = typing_extensions.TypedDict\n' > "$site/sitecustomize.py"

# The server starts its engine as `uv run FLAGS -m MODULE ...`: this stands in for it and runs the module in the same environment.
mkdir -p "$folder/standin"
cat > "$folder/standin/uv" <<'UV'
#!/bin/sh
while [ "$1" != -m ]; do shift; done
exec "$(dirname "$0")/../bin/python" "$@"
UV
chmod +x "$folder/standin/uv"
echo "SkyRL is ready in $folder"
