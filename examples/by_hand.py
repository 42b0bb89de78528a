"""GRPO written out by hand from the parts: no trainer, nothing hidden.

Run it with ``python examples/by_hand.py``. It draws, judges, credits and updates as ``policyopt train grpo`` does, and prints the
share of right answers of every fifth step.
"""

from __future__ import annotations

import torch

from policyopt.data import JudgePool, load_task
from policyopt.engine.local import LocalSampler
from policyopt.models.causal import split_model
from policyopt.models.embedded import build_embedded
from policyopt.models.load import load_policy
from policyopt.parts import Normalise, PPOClip, SeqMeanTokenMean, TokenRatio
from policyopt.training.rows import to_batch

PROMPTS, GROUP, STEPS = 16, 8, 30


def main() -> None:
    """Train the embedded model on sums for a minute."""
    task = load_task("chain_sum")
    policy = load_policy(str(build_embedded(task)))
    split, sampler = split_model(policy.model), LocalSampler.of(policy)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=1e-4, weight_decay=0.0)
    advantage, ratio, surrogate, aggregate = Normalise(), TokenRatio(), PPOClip(low=0.2, high=0.2), SeqMeanTokenMean()

    with JudgePool(task.judge) as judge:
        for step in range(STEPS):
            # Draw: eight responses to each of sixteen prompts, all in one batch.
            questions = [task.train[step * PROMPTS + i] for i in range(PROMPTS)]
            tokens = [policy.text.prompt(q.prompt) for q in questions]
            groups = sampler.run(
                [
                    sampler.generate(t, n=GROUP, max_tokens=task.max_tokens, temperature=1.0, key=(0, step, i))
                    for i, t in enumerate(tokens)
                ]
            )
            rows = [(i, response) for i, group in enumerate(groups) for response in group]
            # Judge.
            texts = policy.text.decode_all([response.tokens for _, response in rows])
            verdicts = judge([(questions[i], text) for (i, _), text in zip(rows, texts, strict=True)])
            batch = to_batch(
                [tokens[i] for i, _ in rows], [r for _, r in rows], verdicts, [i for i, _ in rows], task.max_tokens
            )
            # Credit: each reward against the other rewards of its group.
            batch = batch.replace(advantage=advantage(batch))
            # Update: log-probabilities with gradient, the surrogate of every token, one number, one step.
            batch = batch.replace(logp=split.leaves(batch)["logp"])
            loss = (aggregate(batch) * surrogate(ratio(batch), batch)).sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
            optimizer.step()
            if (step + 1) % 5 == 0:
                print(
                    f"step {step + 1}: right {float(batch.correct.mean()):.0%}, tokens {float(batch.length().mean()):.1f}"
                )


if __name__ == "__main__":
    main()
