"""Reinforcement learning through the tinker package, on a model that `policyopt serve` serves.

    policyopt serve --port 8000
    TINKER_BASE_URL=http://127.0.0.1:8000 TINKER_API_KEY=tml-any python examples/tinker_client.py

Nothing here is of policyopt but the questions: the same file trains on any server of the protocol.
"""

from __future__ import annotations

import sys
import time

import tinker
from tinker import types

from policyopt.data import load_task

STEPS, QUESTIONS, GROUP = 10, 16, 8


def main() -> None:
    """Group-centred rewards, importance-weighted: a step for each set of questions."""
    task = load_task("chain_sum", heldout=1)
    model = tinker.RestClient().get_server_capabilities().result().supported_models[0].model_name
    training = tinker.ServiceClient().create_lora_training_client(base_model=model, rank=16, seed=0).result()
    tokenizer = training.get_tokenizer()
    for step in range(STEPS):
        start = time.time()
        sampler = training.save_weights_and_get_sampling_client().result()
        asked = task.train[step * QUESTIONS : (step + 1) * QUESTIONS]
        prompts = [
            tokenizer.apply_chat_template(list(e.prompt), add_generation_prompt=True, return_dict=False) for e in asked
        ]
        drawn = [
            sampler.sample(
                types.ModelInput.from_ints(p), GROUP, types.SamplingParams(max_tokens=task.max_tokens, seed=i)
            )
            for i, p in enumerate(prompts)
        ]
        data, rewards = [], []
        for example, prompt, future in zip(asked, prompts, drawn, strict=True):
            sequences = future.result().sequences
            right = [float(is_right(tokenizer.decode(s.tokens[:-1]), example.answer)) for s in sequences]
            rewards += right
            for sequence, reward in zip(sequences, right, strict=True):
                advantage = reward - sum(right) / GROUP
                if advantage:
                    data.append(datum(prompt, sequence, advantage))
        if data:
            training.forward_backward(data, "importance_sampling")
            training.optim_step(types.AdamParams(learning_rate=2e-3, grad_clip_norm=1.0)).result()
        print(f"step {step}: {sum(rewards) / len(rewards):.2f} right, {time.time() - start:.1f} s", flush=True)
    print(training.save_state("last").result().path)


def is_right(text: str, answer: str) -> bool:
    """Whether a response ends with the answer."""
    return text.split()[-1:] == [answer]


def datum(prompt: list[int], sequence: types.SampledSequence, advantage: float) -> types.Datum:
    """A response to learn from; nothing is asked of the prompt."""
    before, n = [0.0] * (len(prompt) - 1), len(sequence.tokens)
    return types.Datum(
        model_input=types.ModelInput.from_ints(prompt + sequence.tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": prompt[1:] + sequence.tokens,
            "logprobs": before + list(sequence.logprobs),
            "advantages": before + [advantage / (n * QUESTIONS * GROUP)] * n,
        },
    )


if __name__ == "__main__":
    STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    main()
