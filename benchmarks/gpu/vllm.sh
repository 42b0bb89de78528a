#!/usr/bin/env bash
# Draws of vLLM against those of the engine itself, on a machine with an NVIDIA GPU. It was never run.
#
#     benchmarks/gpu/vllm.sh [MODEL] [STEPS]
#
# It makes an environment in benchmarks/gpu/env (Python 3.11 or newer; some 10 GB), trains MODEL for STEPS steps three times
# (its own sampler, vLLM in process, vLLM as a server), and prints for each the tokens drawn per second, the largest
# difference in log-probability between sampler and trainer, and the seconds of a step.
set -euo pipefail

model=${1:-Qwen/Qwen2.5-0.5B-Instruct}
steps=${2:-10}
here=$(cd "$(dirname "$0")" && pwd)
env=$here/env
runs=$(mktemp -d)
port=${PORT:-8017}
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true' EXIT

[ -x "$env/bin/policyopt" ] || {
    python3 -m venv "$env"
    "$env/bin/pip" install --quiet "$here/../..[vllm]"
}
export PATH=$env/bin:$PATH

train() {  # name of the run, further options
    local name=$1
    shift
    policyopt train grpo --model "$model" --task chain_sum --steps "$steps" --batch 128 --group-size 8 --max-tokens 256 \
        --dtype bfloat16 --eval.every 0 --eval.prompts 8 --eval.samples 0 --out "$runs/$name" "$@"
}

train own
train in-process --sampler vllm --vllm.memory 0.4
train asleep --sampler vllm --vllm.memory 0.6 --vllm.sleep
VLLM_SERVER_DEV_MODE=1 vllm serve "$model" --host 127.0.0.1 --port "$port" --dtype bfloat16 --enable-scale-out \
    --logprobs-mode processed_logprobs --gpu-memory-utilization 0.4 --weight-transfer-config '{"backend": "policyopt"}' \
    > "$runs/server.log" 2>&1 &
server=$!
until curl --silent --fail --output /dev/null "http://127.0.0.1:$port/health"; do
    kill -0 "$server" || { tail -n 50 "$runs/server.log"; exit 1; }
    sleep 2
done
train server --sampler vllm --vllm.url "http://127.0.0.1:$port"

python - "$runs" <<'PYTHON'
import json
import sys
from pathlib import Path

print(f"{'sampler':<12}{'tokens/s drawn':>16}{'mismatch max':>14}{'rollout s':>11}{'update s':>10}")
for name in ("own", "in-process", "asleep", "server"):
    lines = (Path(sys.argv[1]) / name / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "time/rollout" in row][1:]  # the first step warms up
    mean = {key: sum(row[key] for row in rows) / len(rows) for key in ("time/rollout", "time/update", "length/mean")}
    rate = 128 * mean["length/mean"] / mean["time/rollout"]
    worst = max(row["mismatch/max"] for row in rows)
    print(f"{name:<12}{rate:>16,.0f}{worst:>14.2g}{mean['time/rollout']:>11.2f}{mean['time/update']:>10.2f}")
print("rollout s holds the hand-over of the weights, and the proof that they came")
PYTHON
