"""The judges, and the worker processes that they run in."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyopt.data import JudgePool, JudgeSpec
from policyopt.errors import UserError
from policyopt.items import Example, Verdict, user
from policyopt.judging.judges import check_judge, make_judge
from policyopt.judging.pool import _Work
from policyopt.judging.results import BadResult, read_result
from policyopt.judging.values import read_value

HOSTILE = """
import os, subprocess, sys, time

print("loading" * 100_000)

def judge(prompt, response, answer):
    print("noise" * 100_000)
    print("noise" * 100_000, file=sys.stderr)
    sys.stdout.flush()
    if response == "raise": raise ValueError("not today")
    if response == "exit": sys.exit(1)
    if response == "loop":
        while True: pass
    if response == "sleep": time.sleep(1000)
    if response == "regex":
        import re
        re.match("(a+)+$", "a" * 64 + "b")
    if response == "child":
        child = subprocess.Popen(["sleep", "1000"])
        open(prompt, "w").write(f"{os.getpid()} {child.pid}")
        time.sleep(1000)
    if response == "die": os._exit(3)
    if response == "crash": os.kill(os.getpid(), 11)
    if response == "memory": bytearray(4 << 30)
    if response == "hoard":
        kept = []
        while True: kept.append(bytearray(1 << 24))
    if response == "stop": os.kill(os.getpid(), 19)
    if response == "nan": return float("nan")
    if response == "infinity": return float("inf")
    if response == "text": return "1.0"
    if response == "keys": return {"reward": 1}
    if response == "nothing": return None
    return response == answer
"""

DAEMON = """
import os, subprocess, time

def daemon(prompt, response, answer):
    # A session of its own, and no parent: neither group nor parent leads to it
    open(prompt, "w").write(subprocess.check_output(["setsid", "sh", "-c", "sleep 1000 >/dev/null & echo $!"], text=True))
    if response == "timeout": time.sleep(1000)
    if response == "crash": os._exit(1)
    return 1
"""


def example(answer: str = "42", prompt: str = "What is it?", number: int = 0) -> Example:
    return Example(f"e-{number}", user(prompt), answer)


def verdict(judge: str, answer: str, response: str, **options: object) -> Verdict:
    spec = JudgeSpec(judge, options)
    check_judge(spec)
    return make_judge(spec)(example(answer), response)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition, seconds: float = 8.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def hostile(tmp_path) -> str:
    path = tmp_path / "hostile.py"
    path.write_text(HOSTILE)
    return f"{path}:judge"


# The pool


class TestPool:
    def test_a_failing_judge_costs_one_response_and_the_rest_are_judged(self, hostile, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        reasons = {
            "raise": "hostile.py, line 10, in judge: ValueError: not today",
            "exit": "hostile.py, line 11, in judge: SystemExit: 1",
            "loop": "judge took longer than 1 s",
            "sleep": "judge took longer than 1 s",
            "regex": "judge took longer than 1 s",
            "stop": "judge took longer than 1 s",
            "die": "judge process ended with exit status 3",
            "crash": "judge process was killed by SIGSEGV",
            "memory": "judge ran out of memory (128 MB)",
            "hoard": "judge ran out of memory (128 MB)",
            "nan": "judge returned the score nan, expected a finite number",
            "infinity": "judge returned the score inf, expected a finite number",
            "text": "judge returned '1.0', expected a number, a bool, a dict with a score, or None",
            "keys": "judge returned a dict with keys ['reward'], "
            "expected score and, where wanted, correct, formatted, reason, parts",
        }
        responses = [r for bad in reasons for r in (bad, "42", "41", "nothing")]
        with JudgePool(JudgeSpec(hostile), timeout=1.0, memory_mb=128) as pool:
            verdicts = pool([(example(number=i), r) for i, r in enumerate(responses)])
        assert len(verdicts) == len(responses)
        for i, (response, found) in enumerate(zip(responses, verdicts, strict=True)):
            if response in reasons:
                assert found == Verdict.failure(f"{reasons[response]} (row e-{i})")
            elif response == "nothing":
                assert found == Verdict.absent()
            else:
                assert found == Verdict(float(response == "42"), response == "42", False, found.reason)

    def test_any_text_goes_through(self, tmp_path) -> None:
        odd = ["", "\x00", "\ud800\udfff\ud800", "🜁" * 1000, "\n\r\u2028", '"}]\\', "x" * 5_000_000, "#### " * 100_000]
        with JudgePool(JudgeSpec("exact")) as pool:
            same = pool([(example(text), text) for text in odd])
            different = pool([(example(text + "!"), text) for text in odd])
        assert not any(v.failed for v in same + different)
        assert all(v.correct for v in same[:-1])
        assert not any(v.correct for v in different)

    @pytest.mark.parametrize("workers", [1, 3])
    @pytest.mark.parametrize("count", [0, 1, 2, 64, 65, 500])
    def test_verdicts_are_in_order(self, pools, workers, count) -> None:
        items = [(example(str(i), number=i), f"#### {i if i % 3 else 'x'}") for i in range(count)]
        assert [v.correct for v in pools[workers](items)] == [bool(i % 3) for i in range(count)]

    def test_thousands_of_judgements_in_a_second(self, pools) -> None:
        items = [(example(), "6*7=42\n#### 42")] * 4000
        start = time.perf_counter()
        verdicts = pools[1](items)
        seconds = time.perf_counter() - start
        assert all(v.correct for v in verdicts)
        assert len(items) / seconds > 2000

    def test_a_judge_that_waits_is_asked_in_several_processes_and_a_fast_one_in_one(self, tmp_path) -> None:
        (tmp_path / "s.py").write_text(
            "import os, time\ndef slow(prompt, response, answer):\n"
            "    time.sleep(float(response))\n    return {'score': 1, 'reason': str(os.getpid())}\n"
        )
        with JudgePool(JudgeSpec(f"{tmp_path}/s.py:slow"), timeout=1.0, workers=8) as pool:
            fast = pool([(example(), "0")] * 200)
            assert len({v.reason for v in fast}) == 1
            start = time.perf_counter()
            slow = pool([(example(), "0.3")] * 40)
            seconds = time.perf_counter() - start
            assert all(v.score == 1 for v in slow)
            assert 1 < len({v.reason for v in slow}) <= 8
            assert seconds < 40 * 0.3 / 2, "one after another they take 12 s"

    def test_pieces_are_small_and_end_together(self) -> None:
        work = _Work([(example(), "")] * 1000, most=4)
        taken = []
        while (piece := work.take(several=False)) is not None:
            taken.append(piece.stop - piece.start)
        assert sum(taken) == 1000
        assert taken == sorted(taken, reverse=True)
        assert (taken[0], taken[-1]) == (64, 1)
        quick = _Work([(example(), "")] * 100, most=4)
        assert quick.take(several=False) == slice(0, 13)
        for place in range(13):
            quick.put(place, Verdict(1.0, True, True, ""))
        assert quick.take(several=False) == slice(13, 77), "what takes no time is not divided"
        assert _Work([(example(), "")] * 1000, most=4).take(several=True) == slice(0, 1000)

    def test_equal_responses_are_judged_once_by_built_in_judges_alone(self, tmp_path) -> None:
        (tmp_path / "c.py").write_text(
            "count = 0\ndef counted(prompt, response, answer):\n    global count\n    count += 1\n    return count\n"
        )
        one, other = example("42"), example("43")
        items = [(one, "42"), (other, "42"), (one, "42"), (one, "41")]
        with JudgePool(JudgeSpec(f"{tmp_path}/c.py:counted")) as pool:
            assert [v.score for v in pool(items)] == [1, 2, 3, 4]
        with JudgePool(JudgeSpec("exact")) as pool, mock.patch.object(pool, "_verdicts", wraps=pool._verdicts) as asked:
            assert [v.score for v in pool(items)] == [1, 0, 1, 0]
        assert [[text for _, text in call.args[0]] for call in asked.call_args_list] == [["42", "42", "41"]]

    def test_children_of_a_hanging_judge_are_killed_with_it(self, hostile, tmp_path) -> None:
        note = tmp_path / "pids"
        with JudgePool(JudgeSpec(hostile), timeout=0.5) as pool:
            (found,) = pool([(example(prompt=str(note)), "child")])
        assert found.failed
        assert wait_until(lambda: not any(alive(int(pid)) for pid in note.read_text().split()))

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="orphans are adopted on Linux alone")
    @pytest.mark.parametrize("ending", ["timeout", "close", "crash", "killed parent"])
    def test_a_child_in_a_session_of_its_own_is_ended_too(self, tmp_path, ending) -> None:
        note, script = tmp_path / "pid", tmp_path / "parent.py"
        (tmp_path / "d.py").write_text(DAEMON)
        script.write_text(
            "import sys, time\nfrom policyopt.data import JudgePool, JudgeSpec, Example\n"
            f"pool = JudgePool(JudgeSpec({str(tmp_path / 'd.py') + ':daemon'!r}), timeout=0.5)\n"
            f"pool([(Example('e', ({{'role': 'user', 'content': {str(note)!r}}},), ''), {ending!r})])\n"
            f"time.sleep(60 if {ending!r} == 'killed parent' else 0)\npool.close()\n"
        )
        parent = subprocess.Popen(
            [sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        )
        assert wait_until(lambda: note.exists() and note.read_text())
        pid = int(note.read_text())
        if ending == "killed parent":
            assert alive(pid)
            parent.kill()
        else:
            assert parent.wait(20) == 0
        assert wait_until(lambda: not alive(pid))
        parent.wait()

    def test_close_leaves_no_process(self) -> None:
        pool = JudgePool(JudgeSpec("exact"), workers=2)
        pool.ready()
        pids = [worker.process.pid for worker in pool._workers]
        assert all(alive(pid) for pid in pids)
        pool.close()
        pool.close()
        assert not any(alive(pid) for pid in pids)
        with pytest.raises(RuntimeError, match="closed"):
            pool([])

    def test_a_pool_that_is_dropped_leaves_no_process(self) -> None:
        pool = JudgePool(JudgeSpec("exact"))
        pid = pool._workers[0].process.pid
        del pool
        assert wait_until(lambda: not alive(pid))

    def test_workers_do_not_import_torch(self, tmp_path) -> None:
        (tmp_path / "probe.py").write_text(
            "import sys\ndef loaded(prompt, response, answer):\n"
            "    heavy = [m for m in ('torch', 'transformers', 'pytest') if m in sys.modules]\n"
            "    return {'score': 0, 'reason': str(heavy)}\n"
        )
        with JudgePool(JudgeSpec(f"{tmp_path}/probe.py:loaded")) as pool:
            assert pool([(example(), "")])[0].reason == "[]"

    def test_interrupt_leaves_the_pool_usable(self, hostile) -> None:
        with JudgePool(JudgeSpec(hostile), timeout=20) as pool:
            pool.ready()
            before = pool._workers[0].process.pid
            timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                pool([(example(), "42"), (example(), "sleep"), (example(), "42")])
            assert not alive(before)
            assert [v.correct for v in pool([(example(), "42"), (example(), "41")])] == [True, False]

    @pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
    def test_no_orphans_when_the_parent_ends(self, hostile, tmp_path, ending) -> None:
        note = tmp_path / "pids"
        script = tmp_path / "parent.py"
        # The worker hangs in a way that holds the interpreter; with SIGKILL only the kernel can still end it
        limit = 1.0 if ending == signal.SIGKILL else 60.0
        script.write_text(
            "from policyopt.data import JudgePool, JudgeSpec, Example\n"
            f"pool = JudgePool(JudgeSpec({hostile!r}), timeout={limit}, workers=2)\n"
            "pool.ready()\n"
            f"open({str(note)!r}, 'w').write(' '.join(str(w.process.pid) for w in pool._workers))\n"
            "pool([(Example('e', ({'role': 'user', 'content': ''},), ''), 'regex')])\n"
        )
        parent = subprocess.Popen(
            [sys.executable, str(script)],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stderr=subprocess.DEVNULL,
        )
        assert wait_until(lambda: note.exists() and note.read_text())
        time.sleep(0.3)
        workers = [int(pid) for pid in note.read_text().split()]
        assert all(alive(pid) for pid in workers)
        parent.send_signal(ending)
        parent.wait(timeout=10)
        assert wait_until(lambda: not any(alive(pid) for pid in workers))

    def test_limits_out_of_range_are_refused(self) -> None:
        for bad in ({"timeout": 0.0}, {"timeout": float("nan")}, {"memory_mb": 1}, {"workers": 0}):
            with pytest.raises(UserError, match=next(iter(bad)).split("_")[0]):
                JudgePool(JudgeSpec("exact"), **bad)

    def test_a_judge_that_cannot_be_loaded(self, tmp_path) -> None:
        path = tmp_path / "broken.py"
        path.write_text("import no_such_module\ndef judge(prompt, response, answer): return 1\n")
        with (
            JudgePool(JudgeSpec(f"{path}:judge")) as pool,
            pytest.raises(
                UserError,
                match=r"could not be loaded: .*broken.py, line 1, in <module>: ModuleNotFoundError: No module named 'no_such",
            ),
        ):
            pool([(example(), "")])
        path = tmp_path / "ends.py"  # not the file of before: its bytecode may lie there, by the same size and second
        path.write_text("import os\nos._exit(4)\ndef judge(prompt, response, answer): return 1\n")
        with (
            JudgePool(JudgeSpec(f"{path}:judge")) as pool,
            pytest.raises(UserError, match="could not be loaded: judge process ended with exit status 4"),
        ):
            pool.ready()


@pytest.fixture(scope="class")
def pools():
    made = {workers: JudgePool(JudgeSpec("exact"), workers=workers) for workers in (1, 3)}
    yield made
    for pool in made.values():
        pool.close()


# Python functions


class TestFunction:
    def test_prompt_is_text_or_messages(self, tmp_path) -> None:
        path = tmp_path / "f.py"
        path.write_text(
            "import json\ndef f(prompt, response, answer): return {'score': 0.5, 'reason': json.dumps(prompt)}\n"
        )
        judge = make_judge(JudgeSpec(f"{path}:f"))
        assert json.loads(judge(example(prompt="hi"), "").reason) == "hi"
        chat = ({"role": "system", "content": "s"}, {"role": "user", "content": "u"})
        assert json.loads(judge(Example("e", chat, ""), "").reason) == list(chat)

    def test_files_beside_it_can_be_imported(self, tmp_path) -> None:
        (tmp_path / "sibling.py").write_text("VALUE = 0.25\n")
        (tmp_path / "json.py").write_text("from sibling import VALUE\ndef f(prompt, response, answer): return VALUE\n")
        with JudgePool(JudgeSpec(f"{tmp_path}/json.py:f")) as pool:
            assert pool([(example(), "")])[0].score == 0.25

    def test_module_in_the_current_folder(self, tmp_path, monkeypatch) -> None:
        (tmp_path / "mypkg").mkdir()
        (tmp_path / "mypkg" / "__init__.py").write_text("")
        (tmp_path / "mypkg" / "judges.py").write_text("def f(prompt, response, answer, bonus=0): return bonus\n")
        monkeypatch.chdir(tmp_path)
        with JudgePool(JudgeSpec("mypkg.judges:f", {"bonus": 3})) as pool:
            assert pool([(example(), "")])[0] == Verdict(3.0, True, False, "score 3")

    def test_checking_runs_nothing(self, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "pkg").mkdir()
        for path in (tmp_path / "pkg" / "__init__.py", tmp_path / "pkg" / "m.py", tmp_path / "m.py"):
            path.write_text("raise RuntimeError('imported too early')\ndef f(prompt, response, answer): ...\n")
        check_judge(JudgeSpec("pkg.m:f"))
        check_judge(JudgeSpec("m.py:f"))

    @pytest.mark.parametrize(
        "signature",
        [
            "f(prompt, response, answer)",
            "f(p, r, a)",
            "f(prompt, response, answer, /)",
            "f(*args)",
            "f(prompt, *rest)",
            "f(prompt, response, answer, more=1)",
            "f(prompt, response, answer, **options)",
            "f(prompt, response, answer, *, strict=False)",
            "f(prompt=None, response=None, answer=None)",
        ],
    )
    def test_signatures_that_fit(self, tmp_path, signature) -> None:
        path = tmp_path / "s.py"
        path.write_text(f"def {signature}: return 1\n")
        check_judge(JudgeSpec(f"{path}:f"))
        assert make_judge(JudgeSpec(f"{path}:f"))(example(), "").score == 1

    @pytest.mark.parametrize(
        "signature",
        [
            "f()",
            "f(a)",
            "f(prompt, answer)",
            "f(a, b, c, d)",
            "f(a, b, c, *, strict)",
        ],
    )
    def test_signatures_that_do_not_fit(self, tmp_path, signature) -> None:
        path = tmp_path / "s.py"
        path.write_text(f"\ndef {signature}: return 1\n")
        with pytest.raises(UserError, match=r"line 2: f\(.*\) cannot be called as f\(prompt, response, answer\)"):
            check_judge(JudgeSpec(f"{path}:f"))

    def test_options_that_the_function_does_not_take(self, tmp_path) -> None:
        path = tmp_path / "s.py"
        path.write_text("def f(prompt, response, answer, bonus=0): return 1\n")
        check_judge(JudgeSpec(f"{path}:f", {"bonus": 2}))
        with pytest.raises(UserError, match=r"cannot be called as f\(prompt, response, answer, malus=...\)"):
            check_judge(JudgeSpec(f"{path}:f", {"malus": 2}))

    def test_what_is_missing_is_named(self, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "m.py").write_text("def score(prompt, response, answer): ...\nasync def later(p, r): ...\n")
        (tmp_path / "bad.py").write_text("def score(:\n")
        for judge, message in {
            "none.py:score": "there is no file none.py",
            "nopkg.mod:score": "no module 'nopkg' in the current folder",
            "policyopt.nomod:score": "no module 'policyopt.nomod'",
            "m.py:scores": "defines no 'scores'; nearest: score",
            "m:later": "line 2: later(p, r) cannot be called as later(prompt, response, answer)",
            "bad.py:score": "bad.py, line 1",
            "exakt": "no judge is called 'exakt'; nearest: exact. A judge is one of math, exact, number",
            "m.py": "no judge is called 'm.py'",
            "m.py:": "no judge is called 'm.py:'",
        }.items():
            with pytest.raises(UserError, match=re.escape(message)):
                JudgePool(JudgeSpec(judge))

    @given(st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.integers(-(2**60), 2**60))
    def test_numbers_are_scores(self, score) -> None:
        assert read_result(score) == read_result({"score": score})
        assert read_result(score).score == float(score)
        assert read_result(score).correct == (score >= 1)

    def test_dicts_say_more(self) -> None:
        assert read_result({"score": 2, "correct": False, "formatted": True, "reason": "long"}) == Verdict(
            2.0, False, True, "long"
        )

    def test_none_says_that_the_judge_does_not_apply(self) -> None:
        for nothing in (None, {"score": None}, {"score": None, "reason": "no tool was called"}):
            found = read_result(nothing)
            assert (found.rewarded, found.applies, found.failed) == (False, False, False)
            assert math.isnan(found.score)
        assert read_result({"score": None, "reason": "no tool was called"}).reason == "no tool was called"

    def test_a_part_that_does_not_apply_is_no_number(self) -> None:
        parts = read_result({"score": 1, "parts": {"easy": None, "hard": 0.5}}).parts
        assert math.isnan(parts["easy"]) and parts["hard"] == 0.5

    def test_errors_name_the_users_own_line(self, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "helper.py").write_text("import json\ndef read(text):\n    return json.loads(text)\n")
        (tmp_path / "my.py").write_text(
            "from helper import read\n\ndef f(prompt, response, answer):\n    return read(response)['x']\n"
            "class Odd(Exception):\n    def __str__(self): raise ValueError\n"
            "def odd(prompt, response, answer): raise Odd\n"
        )
        row = example()
        with JudgePool(JudgeSpec("my.py:f")) as pool:
            key, text = pool([(row, "{}"), (row, "no")])
        assert key.reason == "my.py, line 4, in f: KeyError: 'x' (row e-0)"
        assert text.reason.startswith("helper.py, line 3, in read: JSONDecodeError: ")
        with JudgePool(JudgeSpec("my.py:odd")) as pool:
            assert pool([(row, "")])[0].reason == "my.py, line 7, in odd: Odd: (its message cannot be read) (row e-0)"

    def test_scalars_of_numpy_and_torch(self) -> None:
        import numpy as np
        import torch

        for one in (np.float32(1), np.bool_(True), np.int64(1), torch.tensor(1.0), torch.tensor(True)):
            assert read_result(one) == read_result(1) == Verdict(1.0, True, False, "score 1")

    @pytest.mark.parametrize(
        "bad", ["1", [1], 1j, float("nan"), {"correct": True}, {"score": "1"}, {"score": 1, "x": 2}]
    )
    def test_everything_else_is_no_verdict(self, bad) -> None:
        with pytest.raises(BadResult):
            read_result(bad)


# Judges by name


@pytest.mark.parametrize(
    ("judge", "answer", "response", "options", "right"),
    [
        ("exact", "Paris", " Paris\n", {}, True),
        ("exact", "New  York", "#### New York", {}, True),
        ("exact", "Paris", "paris", {}, False),
        ("exact", "Paris", "It is\n#### paris", {"ignore_case": True}, True),
        ("exact", "Paris", "Paris, I think", {}, False),
        ("number", "42", "first 41, then 42.", {}, True),
        ("number", "42", "42 or 43", {}, False),
        ("number", "42", "#### 42\n", {}, True),
        ("number", "-3", "it is −3", {}, True),
        ("number", "3", "12-3", {}, False),
        ("number", "9", "12-3", {}, False),
        ("number", "9", "12-3=9", {}, True),
        ("number", "1234.5", "$1,234.50", {}, True),
        ("number", "1e3", "1000", {}, True),
        ("number", "0.5", "1/2", {}, True),
        ("number", "1/3", "0.3333", {}, False),
        ("number", "1/3", "0.3333", {"tolerance": 1e-3}, True),
        ("number", "10000000000000001", "10000000000000002", {}, False),
        ("number", "7", "no idea", {}, False),
        ("number", "7", "9" * 100_000, {}, False),
        ("number", "7", "1e9999", {"tolerance": 0.1}, False),
        ("number", "7", "1/0", {}, False),
        ("number", "7", "٧", {}, True),
        ("regex", r"\bParis\b", "I say Paris.", {}, True),
        ("regex", r"\bParis\b", "Parisian", {}, False),
        ("regex", "7", "x=1, x=7", {"pattern": r"x=(\d+)"}, True),
        ("regex", "1", "x=1, x=7", {"pattern": r"x=(\d+)"}, False),
        ("regex", "anything", "<think>so</think>", {"pattern": "^<think>"}, True),
        ("choice", "B", "The answer is (B).", {}, True),
        ("choice", "(b)", "#### B) Paris", {}, True),
        ("choice", "B", "A is wrong, so the answer is B", {}, True),
        ("choice", "B", "A. no\nB", {}, True),
        ("choice", "A", "A bird sings", {}, False),
        ("choice", "B", "Answer: C", {}, False),
        ("choice", "F", "Answer: F", {"letters": "ABCDEF"}, True),
        ("math", "1/2", r"so \boxed{0.5}", {}, True),
        ("math", r"\frac{1}{2}", "#### 1/2", {}, True),
        ("math", "x+1", "<answer>1+x</answer>", {}, True),
        ("math", r"\{1,2\}", "$\\{2,1\\}$", {}, True),
        ("math", r"\sqrt{2}", r"\boxed{\sqrt 2}", {}, True),
        ("math", "42", "The answer is 43.", {}, False),
        ("math", "42", "", {}, False),
        ("math", "x^2", r"\boxed{x^{3}}", {}, False),
    ],
)
def test_judges(judge, answer, response, options, right) -> None:
    found = verdict(judge, answer, response, **options)
    assert (found.correct, found.score, found.failed) == (right, float(right), False), found


def test_formatted_says_whether_there_is_a_mark() -> None:
    for judge, answer in {"exact": "7", "number": "7", "math": "7", "choice": "B"}.items():
        assert verdict(judge, answer, f"#### {answer}").formatted
        assert not verdict(judge, answer, answer).formatted
        assert verdict(judge, answer, answer).correct


@pytest.mark.parametrize(
    ("judge", "options", "message"),
    [
        ("number", {"tolerence": 1}, "judge 'number' has no option 'tolerence'; it has tolerance, think"),
        ("number", {"tolerance": -1}, "option tolerance is -1, expected a number of at least 0"),
        ("number", {"tolerance": "1"}, "option tolerance is '1', expected a number"),
        ("exact", {"ignore_case": 1}, "option ignore_case is 1, expected true or false"),
        ("regex", {"pattern": "(x"}, "option pattern is '(x', expected a regular expression (missing )"),
        ("choice", {"letters": "abc"}, "option letters is 'abc', expected capital letters"),
        ("math", {"x": 1}, "judge 'math' has no option 'x'; it has think"),
    ],
)
def test_options_are_checked(judge, options, message) -> None:
    with pytest.raises(UserError) as error:
        check_judge(JudgeSpec(judge, options))
    assert message in str(error.value)


@given(st.integers(-(10**20), 10**20), st.sampled_from(["", "x = ", "$", "n=", "total = "]))
def test_numbers_are_read_exactly(number, before) -> None:
    for text in (f"{before}{number}", f"{before}{number:,}"):
        assert read_value(text).number == number


@given(st.text())
def test_judges_take_any_text(response) -> None:
    for judge, answer in {"exact": "a", "number": "1", "regex": "a", "choice": "A"}.items():
        assert not verdict(judge, answer, response).failed
