"""What a part is, and the slots of a recipe that parts fill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, fields
from typing import Any, ClassVar, Literal

from torch import Tensor

from policyopt.checked import UNITS as UNITS
from policyopt.checked import Count as Count
from policyopt.checked import Finite as Finite
from policyopt.checked import Fraction as Fraction
from policyopt.checked import Label as Label
from policyopt.checked import Level as Level
from policyopt.checked import NonNegative as NonNegative
from policyopt.checked import Positive as Positive
from policyopt.checked import RoleName as RoleName
from policyopt.checked import Unit as Unit
from policyopt.checked import Whole as Whole
from policyopt.checked import part as part
from policyopt.items import Attempt, Example
from policyopt.rows import Batch
from policyopt.schema import member


@part
class Part:
    """Pure mathematics on a :class:`~policyopt.rows.Batch`; its fields are its hyper-parameters."""

    label: Label | None = field(default=None, kw_only=True, compare=False, repr=False)
    """A name for the part in its slot, where several of its class stand there."""

    # What a part says of itself: a class attribute of a subclass (``needs: ClassVar = ...``), or a property where it follows from fields.

    @property
    def needs(self) -> frozenset[str]:
        """Columns (:mod:`policyopt.schema`) beyond ``logp`` that the part reads and that cost something or may be missing:
        "entropy", "ref_logp", "logp_of[NAME]", "value", "correct", or one that somebody has declared."""
        return frozenset()

    @property
    def provides(self) -> frozenset[str]:
        """Columns that the part fills and that are not there otherwise."""
        return frozenset()

    @property
    def asks(self) -> frozenset[str]:
        """What the part needs an engine to be able to do, by the names of :mod:`policyopt.capability`; what follows from
        columns, statistics and roles need not be said."""
        return frozenset()

    @property
    def unit(self) -> Unit:
        """The smallest piece of a batch on which the part gives the same numbers as on the whole."""
        return "token"

    @property
    def min_group(self) -> int:
        """How many responses to one prompt the part needs for its statistic to exist."""
        return 1

    @property
    def handle(self) -> str:
        """What paths call the part: its label, or the name of its class."""
        return self.label or type(self).__name__

    @property
    def live(self) -> tuple[Statistic, ...]:
        """Statistics of the policy being trained that the part reads with ``batch.stat``: they carry gradient."""
        return ()

    @property
    def fixed(self) -> tuple[Statistic, ...]:
        """Statistics that the part reads with ``batch.fixed``: taken once, by the policy as it is when the batch is
        annotated."""
        return ()


class Wrapper(Part):
    """A part around another one: it reads what that one reads, on the same piece of a batch."""

    around: ClassVar[str] = "inner"
    """The field that holds the other part, or None where there is none."""

    @property
    def within(self) -> Part:
        """The other part."""
        return getattr(self, self.around) or Part()

    @property
    def needs(self) -> frozenset[str]:
        """What the part within reads."""
        return self.within.needs

    @property
    def provides(self) -> frozenset[str]:
        """What the part within fills."""
        return self.within.provides

    @property
    def unit(self) -> Unit:
        """That of the part within."""
        return self.within.unit

    @property
    def min_group(self) -> int:
        """That of the part within."""
        return self.within.min_group

    @property
    def live(self) -> tuple[Statistic, ...]:
        return self.within.live

    @property
    def fixed(self) -> tuple[Statistic, ...]:
        return self.within.fixed


class Statistic(Part):
    """A number per token made from whole next-token distributions, worked out chunk by chunk.

    It stands inside other parts, which list it under ``live`` or ``fixed``; equal statistics are computed once.
    """

    @property
    def roles(self) -> frozenset[str]:
        """Whose logits it reads beside the policy's: "reference", "teacher"."""
        return frozenset()

    columns: ClassVar[tuple[str, ...]] = ()
    """Columns [N] of the batch that it reads, such as "reward"; it finds them in ``others``, [M]."""

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        """The number of each token, [M], from the policy's logits [M, V], the sampled ids [M], and the logits of other
        roles and the ``columns`` by name.

        All logits are over the sampling temperature of their row, in float32 or float64.
        """
        raise NotImplementedError

    @property
    def key(self) -> str:
        """Its name in the batch; statistics with the same fields share it."""
        return repr(self)


@part
class Look(Part):
    """A second look at the tokens of a row: their log-probabilities behind another context.

    It stands inside other parts, which have its ``column`` among their needs and read it with ``batch.behind``. Tokens, temperature and
    support are those of the draw; there is no gradient.
    """

    role: Literal["policy"] | RoleName = "policy"
    """Who looks: the policy as it is when the batch is annotated, or a frozen model."""

    def messages(self, messages: Sequence[Mapping[str, str]], key: tuple[int, ...]) -> list[Mapping[str, str]]:
        """The chat messages of the other context, from those of the row's prompt; what is left to chance follows from its ``key``."""
        raise NotImplementedError

    def hindsight(
        self, example: Example, attempts: Sequence[Attempt], place: int, key: tuple[int, ...]
    ) -> Sequence[Mapping[str, str]]:
        """The same from more than the prompt: from what the task brings, and all responses of the group with what was said of them, of
        which the row's own is the one at ``place``."""
        return self.messages(example.prompt, key)

    @property
    def key(self) -> str:
        """Its name in the batch; looks with the same fields share it."""
        return repr(self)

    @property
    def column(self) -> str:
        """The column that holds what it finds, [N, T]."""
        return member("behind", self.key)


class Span(Part):
    """Places of a text, such as its answer or the words with which it plans: which tokens a part is about.

    It stands in a field of another part, which has its ``column`` among its ``needs`` and reads ``batch.span(self.span)``. Unlike
    spans of a recipe have unlike handles, which name them.
    """

    def __call__(self, text: str) -> list[tuple[int, int]]:
        """Where they begin and end, in characters, from the text of a response as a judge reads it: hostile text too, so in linear time or
        with a limit."""
        raise NotImplementedError

    @property
    def column(self) -> str:
        """``span[NAME]``, the column [N, T] that is 1 on the tokens that it touches."""
        return member("span", self.handle)


class Shape(Part):
    """Reward shaping: returns the batch with ``reward`` [N] or ``token_reward`` [N, T] changed."""

    def __call__(self, batch: Batch) -> Batch:
        raise NotImplementedError


class Filter(Part):
    """Which rows are trained on: returns a boolean [N]."""

    def __call__(self, batch: Batch) -> Tensor:
        raise NotImplementedError


class Advantage(Part):
    """How much better than expected each token was: returns [N, T], zero on padding."""

    def __call__(self, batch: Batch) -> Tensor:
        raise NotImplementedError


class Ratio(Part):
    """The logarithm of an importance ratio: returns [N, T]."""

    level: ClassVar[Level] = "token"
    """Whether the tokens of a response have ratios of their own, or share one."""

    def __call__(self, batch: Batch) -> Tensor:
        raise NotImplementedError


class OnRatio(Part):
    """What surrogates and weights have in common: takes the log-ratio [N, T] and the batch, returns [N, T]."""

    @property
    def levels(self) -> frozenset[Level]:
        """The ratios that it makes sense for: {"token"} where each token has bounds of its own."""
        return frozenset({"token", "sequence"})

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        raise NotImplementedError

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """What the log should say of this part: name -> [N, T], averaged over the tokens of the batch."""
        return {}


class Surrogate(OnRatio):
    """The loss of each token, to be minimised: takes the log-ratio [N, T] and the batch, returns [N, T].

    The loss of a whole response is repeated on its tokens, under an aggregation whose shares add up to 1/N in each row.
    """


class Weight(OnRatio):
    """A detached factor on the surrogate of each token: takes the log-ratio [N, T] and the batch, returns [N, T]."""


class Aggregate(Part):
    """How token losses become one number: returns the share [N, T] of each token, so that ``loss = (share *
    token_loss).sum()``.

    Shares depend on masks and lengths alone. They are made once on the whole mini-batch, which is why splitting
    it into micro-batches changes nothing.
    """

    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        raise NotImplementedError


class Regularizer(Part):
    """A further loss, its coefficient included: [N, T] per token, aggregated like the surrogate, or one number for the
    whole mini-batch (``unit`` is then "batch")."""

    def __call__(self, batch: Batch) -> Tensor:
        raise NotImplementedError

    def metrics(self, batch: Batch) -> Mapping[str, Tensor]:
        """What the log should say of this part: name -> [N, T], averaged over the tokens of the batch."""
        return {}


class Critic(Part):
    """The loss of a learned value function and the target that it is trained towards."""

    provides: ClassVar[frozenset[str]] = frozenset({"value", "old_value", "returns"})

    def target(self, batch: Batch) -> Tensor:
        """What the critic should have predicted, [N, T]; computed once when the batch is drawn."""
        raise NotImplementedError

    def __call__(self, batch: Batch) -> Tensor:
        """Loss per token [N, T], or one number for the whole mini-batch (``unit`` is then "batch"): a function of
        ``value``, ``old_value`` and ``returns``."""
        raise NotImplementedError


@part
class Controller(Part):
    """Moves one field of a part between steps: ``(value, metrics, state) -> value``.

    It knows no recipe. What it remembers is a dictionary of numbers that the loop keeps and checkpoints.
    """

    field: str
    """Path of the field that it moves, by names: ``surrogate.high``, ``regularizers.KL.coef``."""

    def start(self) -> dict[str, float]:
        """The state before the first step."""
        return {}

    def __call__(self, value: Any, metrics: Mapping[str, float], state: dict[str, float]) -> Any:
        """What the field holds at the next step.

        ``value`` is what it holds now, ``metrics`` are those of the last step (empty before the first). ``state`` is
        changed in place.
        """
        raise NotImplementedError


class Reference(Part):
    """How the reference model follows the policy."""

    moves: ClassVar[bool] = True
    """Whether it does at all."""

    def __call__(self, step: int) -> float:
        r"""The fraction f of the way that the reference goes towards the policy after a step (counted from 1):
        :math:`\theta_{ref} \leftarrow \theta_{ref} + f\,(\theta - \theta_{ref})`."""
        raise NotImplementedError


class Memory(Part):
    """What is remembered of each prompt until it comes again, or of each role: ``width`` numbers, kept in the checkpoint.

    Parts read it as ``batch.history`` [N, width], NaN where the prompt, or the role, has not been seen.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"history"})
    width: ClassVar[int] = 1
    of: ClassVar[Literal["prompt", "role"]] = "prompt"
    """What it is of. A role is a source of the data together with an ``origin``: the same seat of the same game, say."""

    def __call__(self, batch: Batch) -> Tensor:
        """The new memory of each row's prompt, [N, width], the same for all rows of a group; called once the advantage
        is there. That of a role is asked about one row after the other, each with the ``history`` that the rows before it have left."""
        raise NotImplementedError


@part
class Curriculum(Part):
    """Which prompts a step takes, in the place of every prompt once a pass.

    One that reads the memory has "history" among its ``needs``.
    """

    pool: Count = 1024
    """Of a task that makes its prompts on demand, it chooses among so many; of a list, among all."""

    def weights(self, memory: Tensor) -> Tensor:
        """How the prompts of a step are chosen, from the memory of all prompts [P, width], NaN where one has not been
        seen (width 0 where the recipe keeps no memory).

        Either a float [P], at least 0: prompts are drawn in proportion to it, none twice in a step; those of weight 0 come
        when no other is left. Or whole numbers [P]: all prompts in the order in which they are taken, first ones first.
        """
        raise NotImplementedError


class Probe(Part):
    """A measurement beside training that ends in the log; it changes nothing."""

    def parameters(self, now: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, float]:
        """Metrics from the trained parameters by name, now and before the first step."""
        return {}

    def samples(self, reward: Tensor, log_ratio: Tensor) -> dict[str, float]:
        """Metrics from an evaluation: rewards [P, K] of K sampled responses to each of P held-out prompts, and
        the log-ratio of policy to start of each whole response, in nats, [P, K]."""
        return {}

    def model(self, policy: Any, batch: Batch) -> dict[str, float]:
        """Metrics from the trained model (a :class:`~policyopt.models.load.Policy`) and the sampled responses of an
        evaluation, with their rewards; those of a prompt are a group. Only where the model is in this process."""
        return {}


def within(part: Part) -> Iterator[Part]:
    """The parts that stand in the fields of a part."""
    for f in fields(part):
        value = getattr(part, f.name)
        yield from (p for p in (value if isinstance(value, tuple) else (value,)) if isinstance(p, Part))


def nested(part: Part) -> Iterator[Part]:
    """A part and those that it is made of."""
    yield part
    for inner in within(part):
        yield from nested(inner)
