#!/usr/bin/env bash
# Everything that a GPU has to show, in at most six minutes on a large card (80 GB or more). It was never run on one.
#
#     benchmarks/gpu/run.sh [--dry] [OUT]
#
# 1. environment: versions and the card                                                       OUT/machine.json
# 2. the fused head against plain torch: errors, then times and memory                        OUT/fused_head.json
# 3. gradients and draws of the engine against plain transformers, float32 and bfloat16;
#    draws with and without CUDA graphs, and a step at a time                                 OUT/equal.json
# 4. W1 to W5 at the size of a billion parameters against bare torch, W1 against TRL too,
#    and drawn with and without CUDA graphs                                                   OUT/speed.json
# 5. a run with --profile: where a step's time and memory go                                  OUT/profile.json
#
# OUT is benchmarks/results/gpu. What fails is said at the end and the rest goes on. --dry runs all of it on a CPU at a tiny size, in about a
# minute, without times that mean anything (2. in Triton's interpreter, and only where Triton is). PYTHON names the interpreter; TRL and
# liger-kernel are used where they are installed.
set -uo pipefail

dry=
[ "${1:-}" = --dry ] && dry=1 && shift
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-${OUT:-$here/../results/gpu}}
mkdir -p "$out" && out=$(cd "$out" && pwd)
python=${PYTHON:-python}
export PYTHONPATH=$here/../..:$here${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=()
slack=${dry:+4} slack=${slack:-1}  # a CPU may be busy with other things

part() {  # name, seconds at most, command
    local name=$1 most=$2 start=$SECONDS
    shift 2
    echo "== $name"
    if timeout "$((most * slack))" "$@"; then echo "== $name: $((SECONDS - start)) s"; else failed+=("$name ($?)"); fi
}

part machine 40 "$python" "$here/machine.py" "$out/machine.json" ${dry:+--device cpu}
if [ -z "$dry" ]; then
    part fused_head 60 "$python" "$here/fused_head.py" "$out/fused_head.json"
elif "$python" -c 'import triton' 2>/dev/null; then
    TRITON_INTERPRET=1 part fused_head 120 "$python" "$here/fused_head.py" --device cpu "$out/fused_head.json"
fi
part equal 60 "$python" "$here/equal.py" "$out/equal.json" ${dry:+--device cpu}
part speed 190 "$python" "$here/gpu_steps.py" "$out/speed.json" ${dry:+--dry} --seconds 20

# A model folder of the size of W1 (dry: tiny), trained on sums for a few steps.
"$python" - "$scratch/model" ${dry:+dry} <<'PYTHON'
import sys
from pathlib import Path

from gpu_steps import WORKLOADS, save_model

size = WORKLOADS["W1"]
save_model(Path(sys.argv[1]), size.dry() if sys.argv[2:] else size)
PYTHON
settings=(--batch 256 --max-tokens 128 --dtype bfloat16 --device cuda)
[ -n "$dry" ] && settings=(--batch 16 --max-tokens 8 --device cpu)
part profile 100 "$python" -m policyopt train grpo --model "$scratch/model" --task chain_sum --steps 4 --profile --eval.every 0 --eval.prompts 8 \
    --eval.samples 0 --eval.k 1 --out "$scratch/run" "${settings[@]}"
cp "$scratch/run/profile.json" "$out/" 2>/dev/null

echo "$SECONDS s; results in $out"
[ ${#failed[@]} -eq 0 ] || { echo "did not pass: ${failed[*]}"; exit 1; }
