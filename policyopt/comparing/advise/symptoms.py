"""The symptoms of a run: by what the log shows them, where to look, what to change, and how one sees that it helped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policyopt.comparing.advise.condition import Condition
from policyopt.errors import UserError, nearest


@dataclass(frozen=True)
class Symptom:
    """Something that goes wrong in training, and what addresses it. A run has it where all conditions hold."""

    name: str
    says: str
    """It in words."""
    first: str
    """What to look at before a change."""
    worked: str
    """How one sees that the change helped."""
    when: tuple[Condition, ...] = ()
    """By what a log shows it; none where no log does."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Options of ``policyopt train``, each with what it does about it."""
    methods: Mapping[str, str] = field(default_factory=dict)
    """Methods, each with what it does about it."""
    shown: tuple[str, ...] = ()
    """Metrics that are worth a look beside those of the conditions."""


_NOT_LEARNING = Condition("accuracy", "rise", below=0.02)
_FEW = Condition("signal/groups", "level", below=0.3)

SYMPTOMS: tuple[Symptom, ...] = (
    Symptom(
        "not-finite", "loss or gradient is not finite, and updates are left out",
        "the batches in `skipped/` of the run, and the step before the first of them in `samples.jsonl`",
        "`update/skipped` stays 0",
        (Condition("update/skipped", "total", above=0),),
        {"--dtype float32": "more precision", "--optim.lr": "a third of it"},
        {"stablereinforce": "log-ratios are held before they become exponentials"},
        ("grad_norm",),
    ),
    Symptom(
        "judge-fails", "the judge fails on responses, which then teach nothing",
        "the reasons in `samples.jsonl`: time, memory, or an error of its own",
        "`judge/failed` stays 0",
        (Condition("judge/failed", "total", above=0.01, per="responses"),),
        {"--judging.timeout": "more seconds for a response", "--judging.memory-mb": "more memory for the judge"},
        shown=("prompts/unrewarded", "judge/absent"),
    ),
    Symptom(
        "mismatch", "sampler and trainer disagree about the same weights",
        "the precision of both (`--dtype`), and whether another engine samples",
        "`sampler/outside` is small, `accuracy` rises again",
        (Condition("mismatch/mean", "level", above=0.01),),
        {"--dtype float32": "no rounding between the two"},
        {
            "tis": "weighs each token by trainer over sampler, cut at a bound",
            "minirl": "the same in REINFORCE, with a mask for what has moved too far",
        },
        ("mismatch/max", "sampler/outside"),
    ),
    Symptom(
        "nothing-right", "nothing is right, so there is nothing to learn from",
        "three responses with the judge's reasons: `policyopt sample --model MODEL --task TASK --judge JUDGE`; often the judge does not "
        "find the answer",
        "`signal/groups` above 0",
        (Condition("accuracy", "level", below=0.01), Condition("signal/groups", "level", below=0.1)),
        {"--prompting.system": "says where the answer shall stand", "--max-tokens": "room to come to an answer"},
        {
            "ghpo": "the beginning of the solution where a whole group fails (it needs worked solutions in the data)",
            "guide": "the same questions with a hint",
            "scaf-grpo": "the weakest hint that suffices",
            "prefix-rl": "beginnings of right answers",
        },
        ("format", "length/truncated"),
    ),
    Symptom(
        "rare-success", "hardly any group has a right answer",
        "easier questions, or a mixture in which easier ones come first",
        "`signal/groups` rises, `eval/pass@k` with it",
        (Condition("accuracy", "level", above=0.01), Condition("accuracy", "level", below=0.2), _FEW),
        {"--group-size": "larger groups find more of the rare answers"},
        {
            "maxrl": "rare successes count most",
            "dars": "more responses to hard prompts",
            "reinforce-ada": "draws until a prompt has shown both outcomes",
            "xrpo": "responses where they tell most, solved problems beside hopeless ones",
            "pass-at-k": "one right answer in a group is what counts",
        },
        ("eval/pass@", "filtered"),
    ),
    Symptom(
        "groups-alike", "most groups are all right or all wrong, and teach nothing",
        "harder questions where all are right; a mixture of them where it is half and half",
        "`signal/groups` near 1",
        (Condition("accuracy", "level", above=0.2), _FEW),
        {"--recipe.source.temperature": "a little more variety, up to where `accuracy` suffers"},
        {
            "dapo": "draws again until groups differ",
            "reinforce-ada": "draws in rounds until a prompt has shown both outcomes",
            "ulorl": "no gradient on what is known, so that it is not driven further",
            "multirole-r1": "variety tells responses apart where the judge does not",
        },
        ("eval/accuracy", "filtered"),
    ),
    Symptom(
        "thrown-away", "most of what is drawn is thrown away by filters",
        "which questions are left: too easy or too hard ones are better left out of the data",
        "`filtered` falls, `tokens_per_s` rises",
        (Condition("filtered", "level", above=0.5),),
        methods={
            "reinforce-ada": "stops to draw where a prompt has shown enough",
            "xrpo": "draws where it tells most",
            "grpo": "without the filter: groups that are alike cost their tokens and do no harm",
        },
        shown=("prompts", "signal/groups"),
    ),
    Symptom(
        "bad-format", "the answer does not stand where the judge looks for it",
        "responses in `samples.jsonl` with the judge's reasons",
        "`format` near 1",
        (Condition("format", "level", below=0.5),),
        {"--prompting.system": "says how to answer", "--judge": "one that reads what the model writes"},
        {"rl-struct": "the form is part of the reward, for structured output"},
        ("accuracy", "length/truncated"),
    ),
    Symptom(
        "truncated", "responses are cut off at the budget",
        "whether those that are cut off go somewhere, or go round in circles",
        "`length/truncated` below a tenth",
        (Condition("length/truncated", "level", above=0.1),),
        {"--max-tokens": "a larger budget"},
        {
            "dapo": "a penalty that sets in softly before the budget ends",
            "open-rs": "short right answers are worth most",
            "t-ppo": "learns from responses that are still being written",
            "brpo-anytime": "an answer has to be good wherever it is cut",
        },
        ("length/mean", "length/max"),
    ),
    Symptom(
        "too-long", "answers get longer and not better",
        "whether right or wrong ones grow, and whether the budget is part of the task",
        "the same accuracy at fewer tokens",
        (Condition("length/mean", "times", above=1.3), Condition("accuracy", "rise", below=0.05)),
        {},
        {
            "dr-grpo": "no division by length, which favours long wrong answers",
            "open-rs": "short right answers are worth most",
            "dapo": "a penalty that sets in softly before the budget ends",
            "s-grpo": "the earlier a right answer the better",
            "brpo-anytime": "an answer has to be good wherever it is cut",
            "rmt": "a budget that shrinks",
        },
        ("length/truncated", "eval/length", "eval/accuracy"),
    ),
    Symptom(
        "too-short", "answers get shorter and worse",
        "whether the judge, or a penalty on length, rewards short ones",
        "length and accuracy stay",
        (Condition("length/mean", "times", below=0.7), Condition("accuracy", "fall", above=0.05)),
        {},
        {
            "luspo": "for sequence ratios: each response counts with its length",
            "dr-grpo": "no division by length",
        },
        ("eval/length", "eval/accuracy"),
    ),
    Symptom(
        "entropy-falls", "the entropy is used up while answers are still wrong",
        "a lower `--optim.lr`",
        "`eval/pass@k` holds",
        (Condition("entropy", "times", below=1 / 3), Condition("eval/accuracy", "level", below=0.9, instead="accuracy")),
        {
            "--recipe.surrogate.high 0.28": "room for unlikely tokens to grow, where batches make several updates",
            "--optim.lr": "a third of it",
        },
        {
            "clip-cov": "leaves out a few of the tokens that drain it",
            "kl-cov": "a penalty on the few tokens that drain it",
            "lp-reg": "protects rare tokens of wrong answers",
            "entropy-high-tokens": "trains only where the policy is undecided",
            "aepo": "holds it at a target",
            "siren": "holds it at its first value",
        },
        ("eval/pass@", "signal/groups"),
    ),
    Symptom(
        "entropy-rises", "the entropy explodes, and texts become noise",
        "an entropy bonus that has no target, and the texts in `samples.jsonl`",
        "texts stay readable",
        (Condition("entropy", "times", above=1.5), _NOT_LEARNING),
        {
            "--recipe.regularizers.KL.coef 0.04": "holds the policy near its start",
            "--recipe.source.temperature": "lower: unlikely tokens are drawn less",
        },
        {
            "epo": "a penalty where it leaves a band around its history",
            "siren": "holds it at its first value",
            "aepo": "holds it at a target",
        },
        ("kl/ref", "format"),
    ),
    Symptom(
        "one-answer", "the first answer gets better, and several no longer find more",
        "`eval/pass@k` before and after: what the policy could find, it finds no more",
        "`eval/pass@k` rises with `eval/accuracy`",
        (Condition("eval/pass@", "fall", above=0.04), Condition("eval/accuracy", "rise", above=0.02)),
        {"--recipe.source.temperature": "higher, if it has been lowered"},
        {
            "pass-at-k": "trains the chance that one of k is right",
            "unlikeliness": "right answers that were likely already are worth less",
            "rapo": "a KL that leaves new ground free",
            "clip-cov": "keeps the entropy up",
        },
        ("entropy",),
    ),
    Symptom(
        "clipped", "a large part of the tokens is clipped away",
        "how many updates a batch makes (`update/count`), and how old it is (`--staleness`); ratios of whole responses (`gspo`) are clipped "
        "more than those of tokens by design",
        "`clip_fraction` falls, accuracy holds",
        (Condition("clip_fraction", "level", above=1 / 3),),
        {
            "--recipe.update.epochs": "fewer passes over a batch",
            "--recipe.update.minibatches": "fewer updates per batch",
            "--optim.lr": "a third of it",
        },
        {
            "gspo": "one ratio and one clip for a response",
            "cispo": "clips the weight, and every token keeps a gradient",
            "gppo-klear": "a clipped token keeps the gradient that it has at the bound",
            "bapo": "bounds that move so that good tokens supply their share",
            "sapo-soft": "a smooth gate in the place of the clip",
        },
        ("update/count", "update/kl", "staleness/mean"),
    ),
    Symptom(
        "stale", "the data is old, and nothing is gained with it",
        "fewer updates per batch, a smaller `--staleness`",
        "accuracy rises at the same staleness",
        (Condition("staleness/mean", "level", above=1.5), _NOT_LEARNING),
        {"--staleness": "a batch is trained sooner", "--optim.lr": "the policy moves less meanwhile"},
        {
            "vespo": "the ratio of a whole response, tamed",
            "minpro": "one token that has drifted damps all after it",
            "r2vpo": "the variance of the ratio is held at a limit",
            "cispo": "every token keeps a gradient",
            "tis": "corrects for who drew",
            "remix": "made for replay of earlier batches",
        },
        ("staleness/max", "clip_fraction", "update/kl"),
    ),
    Symptom(
        "collapse", "the run has lost part of what it had reached",
        "the steps after the best one, in `samples.jsonl` and the report; keep the best model: `--checkpoints.best eval/accuracy`",
        "the end is the best",
        (Condition("eval/accuracy", "drop", above=0.1, instead="accuracy"),),
        {"--optim.lr": "a third of it", "--recipe.regularizers.KL.coef": "more of it: the policy stays nearer to its start"},
        {
            "gspo": "one ratio for a response: a few tokens cannot rule it",
            "stablereinforce": "outliers of ratio and advantage are held",
            "gtpo": "what right and wrong answers begin with is not blamed for what goes wrong further on",
            "dual-clip": "a ceiling on the loss of bad tokens",
        },
        ("grad_norm", "entropy", "kl/ref", "length/mean"),
    ),
    Symptom(
        "jumps", "the gradient of some steps is a multiple of the others",
        "the step before, in `samples.jsonl` and the report",
        "no jumps",
        (Condition("grad_norm", "peak", above=10),),
        {"--optim.lr": "a third of it", "--optim.clip-norm": "near the median of `grad_norm`"},
        {
            "stablereinforce": "outliers of ratio and advantage are held",
            "dual-clip": "a ceiling on the loss of bad tokens",
            "gppo-klear": "bounded weights on both sides",
        },
        ("update/skipped", "update/size"),
    ),
    Symptom(
        "far-away", "the policy is far from its start, and may have forgotten the rest",
        "other skills than the trained one: `policyopt eval --model RUN/model --task ANOTHER`",
        "`kl/ref` stays",
        (Condition("kl/ref", "level", above=0.1),),
        {
            "--recipe.regularizers.KL.coef": "more of it",
            "--optim.lr": "a third of it",
            "--lora": "adapters, which can change less",
        },
        {
            "mdpo": "a KL to the policy of the iteration's start",
            "r2vpo": "the variance of the ratio is held at a limit",
            "grpo-d": "a KL that grows: explore first, then keep",
        },
        ("eval/accuracy",),
    ),
    Symptom(
        "fooled", "the reward rises and right answers do not: something else is rewarded",
        "a second judge beside the first (`--judge correct=... --judge brief=...`), and what people say of the answers with the most "
        "reward; a penalty on length does this on purpose",
        "reward and accuracy rise together",
        (Condition("reward/mean", "rise", above=0.5, per="reward/std"), _NOT_LEARNING),
        {"--recipe.regularizers.KL.coef": "more of it: less of the judge's weak spots is found"},
        {
            "constrained-rlhf": "each component of the reward only up to where it is a good proxy",
            "cgpo": "a mixture of judges says whether a reward counts",
            "orpo-chi2": "near the start in whole distributions",
            "pf-ppo": "trains on the ranks on which the reward can be trusted",
        },
        ("eval/accuracy", "component/@", "kl/ref"),
    ),
    Symptom(
        "by-heart", "training gets better and held-out questions do not",
        "whether the held-out questions are of the same kind; how often each training question came (`prompts` times steps over the rows)",
        "`eval/accuracy` follows `accuracy`",
        (Condition("accuracy", "rise", above=0.1), Condition("eval/accuracy", "rise", below=0.02)),
        {"--task": "more questions", "--stopping.metric eval/accuracy": "ends where held-out questions no longer gain"},
        {"dapo": "drops the questions that are known", "ulorl": "no gradient on what is known"},
        ("eval/pass@", "kl/ref"),
    ),
    Symptom(
        "stands-still", "groups differ, and still the policy stays what it was",
        "`update/size` and `lr`: a full model at 1e-6 takes hundreds of steps",
        "`accuracy` moves",
        (
            _NOT_LEARNING, Condition("accuracy", "fall", below=0.02), Condition("signal/groups", "level", above=0.3),
            Condition("entropy", "times", above=0.9), Condition("entropy", "times", below=1.1),
            Condition("accuracy", "level", below=0.9),
        ),
        {"--optim.lr": "three times as much", "--batch": "larger batches, where `accuracy` is noise", "--steps": "more of them"},
        shown=("update/size", "lr", "kl/ref"),
    ),
    Symptom(
        "one-number", "there is one right number in a long answer, and which step was right is not known",
        "whether you can branch, or the judge rewards steps",
        "credit differs inside a response",
        methods={
            "spo-segment": "segments are worth what they change",
            "treepo": "a mean advantage for each segment of a tree",
            "tempo": "branches tell which tokens mattered",
            "ppo": "a critic spreads credit",
        },
    ),
    Symptom(
        "teacher", "a better model is at hand",
        "whether it has the same vocabulary",
        "`accuracy` above plain `grpo` at the same tokens",
        settings={"--teacher": "the better model"},
        methods={
            "gkd": "its whole distribution on the policy's own responses",
            "kdrl": "rewards explore, the teacher says something of every token",
            "rlgf": "it begins responses, or finishes them",
        },
    ),
    Symptom(
        "pairs", "there are pairs of texts in the place of a judge",
        "columns `chosen` and `rejected`; `examples/dpo_by_hand.py` trains on them, with the source `PreferencePairs`",
        "`pairs/accuracy` rises",
    ),
)  # fmt: skip
"""All of them; those come first that make others moot."""


def symptom(name: str) -> tuple[Symptom, ...]:
    """The symptom of a name, or all those whose names begin so: ``entropy``.

    Raises :class:`~policyopt.errors.UserError` with the nearest names where there is none.
    """
    asked = name.strip().casefold().replace("_", "-").replace(" ", "-")
    exact = tuple(s for s in SYMPTOMS if s.name == asked)
    found = exact or tuple(s for s in SYMPTOMS if asked and s.name.startswith(asked))
    if not found:
        known = nearest(name, [s.name for s in SYMPTOMS])
        raise UserError(f"no symptom is called {name!r}; {known} (`policyopt advise` lists all)")
    return found
