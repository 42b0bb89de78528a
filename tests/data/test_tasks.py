"""The built-in tasks, and any dataset of reasoning-gym."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyopt.data import builtin_tasks, load_task
from policyopt.data.reasoning import held_out
from policyopt.errors import UserError
from policyopt.items import EnvironmentSpec, Example, Task, user
from policyopt.judging.answers import answer_line, find_answer
from policyopt.judging.judges import make_judge
from policyopt.judging.kinds import Judge
from policyopt.judging.reasoning_judge import RUN_BY_LIBRARY, library_judge
from policyopt.models.embedded import Architecture, build_embedded
from policyopt.models.warmstart import WarmStart
from tests.commands import write_rows

NAMES = ("chain_sum", "countdown", "number_sorting", "simple_equations", "spell_backward")


@pytest.fixture(scope="module")
def tasks() -> dict[str, tuple[Task, Judge]]:
    return {name: (task, make_judge(task.judge)) for name in NAMES for task in [load_task(name, heldout=64)]}


def text(example: Example) -> str:
    (message,) = example.prompt
    assert message["role"] == "user"
    return message["content"]


def other_answer(answer: str) -> str:
    """An answer of the same form that is wrong: one digit or letter is another."""
    last = max(i for i, c in enumerate(answer) if c.isalnum())
    c = answer[last]
    swapped = str((int(c) + 1) % 10) if c.isdigit() else chr(ord("a") + (ord(c.lower()) - ord("a") + 1) % 26)
    return answer[:last] + swapped + answer[last + 1 :]


def test_the_list_of_tasks() -> None:
    assert tuple(builtin_tasks()) == (
        *NAMES,
        "ties",
        "sparse-hard",
        "mixed-difficulty",
        "many-answers",
        "biased-length",
        "proxy-reward",
        "verbose",
        "context-use",
        "biased-thought",
        "shortcut",
        "modes",
        "cyclic",
        "assign",
        "noisy-judge",
        "long-winded",
        "json",
        *(f"requests:{x}" for x in NAMES),
        *(f"{family}:{x}" for family in ("pairs", "pairs-length") for x in ("chain_sum", "simple_equations")),
        "calculator",
        "maze",
        "injected-maze",
        "shop",
        "bandit",
        "screen",
        "history",
        "retrieval",
    )
    assert all(summary and "\n" not in summary for summary in builtin_tasks().values())


@pytest.mark.parametrize("name", NAMES)
class TestBuiltin:
    def test_judge_accepts_every_worked_solution_and_no_wrong_answer(self, name, tasks) -> None:
        task, judge = tasks[name]
        for example in [*(task.train[i] for i in range(200)), *task.heldout]:
            right = judge(example, example.solution)
            assert (right.score, right.correct, right.formatted, right.failed) == (1.0, True, True, False), right
            assert example.solution.splitlines()[-1] == answer_line(example.answer)
            wrong = judge(
                example, example.solution.rsplit("\n", 1)[0] + "\n" + answer_line(other_answer(example.answer))
            )
            assert (wrong.score, wrong.correct, wrong.formatted) == (0.0, False, True), wrong

    def test_bad_forms_score_nothing(self, name, tasks) -> None:
        task, judge = tasks[name]
        example = task.heldout[0]
        assert not judge(example, "").formatted
        bare = judge(example, example.answer)
        assert (bare.score, bare.formatted) == (0.0, False)
        chatty = judge(example, f"{example.solution}\nor not")
        assert (chatty.score, chatty.formatted) == (0.0, False)
        # Several guesses: the last one counts
        assert judge(example, f"{answer_line('7')}\n{answer_line(example.answer)}").correct
        assert not judge(example, f"{answer_line(example.answer)}\n{answer_line('')}").correct
        assert not judge(example, f"{answer_line(example.answer)}\n{answer_line(other_answer(example.answer))}").correct

    def test_train_and_heldout_are_disjoint_whatever_the_seed(self, name, tasks) -> None:
        task, _ = tasks[name]
        held = {text(e) for e in task.heldout}
        assert len(held) == len(task.heldout) == 64
        assert all(held_out(prompt) for prompt in held)
        for seed in (0, 1):
            train = [text(e) for e in islice(load_task(name, seed=seed, heldout=1).train, 500)]
            assert not any(held_out(prompt) for prompt in train)
            assert len(set(train)) > 400

    def test_deterministic_in_the_seed(self, name, tasks) -> None:
        task, _ = tasks[name]
        same, other = load_task(name, heldout=64), load_task(name, seed=1, heldout=64)
        # Any order of access gives the same questions
        assert [same.train[i] for i in (70, 3, 12)] == [task.train[i] for i in (70, 3, 12)]
        assert list(same.heldout) == list(task.heldout) == list(other.heldout)
        assert [text(e) for e in other.train[:50]] != [text(e) for e in task.train[:50]]

    def test_small_enough_for_the_embedded_model(self, name, tasks) -> None:
        task, _ = tasks[name]
        examples = [*task.heldout, *task.train[:300]]
        assert max(len(text(e)) for e in examples) < 60
        lengths = [len(e.solution) for e in examples]
        assert sum(lengths) / len(lengths) < 80
        assert max(lengths) < task.max_tokens
        assert len({e.id for e in examples}) == len(examples)

    def test_the_warm_start_is_the_default_or_shorter(self, name, tasks) -> None:
        own, default = WarmStart(**tasks[name][0].warm_start), WarmStart()
        assert own.steps * own.tokens <= default.steps * default.tokens
        assert own.examples <= default.examples

    def test_train_is_a_long_lazy_sequence(self, name, tasks) -> None:
        train = tasks[name][0].train
        assert len(train) >= 1_000_000
        assert train[-1] == train[len(train) - 1]
        assert [e.id for e in train[5:8]] == [train[i].id for i in (5, 6, 7)]
        with pytest.raises(IndexError):
            train[len(train)]


def test_a_warm_start_takes_the_settings_of_its_task(tasks, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("POLICYOPT_CACHE", str(tmp_path))
    task = replace(tasks["chain_sum"][0], warm_start={"steps": 2, "tokens": 50, "examples": 8})
    shape = Architecture(hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, inner=64, positions=128)
    taken = []
    folder = build_embedded(task, architecture=shape, progress=lambda *step: taken.append(step[:2]))
    assert taken == [(1, 2), (2, 2)]
    # Other settings are another model, and the task's own given by hand are the same one
    assert build_embedded(task, architecture=shape, settings=WarmStart(steps=2, tokens=50, examples=8)) == folder
    assert build_embedded(task, architecture=shape, settings=WarmStart(steps=1, tokens=50, examples=8)) != folder


def evaluate(expression: str) -> int:
    assert re.fullmatch(r"[\d+*/() -]+", expression)
    return eval(expression)


def test_every_line_of_a_chain_of_thought_is_true(tasks) -> None:
    for name in ("chain_sum", "countdown"):
        for example in tasks[name][0].train[:200]:
            *steps, last = example.solution.splitlines()
            for step in steps:
                values = {evaluate(side) for side in step.split("=")}
                assert len(values) == 1, step
            assert evaluate(last.removeprefix("#### ")) == evaluate(steps[-1].split("=")[-1])


def test_the_worked_equations_are_true(tasks) -> None:
    for example in tasks["simple_equations"][0].train[:200]:
        left, right = text(example).split(" = ")
        (variable,) = re.findall("[a-z]", left)
        assert evaluate(left.replace(variable, f"({example.answer})")) == int(right)
        for step in example.solution.splitlines()[:-1]:
            first, *sides = step.split("=")
            assert evaluate(first.replace(variable, f"({example.answer})")) == evaluate(sides[-1])


def test_sorting_steps_take_the_next_number_each_time(tasks) -> None:
    for example in tasks["number_sorting"][0].train[:200]:
        direction, numbers = text(example).removeprefix("sort ").split(": ")
        wanted = sorted(map(int, numbers.split()), reverse=direction == "down")
        assert [int(n) for n in example.answer.split()] == wanted
        taken = [int(line.split(":")[0]) for line in example.solution.splitlines()[:-1]]
        assert taken == wanted[: len(taken)]
        assert len(taken) == len(wanted) - 1


def test_number_sorting_is_not_lenient_as_the_library_is(tasks) -> None:
    task, judge = tasks["number_sorting"]
    example = replace(task.heldout[0], answer="1 5 9")
    assert judge(example, "#### 1  5 9").correct
    assert not judge(example, "#### 1 5 8").correct


def test_countdown_takes_any_expression_that_hits_the_target(tasks) -> None:
    _, judge = tasks["countdown"]
    example = Example(
        "e", user("make 7 from 3 5 9"), "3+9-5", meta={"answer": "", "metadata": {"numbers": [3, 5, 9], "target": 7}}
    )
    for good in ("9-5+3", "(3 + 9) - 5", "3-(5-9)"):
        assert judge(example, f"#### {good}").correct, good
    for bad in ("7", "3+5-1", "9-5+3+0*3", "3+9-5=7", "9-5+3 and so", "12-5"):
        assert not judge(example, f"#### {bad}").correct, bad


@pytest.mark.parametrize(
    ("dataset", "attack"),
    [
        ("countdown", "__import__('os').system('touch {0}')"),
        ("countdown", "open('{0}','w').close() or 7"),
        ("puzzle24", "[open('{0}','w') for x in '1']"),
        ("spiral_matrix", "[open('{0}','w').name]"),
        ("binary_matrix", "[[open('{0}','w').name]]"),
        ("n_queens", "[[f\"{{open('{0}','w')}}\"]]"),
        ("string_insertion", "[str(open('{0}','w'))]"),
        ("polynomial_multiplication", "().__class__.__base__.__subclasses__() or open('{0}','w')"),
        ("simple_integration", "x + open('{0}','w')"),
        ("intermediate_integration", "1or open('{0}','w')"),
    ],
)
def test_what_a_model_writes_is_never_run(dataset, attack, tmp_path) -> None:
    target = tmp_path / "written"
    task = load_task("chain_sum", heldout=1)
    builtin = dataset == "countdown"
    meta = {
        "answer": "1",
        "metadata": {"numbers": [1], "target": 1, "variable": "x", "integrand": "x", "valid_answers": []},
    }
    example = Example("e", task.heldout[0].prompt, "1", meta=meta)
    verdict = library_judge(dataset, builtin)(example, "#### " + attack.format(target))
    assert not verdict.correct
    assert "not a plain expression" in verdict.reason
    assert not target.exists()


def test_every_scoring_that_runs_the_answer_is_known() -> None:
    from reasoning_gym.factory import DATASETS

    found = set()
    for name, (cls, _) in DATASETS.items():
        source = inspect.getsource(cls.score_answer)
        if re.search(r"(?<![\w.])(eval|exec)\(|parse_expr\(|sympify\(", source):
            found.add(name)
    # number_sorting evaluates only the reference
    assert found - {"number_sorting"} == set(RUN_BY_LIBRARY)


@pytest.mark.parametrize(
    "dataset", ["polynomial_multiplication", "simple_integration", "puzzle24", "spiral_matrix", "n_queens"]
)
def test_the_librarys_own_answers_are_harmless(dataset) -> None:
    from reasoning_gym import create_dataset

    questions = create_dataset(dataset, seed=3, size=30)
    judge = library_judge(dataset, builtin=False)
    for i in range(5):
        entry = questions[i]
        example = Example("e", user("q"), entry["answer"], meta=dict(entry))
        assert judge(example, f"#### {entry['answer']}").correct, entry["answer"]


# Any dataset of the library


def test_a_dataset_of_the_library_with_its_own_scoring() -> None:
    task = load_task("reasoning-gym:gcd", heldout=8)
    assert task.name == "reasoning-gym:gcd"
    assert len(task.heldout) == 8
    judge, example = make_judge(task.judge), task.train[0]
    assert "Greatest Common Divisor" in text(example) or "GCD" in text(example).upper()
    assert judge(example, f"thus\n#### {example.answer}").correct
    wrong = judge(example, "#### 999983")
    assert not wrong.correct
    assert wrong.score < 1
    assert task.train[7] == load_task("reasoning-gym:gcd", heldout=1).train[7]


def test_partial_credit_and_answers_over_several_lines_are_kept() -> None:
    task = load_task("reasoning-gym:mini_sudoku", heldout=2)
    judge, example = make_judge(task.judge), task.heldout[0]
    assert "\n" in example.answer
    assert judge(example, f"#### {example.answer}").correct
    assert judge(example, f"####\n{example.answer}\n").correct
    spoiled = judge(example, "#### " + example.answer[:-1])
    assert 0 < spoiled.score < 1
    assert not spoiled.correct


def test_tuples_in_the_metadata_reach_the_scoring() -> None:
    task = load_task("reasoning-gym:arc_1d", heldout=2)
    assert make_judge(task.judge)(task.heldout[0], f"#### {task.heldout[0].answer}").score == 1.0


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"reasoning-gym has no dataset 'sudoko'; nearest: sudoku"):
        load_task("reasoning-gym:sudoko")
    with pytest.raises(UserError, match=r"no task is called 'chainsum'; nearest: chain_sum") as error:
        load_task("chainsum")
    for form in ("reasoning-gym:NAME", ".jsonl", ".parquet", "owner/name"):
        assert form in str(error.value)
    with pytest.raises(UserError, match="composite cannot be a task: it is a mixture"):
        load_task("reasoning-gym:composite")
    with pytest.raises(UserError, match="heldout must be at least 1"):
        load_task("chain_sum", heldout=0)
    with pytest.raises(UserError, match="brings its own judge"):
        load_task("chain_sum", judge="exact")


def test_a_dataset_that_changes_from_process_to_process_is_refused(monkeypatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with pytest.raises(UserError, match="PYTHONHASHSEED=0"):
        load_task("reasoning-gym:ransom_note")


def test_more_heldout_questions_than_there_are() -> None:
    with pytest.raises(
        UserError, match=r"gave only \d+ different held-out questions, 64 were asked for: lower heldout"
    ):
        _narrow(64)


def _narrow(heldout: int) -> None:
    from policyopt.data.builtin import BUILTIN
    from policyopt.data.reasoning import reasoning_task

    config = {"min_terms": 1, "max_terms": 1, "min_digits": 1, "max_digits": 1}
    reasoning_task("chain_sum", seed=0, heldout=heldout, builtin=replace(BUILTIN["chain_sum"], config=config))


def test_importing_tasks_is_light() -> None:
    code = (
        "import sys, policyopt.data as t, policyopt.judging.pool\n"
        "t.builtin_tasks()\n"
        "print([m for m in ('torch', 'transformers', 'reasoning_gym', 'datasets', 'numpy') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert ast.literal_eval(out.stdout) == []


# Where an answer stands


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("12+7=19\n#### 19", "19"),
        ("#### 19\nDone.", "19"),
        ("#### 19\n\nQuestion: a box holds 5 pens.", "19"),
        ("<think>#### 18</think>\n#### 19", "19"),
        ("#### 18</think> The answer is 19.", "19"),
        ("#### 19\n<think>but", None),
        ("<think>#### 19", None),
        (r"\fbox{19}", "19"),
        ("**Answer:** 19", "19"),
        ("**Final Answer: 19**", "19"),
        ("The answer is $19$, as 12+7 shows.", "$19$"),
        ("The answer is $19$.", "$19$"),
        ("So the answer is:\n\n$$\n19\n$$\nas said", "$$\n19\n$$"),
        ("The answer to the first question is 19. Well", "19"),
        ("The answer isn't 19", None),
        (r"\boxed{18} or \boxed{19}", r"\boxed{18} or \boxed{19}"),
        (r"\boxed{19}, $\boxed{19}$", "19"),
        (r"\boxed{19} hence \boxed{2", None),
        (r"\boxed{\boxed{19}}", r"\boxed{19}"),
        ("<answer>18</answer> no, <answer>19", None),
        ("####19", "19"),
        ("  #### 19 \n", "19"),
        ("#### 1\n#### 2", "2"),
        ("<answer> 3 </answer>", "3"),
        ("<answer>3<answer>4</answer>", "4"),
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1} then <answer>2</answer>", "2"),
        ("<answer>2</answer>\n#### 5", "5"),
        ("a #### 5", None),
        ("#### ", None),
        ("<answer></answer>", None),
        (r"\boxed{1", None),
        ("19", None),
        ("", None),
    ],
)
def test_find_answer(response, answer) -> None:
    assert find_answer(response) == answer


@given(st.text(), st.text(alphabet=st.characters(exclude_characters="#<\\\n"), min_size=1))
def test_the_last_answer_line_wins(before, answer) -> None:
    found = find_answer(f"{before.replace('<think>', '')}\n{answer_line(answer)}\n")
    assert found == (answer.strip() or None)


@given(st.text(alphabet="#<answer>/\\boxed{} \n1", max_size=300))
def test_find_answer_takes_any_text(response) -> None:
    found = find_answer(response)
    assert found is None or (found and found in response)


def test_long_winded_solutions_are_right_and_say_things_again() -> None:
    task = load_task("long-winded", heldout=8)
    judge = make_judge(task.judge)
    rounds = []
    for example, plain in zip(task.train[:300], load_task("chain_sum", heldout=8).train[:300], strict=True):
        assert (example.prompt, example.answer) == (plain.prompt, plain.answer)
        *steps, last = example.solution.splitlines()
        *once, end = plain.solution.splitlines()
        assert last == end
        assert steps == once * (len(steps) // len(once))
        assert judge(example, example.solution).correct
        assert len(example.solution) < task.max_tokens
        rounds.append(len(steps) // len(once))
    assert all(70 < rounds.count(n) < 130 for n in (1, 2, 3)), "each as often"


def test_rows_that_are_acted_on_need_no_answers(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", ({"prompt": f"{i}?", "word": f"w{i}"} for i in range(8)))
    task = load_task(str(rows), env="my_env.py:Name", env_options={"size": 3})
    assert task.judge is None and task.train[0].meta["word"].startswith("w")
    assert task.environment == EnvironmentSpec("my_env.py:Name", {"size": 3})
    with pytest.raises(UserError, match="no column holds an answer"):
        load_task(str(rows))
    with pytest.raises(UserError, match="is an environment itself"):
        load_task("calculator", env="my_env.py:Name")
    with pytest.raises(UserError, match="name one with --env"):
        load_task(
            str(write_rows(tmp_path / "a.jsonl", [{"prompt": f"{i}?", "answer": "b"} for i in range(8)])),
            env_options={"size": 3},
        )
