"""Every column of a batch, once: its shape, what it means, who fills it, what stands where there is none, how a check
invents one.

Making a batch from responses, joining batches, random batches, and the validation of ``needs`` follow from it. Nothing
here imports torch: files that declare columns are read by the judge's worker process too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

from policyopt.errors import UserError, nearest

Axes = Literal["N", "NT", "NP", "NK", "ND", "NS", "NV", "NR"]
"""N rows, T tokens of the response, P tokens of the prompt, K steps of a response, D depth of a tree, S numbers of a
memory, V tokens of the vocabulary that the tokens of a row were drawn from, R experts that they were sent to."""
Filler = Literal[
    "rollout", "verdict", "recipe", "engine", "lines", "critic", "memory", "program", "judge", "part", "environment"
]
"""Who fills a column. The first five always do, or do so where it is asked for; of the others a recipe, or a judge, has
to hold one that promises it (``provides``)."""
ALWAYS = ("rollout", "verdict", "recipe", "engine", "lines")
OPEN = ("program", "judge", "part", "lines", "environment")
"""Fillers whose columns a response (``Response.columns``) or a verdict (``Verdict.parts``) may give."""


class Row(NamedTuple):
    """What one row of a batch is made from."""

    response: Any
    verdict: Any
    prompt: Any
    group: int
    budget: int


@dataclass(frozen=True)
class Column:
    """A column of a batch."""

    name: str
    axes: Axes
    filled_by: Filler
    sentence: str
    dtype: Literal["float", "int"] = "float"
    padding: float = 0
    """What stands where a row has no entry."""
    absent: float | str | None = None
    """What stands in for it in rows without one, beside rows with one: a number, or another column of the same shape;
    ``None`` where nothing can."""
    on_demand: bool = False
    """It is there only where a part asks for it."""
    brings: tuple[str, ...] = ()
    """Columns that are there with it."""
    advice: str = ""
    """What would fill it."""
    masked: bool = True
    """Numbers per token are 0 wherever ``mask`` is, once a batch is made."""
    read: Callable[[Row], Any] | None = field(default=None, compare=False)
    """A row's entry, a number or a list; ``None`` where it has none."""
    invent: Callable[[Any], Any] | None = field(default=None, compare=False)
    """An entry for every row of a :class:`~policyopt.lens.random_batch.Scene`; without one, numbers in [0, 1), or 0 and
    1 for whole numbers."""
    file: str = field(default="", compare=False)
    """Where it was declared; empty for the library's own."""

    @property
    def clean(self) -> bool:
        """Whether its padding is set to 0 as a batch is made."""
        return self.masked and self.axes == "NT" and self.dtype == "float"

    @property
    def shape(self) -> str:
        """``"[N, T]"``."""
        return f"[{', '.join(self.axes)}]"

    def entry(self, row: Row) -> Any:
        """What a response and its verdict give for it; ``None`` for nothing."""
        if self.read is not None:
            return self.read(row)
        if self.filled_by not in OPEN:
            return None
        given = row.response.columns.get(self.name)
        return row.verdict.parts.get(self.name) if given is None else given


ENVIRONMENT = "take a task with an environment (--env)"

# fmt: off
_LIBRARY = (
    # What was drawn
    Column("mask", "NT", "rollout", "1 on tokens that the policy wrote, 0 on padding and on text that others wrote",
           masked=False, read=lambda r: r.response.own or [1.0] * len(r.response.tokens), invent=lambda s: s.mask),
    Column("present", "NT", "rollout", "1 on every token of the response, those that others wrote too; None where all are the policy's own",
           masked=False, absent="mask", invent=lambda s: s.there,
           read=lambda r: None if all(r.response.own) else [1.0] * len(r.response.tokens)),
    Column("guided", "NT", "rollout", "1 on the tokens of mask that a guide wrote in the policy's place: all models say what they think "
           "of them, and the policy does not learn from them; None where there are none",
           absent=0, on_demand=True, read=lambda r: r.response.guided if any(r.response.guided) else None, invent=lambda s: s.guided()),
    Column("tokens", "NT", "rollout", "ids of the response, end token included",
           dtype="int", read=lambda r: r.response.tokens, invent=lambda s: s.tokens),
    Column("prompt", "NP", "rollout", "ids of the prompt, right-padded",
           dtype="int", read=lambda r: r.response.context or r.prompt, invent=lambda s: s.prompts()),
    Column("prompt_mask", "NP", "rollout", "1 on prompt tokens",
           read=lambda r: [1.0] * len(r.response.context or r.prompt), invent=lambda s: s.prompt_mask()),
    Column("group", "N", "rollout", "which prompt of the batch a row answers; rows of one prompt share the number",
           dtype="int", read=lambda r: r.group, invent=lambda s: s.group),
    Column("truncated", "N", "rollout", "1 where the response hit the token budget before its end token",
           read=lambda r: 0.0 if r.response.finished else 1.0, invent=lambda s: s.cut_off()),
    Column("budget", "N", "rollout", "how many tokens the response was allowed",
           dtype="int", read=lambda r: r.budget if r.response.budget is None else r.response.budget, invent=lambda s: s.zeros() + s.budget),
    Column("version", "N", "rollout", "number of the policy (updates so far) that wrote the row",
           dtype="int", read=lambda r: r.response.version, invent=lambda s: s.zeros()),
    Column("age", "N", "recipe", "at how many steps before this one the row was in the batch, where batches are trained on again; None "
           "where all are new", dtype="int", absent=0, invent=lambda s: s.group % 2),
    Column("lag", "N", "engine", "how many updates the policy had seen since it wrote the row when training on the batch began; 0 for rows of "
           "the present policy", dtype="int", absent=0, on_demand=True, invent=lambda s: s.group % 3),
    Column("new_from", "N", "rollout", "index of the first token that no update has been made on, where responses are generated in pieces",
           dtype="int", absent=0, read=lambda r: r.response.new_from, invent=lambda s: s.integers(2)),
    Column("turn", "N", "program", "number of the environment turn that the row is, from 0",
           dtype="int", absent=0, read=lambda r: r.response.turn or None, invent=lambda s: s.integers(2),
           advice="take a rollout that numbers turns (Response.turn) and has 'turn' among its provides"),
    Column("origin", "N", "rollout", "which of the rollout's programs drew the row: 0 the main one, 1 and up auxiliary ones",
           dtype="int", absent=0, read=lambda r: r.response.origin, invent=lambda s: s.integers(2)),
    Column("temperature", "N", "rollout", "sampling temperature, [N, T] where it changes from token to token; all log-probabilities are taken at it",
           padding=1, masked=False, read=lambda r: r.response.heat or r.response.temperature, invent=lambda s: s.temperature()),
    Column("support", "NT", "rollout", "from how many tokens each token was drawn, where draws are truncated (top_p, top_k, min_p); 0 where it was "
           "drawn from the whole vocabulary. All that models say of a token is said over its support", dtype="int", absent=0),
    Column("support_ids", "NV", "rollout", "ids of these tokens, those of each token of the row after those of the one before",
           dtype="int", absent=0),
    Column("routes", "NR", "rollout", "the experts that each token was sent to, prompt first, where they are replayed (routing_replay): 1 + their "
           "numbers, layer after layer, those of each token after those of the one before; 0 where the model chooses by itself",
           dtype="int", absent=0),
    Column("thought", "N", "rollout", "which of its prompt's thoughts a row holds, or answers from",
           dtype="int", absent=0, read=lambda r: r.response.thought, invent=lambda s: s.tree("thought")),
    Column("cut", "N", "rollout", "index of the token before which the row's thought was cut to force an answer; -1 where it was not",
           dtype="int", absent=-1, read=lambda r: r.response.cut, invent=lambda s: s.tree("cut")),
    Column("true_length", "N", "rollout", "true length in tokens where it differs from mask.sum(-1); read it through length()"),
    Column("node", "ND", "rollout", "the nodes that the row passes in the tree of its prompt's responses, from the root's child to its leaf: "
           "numbers from 1 on that mean something within the prompt alone, 0 where the row passes no more. Rows that share the beginning of "
           "their text share its nodes. None where all responses are independent",
           dtype="int", absent=0, read=lambda r: r.response.nodes or None, invent=lambda s: s.tree("node")),
    Column("node_end", "ND", "rollout", "how many tokens of the row lie before the end of each of its nodes",
           dtype="int", absent=0, read=lambda r: r.response.ends or None, invent=lambda s: s.tree("node_end")),
    Column("node_value", "ND", "rollout", "mean reward of fresh continuations from the end of each node, NaN where none were drawn",
           absent=float("nan"), read=lambda r: r.response.values or None, invent=lambda s: s.tree("node_value")),
    Column("sampled_entropy", "NT", "rollout", "entropy in nats of the distribution that each token was drawn from, as the sampler saw it",
           read=lambda r: r.response.entropy, invent=lambda s: s.entropy("old")),
    # What it was worth
    Column("reward", "N", "verdict", "score of the response, after shaping",
           read=lambda r: r.verdict.score, invent=lambda s: s.reward()),
    Column("correct", "N", "verdict", "1 where the judge called the answer right; shaping never changes it",
           on_demand=True, read=lambda r: float(r.verdict.correct), invent=lambda s: s.correct),
    Column("formatted", "N", "verdict", "1 where the judge found the answer in the form that the task asks for",
           on_demand=True, read=lambda r: float(r.verdict.formatted), invent=lambda s: s.formatted()),
    Column("consistency", "N", "judge", "how far the answer follows from the reasoning before it, 1 to -1, where a judge says so",
           absent=0, invent=lambda s: 2 * s.uniform(s.n) - 1),
    Column("wins", "N", "judge", "win rate of the response: mean probability that it is better than another one to the same prompt, where the "
           "judge compares responses", absent=float("nan"), on_demand=True, invent=lambda s: s.wins(), advice="take a judge that compares: a function prefers(prompt, a, b)"),
    Column("beats", "NK", "judge", "probability that the response is better than each one of its group, in their order, where the judge compares "
           "responses; NaN at its own place and past the last", padding=float("nan"), absent=float("nan"), on_demand=True, invent=lambda s: s.beats(),
           advice="take a judge that compares: a function prefers(prompt, a, b)"),
    Column("pass_rate", "N", "verdict", "share of right answers among what the rollout's main program drew for the row's prompt, rows that a "
           "filter has dropped since included", on_demand=True, invent=lambda s: s.pass_rate()),
    Column("history", "NS", "memory", "what the recipe's memory holds of the row's prompt from earlier steps; NaN where it is new",
           absent=float("nan"), on_demand=True, invent=lambda s: s.history(), advice="set memory to the part that keeps it"),
    Column("chosen", "N", "program", "1 on the text of a pair that was preferred, 0 on the other one", absent=0, on_demand=True,
           invent=lambda s: s.correct, advice="take the source PreferencePairs()"),
    Column("score", "N", "program", "what a reward model, or a person, said of a text that the task brings", on_demand=True,
           invent=lambda s: s.normal(s.n), advice="take the source PreferencePairs(columns=('score',))"),
    Column("baseline_reward", "N", "program", "reward to compare with: of the greedy response to the same prompt, or the mean over all that "
           "the rollout drew for it, rows that are not trained on too",
           on_demand=True, invent=lambda s: s.uniform(s.n), advice="take the rollout GroupWithGreedy()"),
    Column("token_reward", "NT", "environment", "reward that falls on single tokens (what an environment gives for a span of a turn, a KL penalty); "
           "reward comes on top, on the last token", absent=0),
    Column("step_reward", "NK", "judge", "rewards of the K steps of a response (process supervision)",
           absent=0, on_demand=True, brings=("step_end",), invent=lambda s: s.uniform(s.n, 2)),
    Column("step_end", "NK", "lines", "index of each step's last token, -1 where a response has fewer steps; where nobody has judged steps, "
           "or said where they end, these are the lines of the response",
           dtype="int", padding=-1, absent=-1, on_demand=True, invent=lambda s: s.step_end()),
    # What an environment said, turn by turn
    Column("turn_end", "NK", "environment", "index of the last token of each of the policy's turns, -1 where an episode has fewer",
           dtype="int", padding=-1, absent=-1, on_demand=True, invent=lambda s: s.step_end(), advice=ENVIRONMENT),
    Column("turn_reward", "NK", "environment", "what the environment gave for each turn; reward is their sum", absent=0, on_demand=True,
           brings=("turn_end",), invent=lambda s: s.uniform(s.n, 2), advice=ENVIRONMENT),
    Column("turn_state", "NK", "environment", "a number for what the policy stood before at each turn: equal ones of one prompt are the same "
           "state", dtype="int", padding=-1, absent=-1, on_demand=True, brings=("turn_end",), invent=lambda s: s.states(), advice=ENVIRONMENT),
    Column("turn_duration", "NK", "environment", "how long each turn's action took, in the environment's own time", absent=0, on_demand=True,
           brings=("turn_end",), invent=lambda s: 0.5 + s.uniform(s.n, 2), advice=ENVIRONMENT),
    Column("truth_logp", "NK", "program", "mean log-probability per token that the policy gives the reference answer before each turn, were it "
           "to answer there; NaN where there is none", padding=float("nan"), absent=float("nan"), on_demand=True, brings=("turn_end",),
           invent=lambda s: -3 * s.uniform(s.n, 2), advice="take a source that asks for the answer after each turn"),
    Column("listened", "N", "program", "how likely another model finds the reference answer once it has read the row's reasoning", absent=0,
           on_demand=True, invent=lambda s: s.uniform(s.n), advice="take a source that asks a listener"),
    Column("episode", "N", "program", "which episode of its prompt a row is a piece of, where episodes are several rows", dtype="int",
           on_demand=True, invent=lambda s: s.episodes(), advice="take a source that divides episodes into rows"),
    Column("noise", "NT", "engine", "random numbers in [0, 1) that came with the tokens, for parts that draw some of them",
           on_demand=True, invent=lambda s: s.uniform(s.n, s.width)),
    Column("advantage", "NT", "recipe", "how much better than expected each token was"),
    Column("returns", "NT", "critic", "what the critic should have predicted", advice="set critic, for example ClippedValueLoss()"),
    # What the models think of it
    Column("old_logp", "NT", "rollout", "log-probability of each token under the policy that wrote it, at the temperature it was sampled with",
           read=lambda r: r.response.logp, invent=lambda s: s.logp("old")),
    Column("rollout_logp", "NT", "engine", "what the sampler said, where old_logp is the trainer's own number for the same weights; None where "
           "the two are one", on_demand=True, invent=lambda s: s.logp("rollout")),
    Column("prox_logp", "NT", "engine", "the same tokens under the policy just before its first update on the batch (with stale or replayed "
           "batches another one than the policy that wrote them)", on_demand=True, invent=lambda s: s.logp("proximal")),
    Column("ref_logp", "NT", "engine", "the same tokens under the reference; short for logp_of[reference]",
           on_demand=True, invent=lambda s: s.logp("reference")),
    Column("prev_logp", "NT", "engine", "the same tokens under the policy of one step before, as it stood before its updates; short for "
           "logp_of[previous]", on_demand=True, invent=lambda s: s.logp("previous")),
    Column("teacher_logp", "NT", "engine", "the same tokens under the teacher; short for logp_of[teacher]",
           on_demand=True, invent=lambda s: s.logp("teacher")),
    Column("old_value", "NT", "critic", "the critic's prediction when the batch was drawn", invent=lambda s: s.value(),
           advice="set critic, for example ClippedValueLoss()"),
    # The leaves that carry the gradient, filled while the objective runs
    Column("logp", "NT", "engine", "log-probability of each token under the policy being trained", invent=lambda s: s.logp("policy")),
    Column("entropy", "NT", "engine", "entropy in nats of the policy's distribution at each token",
           on_demand=True, invent=lambda s: s.entropy("policy")),
    Column("value", "NT", "critic", "the critic's prediction now", on_demand=True, brings=("old_value",), invent=lambda s: s.new_value(),
           advice="set critic, for example ClippedValueLoss()"),
    Column("share", "NT", "recipe", "the weight of each token in the aggregation, made on the whole mini-batch before it is split"),
)
_COLUMNS = {c.name: c for c in _LIBRARY}

FAMILIES = {
    "logp_of": Column("logp_of[NAME]", "NT", "engine", "the same tokens under the frozen model in the role NAME", on_demand=True),
    "component": Column("component[NAME]", "N", "judge", "what one of several judges says, NaN where it does not apply to the row; read it with component()", absent=0),
    "turn_number": Column("turn_number[NAME]", "NK", "environment", "what an environment counted under NAME in each turn; component[NAME] is the sum",
                          absent=0, on_demand=True, brings=("turn_end",), advice=ENVIRONMENT),
    "context": Column("context[NAME]", "NP", "recipe", "ids of the context behind which the look NAME sees the tokens of a row, right-padded", dtype="int", padding=-1, on_demand=True),
    "behind": Column("behind[NAME]", "NT", "engine", "the same tokens behind the context of the look NAME; read it with behind()", on_demand=True),
    "span": Column("span[NAME]", "NT", "lines", "1 on the policy's own tokens that lie in the span NAME of a part, were it with one character; read "
                   "it with span()", absent=0, on_demand=True),
    "statistic": Column("statistic[KEY]", "NT", "engine", "numbers per token from whole next-token distributions; read them with stat() "
                        "and fixed()"),
}
# fmt: on
"""Columns of which there are as many as somebody names."""

SHORT = {"reference": "ref_logp", "previous": "prev_logp", "teacher": "teacher_logp"}
"""Roles whose ``logp_of`` has a shorter name."""
FIXED = "fixed:"
"""Prefix of the keys of statistics that were taken when the batch was annotated."""


def member(family: str, name: str) -> str:
    """The name of a column of a family: ``"component[fluency]"``; a short name where it has one."""
    short = SHORT.get(name) if family == "logp_of" else None
    return short or f"{family}[{name}]"


def split(name: str) -> tuple[str, str] | None:
    """Family and member of a column's name; ``None`` for a column that stands alone."""
    family, bracket, rest = name.partition("[")
    return (family, rest[:-1]) if bracket and rest.endswith("]") and family in FAMILIES and rest != "]" else None


def canonical(name: str) -> str:
    """The name under which a batch keeps a column: ``ref_logp`` for ``logp_of[reference]``."""
    return name if name in _COLUMNS or (parts := split(name)) is None else member(*parts)


def role_of(name: str) -> str | None:
    """The frozen role whose log-probabilities a column holds: ``"reference"`` for ``ref_logp``."""
    for role, short in SHORT.items():
        if name == short:
            return role
    parts = split(name)
    return parts[1] if parts is not None and parts[0] == "logp_of" else None


def find(name: str) -> Column | None:
    """The column of a name, members of families included; ``None`` where none is declared."""
    return _COLUMNS.get(name) or _member(name)


@lru_cache(maxsize=4096)
def _member(name: str) -> Column | None:
    parts = split(name)
    if parts is None:
        return None
    if parts[0] == "logp_of" and parts[1] in SHORT:
        return _COLUMNS[SHORT[parts[1]]]
    family, who = FAMILIES[parts[0]], parts[1]
    invents: dict[str, Callable[[Any], Any]] = dict.fromkeys(("logp_of", "behind"), lambda s: s.logp(who))
    invents["span"] = lambda s: (s.uniform(s.n, s.width) > 0.5) * s.mask
    return Column(
        name, family.axes, family.filled_by, family.sentence, family.dtype, family.padding, family.absent, family.on_demand,
        brings=family.brings, advice=family.advice, invent=invents.get(parts[0]),
    )  # fmt: skip


def known(name: str) -> Column:
    """The column of a name. Raises ``KeyError`` with the nearest names where none is declared."""
    found = find(name)
    if found is None:
        raise KeyError(f"{name!r}: {unknown(name)}")
    return found


def unknown(name: str) -> str:
    """``"no column of a batch has this name; nearest: correct"``, and how to declare one."""
    every = [*_COLUMNS, *(f.name for f in FAMILIES.values())]
    return f"no column of a batch has this name; {nearest(name, every)}; policyopt.column({name!r}, ...) declares one of your own"


def columns() -> Iterator[Column]:
    """Every column that stands alone, the library's and those that were declared since."""
    return iter(tuple(_COLUMNS.values()))


def on_demand(need: str) -> tuple[str, ...]:
    """The columns that are there only where ``need`` is among the needs: itself, and what it brings."""
    found = known(need)
    return (found.name, *found.brings) if found.on_demand else ()


# Columns of one's own ------------------------------------------------------------------------------------------------

_METHODS = frozenset({
    "records", "columns", "clean_columns", "members", "replace", "with_records", "with_statistics", "with_leaves", "to", "cpu", "clone",
    "stat", "fixed", "behind", "component", "components", "span", "shows", "logp_of", "length", "own", "terminal", "total_reward",
})  # fmt: skip
"""What a batch has beside its columns."""


def column(
    name: str, *, sentence: str, filled_by: Literal["program", "judge", "part"], axes: Literal["N", "NT", "NK"] = "N",
    dtype: Literal["float", "int"] = "float", padding: float = 0, absent: float | str = 0, advice: str = "",
    invent: Callable[[Any], Any] | None = None,
) -> Column:  # fmt: skip
    """Declare a column of one's own, at module level: ``column("confidence", sentence="...", filled_by="judge")``.

    ``axes`` is "N" for a number per response, "NT" for one per token, "NK" for several. A program fills it through
    ``Response.columns``, a judge through the ``parts`` of its verdict, a part by ``batch.replace``. ``absent`` stands
    where nobody has filled it. ``invent`` makes one for the random batches of ``check``: ``lambda s: s.uniform(s.n)``.

    Declaring it again changes nothing. Raises :class:`~policyopt.errors.UserError` for a name that is taken by another
    declaration, or that is no name.
    """
    file = sys._getframe(1).f_code.co_filename
    if not name.isidentifier() or name.startswith("_") or name in _METHODS or name in FAMILIES:
        raise UserError(f"column {name!r}: take a name of letters, digits and _ that means nothing else on a batch")
    choices = {
        "axes": (axes, ("N", "NT", "NK")),
        "filled_by": (filled_by, ("program", "judge", "part")),
        "dtype": (dtype, ("float", "int")),
    }
    for option, (value, allowed) in choices.items():
        if value not in allowed:
            raise UserError(f"column {name!r}: {option} is {value!r}, expected one of {', '.join(allowed)}")
    new = Column(
        name, axes, filled_by, sentence, dtype, padding, absent, on_demand=True, advice=advice, invent=invent, file=file
    )
    old = _COLUMNS.get(name)
    if old is not None and old != new and old.file != file:
        place = f"{old.file} declares" if old.file else "the library has"
        raise UserError(
            f"column {name!r} of {file}: {place} another one of this name ({old.shape}: {old.sentence}); take another name"
        )
    _COLUMNS[name] = new
    return new


@contextmanager
def forgotten() -> Iterator[None]:
    """What is declared inside is forgotten afterwards."""
    before = dict(_COLUMNS)
    try:
        yield
    finally:
        _COLUMNS.clear()
        _COLUMNS.update(before)


def advice(found: Column) -> str:
    """What would fill a column that nothing fills."""
    usual = {
        "program": f"take a rollout program with {found.name!r} among its provides",
        "part": f"add a part with {found.name!r} among its provides",
        "judge": f"take a judge function with @policyopt.judge(columns=({found.name!r},))",
    }
    return found.advice or usual.get(found.filled_by, "")


def table() -> str:
    """All columns of the library as a Markdown table, for the documentation."""
    every = [*(c for c in columns() if not c.file), *FAMILIES.values()]
    rows = [f"| `{c.name}` | {c.shape} | {c.filled_by} | {c.sentence} |" for c in every]
    return "\n".join(["| Column | Shape | Filled by | Meaning |", "|---|---|---|---|", *rows])


assert set(ALWAYS) | set(OPEN) <= set(get_args(Filler))
