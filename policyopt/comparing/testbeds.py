"""The testbeds of ``policyopt compare --testbed`` and of the claims: tasks on which one thing shows in a minute on a core."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from policyopt.data import builtin_tasks, need_task
from policyopt.errors import UserError


@dataclass(frozen=True)
class Testbed:
    """A task, with the options of ``policyopt train`` under which what it is for is seen."""

    __test__ = False  # for pytest, which collects what is called Test

    name: str
    task: str
    shows: str
    """Which phenomenon, in a sentence."""
    sound: str = ""
    """What a sound method does on it, and what grpo does in 40 steps, means of the seeds 0 and 1 of ``policyopt train grpo --steps 40``
    with the task and the options; ``docs/testbeds.md`` has the numbers of others."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """By dotted name, as a configuration has them: ``{"staleness": 4, "optim.lr": 3e-4}``."""


_BEDS = (
    Testbed(
        "chain_sum",
        "chain_sum",
        "that working a question out pays, found from right and wrong alone",
        "it answers longer and more often right; most of it within twenty steps; grpo: accuracy 32 to 97 %",
    ),
    Testbed(
        "ties",
        "ties:0.01",
        "what becomes of a reward that differs by a hundredth between right answers",
        "it keeps several right answers; dividing by the spread of a group makes the hundredth as large as right and wrong",
    ),
    Testbed(
        "sparse-hard",
        "sparse-hard",
        "a task that is never done right alone, and now and then from most of a worked solution",
        "it leaves zero with help, or by credit for less than all; without either it stays there; grpo: 0 to 0 %",
        {"batch": 64},
    ),
    Testbed(
        "long-winded",
        "long-winded",
        "length that can go: the working stands up to three times in a response",
        "it keeps accuracy and works the sum out once",
    ),
    Testbed(
        "verbose",
        "verbose",
        "length that can go, mixed with length that is needed: lines that say nothing between the steps of a sum",
        "it keeps accuracy and drops the padding and not the steps; grpo: accuracy 99 to 98 %, 62 to 52 tokens, of which 28.5 are needed",
        {"steps": 60, "batch": 64, "optim.lr": 2e-4, "eval.prompts": 512},
    ),
    Testbed(
        "json",
        "json",
        "several demands at once: valid, of a shape, in a fence, right and short",
        "all five parts rise; none is bought with another",
    ),
    Testbed(
        "mixed-difficulty",
        "mixed-difficulty",
        "what is done with questions that teach nothing now: a fifth is always right, a fifth never",
        "it spends responses where groups differ, and goes from easy levels to harder ones; grpo: easy 44 to 86 %, middle 57 to 75 %, hard 44 to 23 %",
        {"optim.lr": 3e-4},
    ),
    Testbed(
        "many-answers",
        "many-answers",
        "whether several right answers stay, where naming the likeliest one pays best: pass@k and distinct against accuracy",
        "accuracy rises and pass@4 does not fall: the answers that are right less often are still tried; grpo: pass@4 91 to 75 %, distinct 1.25 to 0.78",
        {"optim.lr": 4e-4},
    ),
    Testbed(
        "biased-length",
        "biased-length",
        "what dividing by length does, where some right answers are three times as long as others",
        "it learns the long working as well as the short one; grpo: short 68 to 82 %, long 38 to 39 %, 8 to 29 tokens",
        {"optim.lr": 3e-4},
    ),
    Testbed(
        "noisy-judge",
        "noisy-judge:0.2",
        "what a reward costs that is wrong on one response in five",
        "held-out accuracy, which is the truth, rises as without noise, only later; grpo: 41 to 58 %",
    ),
    Testbed(
        "proxy-reward",
        "proxy-reward",
        "a reward that can be had without being right: the parts true and proxy, and where they part",
        "accuracy does not fall below its best while the reward rises; grpo: accuracy 82 to 22 %, its reward 1.3 to 2.7",
    ),
    Testbed(
        "context-use",
        "context-use",
        "whether an answer is read where it stands, against a habit that is right one time in three",
        "it reads down to the line and answers by it; grpo: 43 to 100 %",
    ),
    Testbed(
        "biased-thought",
        "biased-thought",
        "whether an answer follows from what was thought before it, where guessing by habit is right three times in five: component/consistency",
        "it works the sum out and names the option that it came to: accuracy and consistency rise together; grpo: accuracy 75 to 82 %, consistency 0.06 to 0.19",
    ),
    Testbed(
        "shortcut",
        "shortcut",
        "whether working that is learnt slowly outlives an answer that can be copied: it begins right less often, and what right and wrong working begin with is blamed for what comes after it",
        "it works the sums out: accuracy and pass@4 stay or rise; grpo without a KL: accuracy 94 to 75 %, pass@4 89 to 78 %",
        {"optim.lr": 3e-4},
    ),
    Testbed(
        "modes",
        "modes",
        "when to think: a thought may be left empty, which costs nothing on easy questions and the answer on hard ones: component/skips_easy and component/skips_hard",
        "it thinks on hard questions and answers easy ones at once: skips_easy rises, skips_hard falls, accuracy stays; grpo without a KL: skips_easy 0.27 to 0.03, skips_hard 0.23 to 0.01, accuracy 100 to 99 %",
        {"steps": 60, "optim.lr": 3e-4},
    ),
    Testbed(
        "assign",
        "assign",
        "programs that are run: an expression of Verilog for a truth table, tried by a real simulator, its gates and costs as parts",
        "it works out both halves of the table: what compiles comes to pass; chipseek-r1 in 20 steps: accuracy 6 to 97 %",
    ),
    Testbed(
        "cyclic",
        "cyclic",
        "what becomes of preferences that run in a circle, when they are made a reward: rock, paper, scissors",
        "exploitability stays low: it goes on playing all three",
        {"optim.lr": 3e-4},
    ),
    Testbed(
        "stale",
        "chain_sum",
        "what large steps on old data do: each batch is trained on four steps after it was drawn, at a rate at which the policy has drifted by then",
        "accuracy rises and stays; grpo: 32 to 76 %, after 83 % at step 8",
        {"staleness": 4, "optim.lr": 1e-3},
    ),
    Testbed(
        "pairs",
        "pairs:chain_sum",
        "whether what is learned from pairs shows in what the policy says itself: worked and right before off by one",
        "accuracy rises with the share of held-out pairs in the right order, and the chosen side does not become unlikely",
    ),
    Testbed(
        "noisy-pairs",
        "pairs:chain_sum:flip=0.3",
        "what three turned pairs in ten cost; the held-out pairs are all the right way round",
        "the share of held-out pairs in the right order rises as without noise, only later, and confidence stays bounded",
    ),
    Testbed(
        "long-pairs",
        "pairs-length:chain_sum",
        "whether a text has more say because it is longer: four pairs in five prefer the text with a line less that says nothing, the fifth one with many more",
        "it learns what most pairs say: answers stay short, and most held-out pairs come to be in order",
    ),
)

TESTBEDS: Mapping[str, Testbed] = MappingProxyType({bed.name: bed for bed in _BEDS})
"""Those with a phenomenon of their own, by name."""


def need_testbed(name: str) -> Testbed:
    """A testbed by its name; every task is one without options.

    Raises:
        UserError: No testbed and no task is called so; with the nearest names.
    """
    if name in TESTBEDS:
        return TESTBEDS[name]
    try:
        need_task(name)
    except UserError:
        close = difflib.get_close_matches(name, (*TESTBEDS, *builtin_tasks()), n=3, cutoff=0.5)
        nearest = f"; nearest: {', '.join(close)}" if close else ""
        raise UserError(
            f"no testbed is called {name!r}{nearest}; they are {', '.join(TESTBEDS)}, and all tasks"
        ) from None
    return Testbed(name, name, builtin_tasks().get(name, name))
