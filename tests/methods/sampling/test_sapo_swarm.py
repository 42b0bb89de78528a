"""The page of sapo-swarm."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from policyopt.engine.local import LocalSampler
from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, Verdict, user
from policyopt.methods.group.grpo import grpo
from policyopt.methods.sampling.sapo_swarm import sapo_swarm
from policyopt.methods.sampling.sapo_swarm.channel import MAX_BYTES, Folder, Package, Unusable, package
from policyopt.methods.sampling.sapo_swarm.swarm import REASONS, Swarm, reads_data
from policyopt.parts import TokenMean
from policyopt.recipe import recipe_from_dict
from policyopt.sources.program import Answered, Response, Step
from policyopt.training.rows import to_batch
from policyopt.training.run import run
from tests.asking import Asked, ask
from tests.methods.shared_swarm import train
from tests.runs import lines
from tests.tiny import load_tiny, write_task

QUESTION = Example("q", ({"role": "system", "content": "Add."}, *user("1+1?")), "2", meta={"entry": [1, {"a": None}]})


GROUP = [("\u00e4 2\n", True), ("", True), ('"<|end|>" \\u0000', False)]


def shared(**changes: Any) -> dict[str, Any]:
    """A package as JSON, with changes."""
    return {**json.loads(package(QUESTION, GROUP).to_json()), **changes}


def pair(path: Path) -> tuple[Folder, Folder]:
    return Folder(path, "a1"), Folder(path, "b2")


# The folder -----------------------------------------------------------------------------------------------------------


def test_a_package_goes_through_the_folder_as_json(tmp_path: Path) -> None:
    mine, theirs = pair(tmp_path / "new" / "pool")
    sent = package(QUESTION, GROUP)
    assert mine.collect(3) == []
    mine.publish(3, 0, sent)
    mine.publish(3, 7, sent)
    assert mine.collect(3) == [], "what a run has published is not taken back by it"
    assert sorted(theirs.collect(3)) == ["a1.000003.0.json", "a1.000003.7.json"]
    found = theirs.read("a1.000003.7.json")
    assert found == sent
    assert found.example("new") == dataclasses.replace(QUESTION, id="new")
    assert [(w.text, w.finished) for w in found.responses] == GROUP
    assert json.loads((theirs.path / "a1.000003.7.json").read_bytes()) == shared()


def test_a_repeated_step_takes_the_place_of_the_first_and_old_packages_go(tmp_path: Path) -> None:
    mine, theirs = pair(tmp_path)
    mine = dataclasses.replace(mine, keep=2)
    for step in (0, 1, 1, 2):
        mine.publish(step, 0, package(QUESTION, [(f"{step}", True), ("", True)]))
    theirs.publish(9, 0, package(QUESTION, GROUP))
    assert mine.collect(2) == ["b2.000009.0.json"]
    assert sorted(theirs.collect(3)) == ["a1.000001.0.json", "a1.000002.0.json"], "of its own alone"
    os.utime(tmp_path / "a1.000001.0.json", (0, 0))
    assert theirs.collect(3) == ["a1.000002.0.json"]
    assert not list(tmp_path.glob("tmp-*"))


WHOLE = json.dumps(shared()).encode()


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "no json": b"\x80\x04\x95",
    "a list": b"[]",
    "not utf-8": json.dumps(shared(), ensure_ascii=False).encode("latin-1"),
    "half": WHOLE[:-20],
    "deep": b'{"meta": ' + b'{"a":' * 50_000,
    "deep metadata": WHOLE.replace(b"[1", b"[" * 5000 + b"1" + b"]" * 4999),
    "a long number": WHOLE.replace(b"[1", b"[" + b"1" * 100_000),
    "not a number": WHOLE.replace(b"[1", b"[NaN"),
    "beyond all numbers": WHOLE.replace(b"[1", b"[1e999"),
    "said twice": WHOLE.replace(b'"answer"', b'"answer": "1", "answer"'),
    "a long key": WHOLE.replace(b'"meta": {', b'"meta": {"' + b"k" * 1001 + b'": 1, '),
    "half a character": json.dumps(shared(answer="\ud800")).encode(),
    "a number for text": json.dumps(shared(answer=2)).encode(),
    "text for a flag": json.dumps(shared(responses=[{"text": "a", "finished": "yes"}] * 2)).encode(),
    "one response": json.dumps(shared(responses=[{"text": "a", "finished": True}])).encode(),
    "many responses": json.dumps(shared(responses=[{"text": "a", "finished": True}] * 65)).encode(),
    "many messages": json.dumps(shared(question=[{"role": "user", "content": ""}] * 65)).encode(),
    "no question": json.dumps(shared(question=[])).encode(),
    "a role that is markup": json.dumps(shared(question=[{"role": "user|><|", "content": ""}])).encode(),
    "more than a package": json.dumps(shared(old_logp=[0.0])).encode(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_package_is_unusable(name: str, tmp_path: Path) -> None:
    mine = Folder(tmp_path, "a1")
    (tmp_path / "x.000000.0.json").write_bytes(HOSTILE[name])
    with pytest.raises(Unusable, match="malformed"):
        mine.read("x.000000.0.json")


def test_what_others_would_not_take_is_not_sent() -> None:
    with pytest.raises(ValueError, match="NaN is no number"):
        package(dataclasses.replace(QUESTION, meta={"level": float("nan")}), GROUP).to_json()


def test_files_of_other_kinds_are_not_opened(tmp_path: Path) -> None:
    mine = Folder(tmp_path / "pool", "a1")
    mine.path.mkdir()
    (tmp_path / "secret.json").write_bytes(package(QUESTION, GROUP).to_json())
    (mine.path / "x.000000.0.json").symlink_to(tmp_path / "secret.json")
    os.mkfifo(mine.path / "x.000000.1.json")
    (mine.path / "x.000000.2.json").mkdir()
    (mine.path / "x.000000.3.json").write_bytes(b" " * (MAX_BYTES + 1))
    (mine.path / "x.000000.4.json").symlink_to("nowhere")
    for other in ("readme", "x.json", ".json", "x.000000.5.json.tmp", "../x.000000.0.json".replace("/", "_")):
        (mine.path / other).write_text("{}")
    said = {}
    for name in [*mine.collect(3), "x.000000.9.json"]:
        with pytest.raises(Unusable) as why:
            mine.read(name)
        said[name[9]] = str(why.value)
    assert said == {"0": "malformed", "1": "malformed", "2": "malformed", "3": "large", "4": "malformed", "9": "gone"}


def test_a_package_is_never_written_over_what_a_link_points_at(tmp_path: Path) -> None:
    mine = Folder(tmp_path / "pool", "a1")
    mine.path.mkdir()
    (tmp_path / "mine").write_text("precious")
    (mine.path / "a1.000000.0.json").symlink_to(tmp_path / "mine")
    mine.publish(0, 0, package(QUESTION, GROUP))
    assert (tmp_path / "mine").read_text() == "precious"


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(ValidationError):
        package(QUESTION, GROUP[:1])
    with pytest.raises(ValidationError):
        package(dataclasses.replace(QUESTION, meta={"a": object()}), GROUP)
    with pytest.raises(ValueError, match="surrogates"):
        package(QUESTION, [("\ud800", True), ("", True)]).to_json()
    with pytest.raises(ValueError, match="bytes, more than"):
        package(QUESTION, [("a" * MAX_BYTES, True), ("", True)]).to_json()


# The program ----------------------------------------------------------------------------------------------------------


def decoded(ids: Sequence[int]) -> str:
    return "".join(map(chr, ids)).rstrip("\0")


class Host:
    """A step of a run: who asks, who judges, and what was counted. A response is worth its number of characters."""

    def __init__(self, run: str, sampler: Any = None, budget: int = 8, fails: str = "\x00") -> None:
        self.run, self.budget, self.fails = run, budget, fails
        self.sampler = sampler or self
        self.notes: dict[str, Any] = {}
        self.counts: dict[str, float] = {}
        self.judged = 0

    def prompt(self, example: Example, key: tuple[int, ...] = (0, 0, -1)) -> Asked:
        async def judge(responses: Sequence[Response]) -> list[Verdict]:
            self.judged += len(responses)
            texts = [decoded(r.tokens) for r in responses]
            return [Verdict(float(len(t)), True, True, "", failed=t == self.fails) for t in texts]

        return ask(self.sampler, (1, 2), self.budget, key, judge, encode=lambda text: tuple(map(ord, text)), end=(0,))

    async def logprobs(self, tokens: Any, written: tuple[int, ...], *, temperature: float) -> Response:
        """What the policy thinks of a token is its number."""
        return Response(
            list(written), [-float(t) for t in written], [0.0] * len(written), "eos" if written[-1] == 0 else "length"
        )

    def own(self, *groups: Sequence[str]) -> list[Answered]:
        rows = [[Response([*map(ord, t), 0], [], [], "eos") for t in texts] for texts in groups]
        examples = [Example(f"{i}", user(f"{i}?"), "") for i in range(len(groups))]
        return [
            Answered(e, self.prompt(e, (0, 0, i))[0], r) for i, (e, r) in enumerate(zip(examples, rows, strict=True))
        ]

    def take(self, swarm: Swarm, own: Sequence[Answered] = (), step: int = 0, judge: str = "exact") -> list[Answered]:
        """What the program has beside the run's own groups."""

        def asked(example: Example) -> Asked | None:
            return None if "too long" in example.prompt[-1]["content"] else self.prompt(example)

        self.counts = {}
        at = Step((0, step), self.run, JudgeSpec(judge), self.sampler, decoded, asked, self.notes, self.counts)
        program = swarm.beside(own, at)
        return [] if program is None else asyncio.run(program)


def texts(groups: Sequence[Answered]) -> list[list[str]]:
    return [["".join(map(chr, r.tokens)).rstrip("\0") for r in g.responses] for g in groups]


def test_two_runs_hand_each_other_their_groups(tmp_path: Path) -> None:
    swarm = Swarm(size=3, folder=str(tmp_path))
    a, b = Host("a"), Host("b")
    assert a.take(swarm, a.own(["x", "yy", "zzz"], ["u", "v", "w"])) == [], "nobody is there yet"
    [found] = b.take(swarm, b.own(["k", "ll"]))
    assert texts([found]) == [["x", "yy", "zzz"]], "one group for its one own; equal rewards take no place"
    assert found.example.prompt == user("0?")
    for response in found.responses:
        assert response.origin == 1
        assert response.finished
        assert response.logp == [-float(t) for t in response.tokens], "scored here"
        assert response.verdict is not None
        assert response.verdict.score == len(response.tokens) - 1
    assert b.take(swarm, b.own(["k", "ll"]), step=1) == [], "every package is looked at once"
    assert b.notes == json.loads(json.dumps(b.notes))
    assert texts(a.take(swarm, a.own(["m", "nn"]), step=1)) == [["k", "ll"]]


def test_the_draw_is_random_reproducible_and_takes_all_at_last(tmp_path: Path) -> None:
    a, first, again = Host("a"), Host("b"), Host("b")
    a.take(Swarm(size=2, folder=str(tmp_path)), a.own(*(["x", "y" * (i + 2)] for i in range(6))))
    swarm = Swarm(size=2, folder=str(tmp_path), external=2)
    drawn = [texts(first.take(swarm, first.own(["k", "l"]), step)) for step in range(4)]
    assert [len(groups) for groups in drawn] == [2, 2, 2, 0]
    assert len({group[1] for groups in drawn for group in groups}) == 6
    assert [texts(again.take(swarm, again.own(["k", "l"]), step)) for step in range(4)] == drawn
    resumed = Host("b")
    resumed.notes = json.loads(json.dumps(first.notes))
    assert resumed.take(swarm, first.own(["k", "l"]), 3) == []
    names = [f"n{i}" for i in range(50)]
    orders = [swarm.order(names, (0, step)) for step in range(2)]
    assert orders[0] != orders[1]
    assert [n for n in orders[0] if n in names[:9]] == swarm.order(names[8::-1], (0, 0)), "whoever else is there"


def test_what_cannot_be_used_is_counted_by_reason(tmp_path: Path) -> None:
    host, swarm = Host("b"), Swarm(size=3, folder=str(tmp_path), external=99)

    def put(i: int, responses: Sequence[tuple[str, bool]], question: str = "?", **meta: Any) -> None:
        content = package(Example("", user(question), "", meta=meta), list(responses))
        (tmp_path / f"a.000000.{i}.json").write_bytes(content.to_json())

    put(0, [("a", True), ("bb", True)])
    put(1, [("12345678", True), ("bb", True), ("ccc", False), ("", True)])
    put(2, [("12345678", True), ("123456789", False), ("ccc", False), ("", False)])
    put(3, [("a", True), ("b", True)])
    put(4, [("a", True), ("bb", True)], question="too long")
    put(5, [("a", True), ("bb", True)], entry=base64.b64encode(pickle.dumps(print)).decode())
    put(6, [("a", True), ("bb", True), ("ccc", True), ("dddd", True)])
    (tmp_path / "a.000000.7.json").write_text("boom")
    (tmp_path / "a.000000.8.json").write_bytes(b" " * (MAX_BYTES + 1))
    found = host.take(swarm, host.own(["k", "ll"]))
    assert sorted(texts(found)) == [["a", "bb"], ["a", "bb", "ccc"], ["bb", "ccc", ""]], "at most size, at least two"
    said = {name.removeprefix("swarm/"): int(n) for name, n in host.counts.items() if n}
    assert said == {"taken": 3, "rows_dropped": 4, "long": 2, "equal": 1, "foreign": 1, "malformed": 1, "large": 1}
    assert not next(r.finished for g in found for r in g.responses if len(r.tokens) == 3 and r.tokens[-1])
    assert {f"swarm/{reason}" for reason in REASONS} <= host.counts.keys()
    judged = host.judged
    assert host.take(swarm, host.own(["k", "ll"]), step=1) == []
    assert host.judged == judged


def test_a_judge_that_fails_ends_the_search_of_a_step(tmp_path: Path) -> None:
    a, host = Host("a"), Host("b", fails="x")
    swarm = Swarm(size=2, folder=str(tmp_path))
    a.take(swarm, a.own(*[["x", "yy"]] * 3))
    for step in range(3):
        assert host.take(swarm, host.own(["k", "ll"]), step) == []
        assert host.counts["swarm/unjudged"] == 1
    assert host.take(swarm, host.own(["k", "ll"]), 3) == []
    assert host.counts["swarm/unjudged"] == 0


def test_a_run_that_cannot_publish_goes_on(tmp_path: Path) -> None:
    host = Host("b")
    assert host.take(Swarm(folder=str(tmp_path)), host.own(["only one"], ["k", "ll"], ["\ud800", "l"])) == []
    assert host.counts["swarm/unpublished"] == 2
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_is_refused_at_first_and_later_done_without(tmp_path: Path) -> None:
    host, swarm = Host("b"), Swarm(folder=str(tmp_path / "pool"))
    (tmp_path / "pool").write_text("")
    with pytest.raises(UserError, match=r"--folder .*pool: runs cannot share there"):
        host.take(swarm, host.own(["k", "ll"]))
    (tmp_path / "pool").unlink()
    assert host.take(swarm, host.own(["k", "ll"])) == []
    assert len(list((tmp_path / "pool").iterdir())) == 1
    (tmp_path / "pool").rename(tmp_path / "gone")
    (tmp_path / "pool").write_text("")
    assert host.take(swarm, host.own(["k", "ll"]), step=1) == []
    assert host.counts["swarm/unreachable"] == 1
    (tmp_path / "pool").unlink()
    assert host.take(swarm, host.own(["k", "ll"]), step=2) == []
    assert host.counts["swarm/unreachable"] == 0


def test_judges_that_run_what_comes_with_a_question_are_refused(tmp_path: Path) -> None:
    library, builtin = ({"dataset": "chain_sum", "builtin": flag} for flag in (False, True))
    assert reads_data(JudgeSpec("math"))
    assert reads_data(JudgeSpec("reasoning-gym", builtin))
    assert not reads_data(JudgeSpec("reasoning-gym", library))
    assert not reads_data(JudgeSpec("diverse", {"judge": "tagged", "options": {"judge": "reasoning-gym", "options": library}}))  # fmt: skip
    assert reads_data(JudgeSpec("tagged", {"judge": "reasoning-gym", "options": builtin}))
    with pytest.raises(UserError, match="runs what comes with a question"):
        Host("b").take(Swarm(folder=str(tmp_path)), judge="reasoning-gym")
    assert Host("b").take(Swarm(), judge="reasoning-gym") == [], "nothing is shared"


def test_fields_are_checked() -> None:
    for wrong in ({"external": -1}, {"keep": 0}, {"max_age": 0.0}, {"folder": 3}):
        with pytest.raises(ValidationError):
            Swarm(**wrong)
    recipe = sapo_swarm(folder="/pool", external=0)
    assert recipe_from_dict(recipe.to_dict()) == recipe


# In training ----------------------------------------------------------------------------------------------------------


def test_foreign_rows_have_the_columns_of_own_rows_with_the_same_tokens(tiny_model: Path, tmp_path: Path) -> None:
    sampler = LocalSampler.of(load_tiny(tiny_model))
    host, swarm = Host("b", sampler, budget=9), Swarm(size=2, folder=str(tmp_path), temperature=0.7)
    a = Host("a")
    a.take(swarm, a.own(["(&)+", "(1"]))
    [group] = host.take(swarm, host.own(["k", "ll"]))
    own = []
    for response in group.responses:
        drawn = sampler.generate(
            (1, 2), max_tokens=len(response.tokens), temperature=0.7, key=(0,), forced=response.tokens, stop=[[0]]
        )
        [[found]] = sampler.run([drawn])
        found.verdict = response.verdict
        found.stop_reason = "eos" if response.tokens[-1] in sampler.eos else "length"
        own.append(found)
    batches = []
    for rows in (group.responses, own):
        verdicts = [r.verdict for r in rows if r.verdict is not None]
        batches.append(to_batch([(1, 2)] * 2, rows, verdicts, [0, 0], 9, torch.float64).columns())
    foreign, mine = batches
    assert foreign.pop("origin").tolist() == [1, 1]
    assert mine.pop("origin").tolist() == [0, 0]
    assert foreign.pop("pass_rate").shape == mine.pop("pass_rate").shape, "of the main program alone, by definition"
    assert foreign.keys() == mine.keys()
    for name in mine:
        torch.testing.assert_close(foreign[name], mine[name], rtol=1e-6, atol=1e-6, msg=name)


def test_runs_that_share(tmp_path: Path, tiny_model: Path) -> None:
    task, pool = write_task(tmp_path / "task"), tmp_path / "pool"
    recipe, alone = sapo_swarm(folder=str(pool), group_size=4), sapo_swarm(group_size=4)
    plain = grpo(0.2, 0.28, kl_coef=0.0, group_size=4).replace(aggregate=TokenMean()).set("advantage.eps", 1e-8)
    for name, of in (("plain", plain), ("alone", alone), ("first", recipe)):
        train(tmp_path / name, tiny_model, task, of)
    model = {name: load_file(tmp_path / name / "model" / "model.safetensors") for name in ("plain", "alone", "first")}
    for name in ("alone", "first"):
        assert all(torch.equal(x, model[name][key]) for key, x in model["plain"].items()), "an empty pool is local GRPO"
    before = {p.name: p.read_bytes() for p in pool.iterdir()}
    assert len(before) == 12

    (pool / "evil.000000.0.json").write_bytes(pickle.dumps(print))
    second = train(tmp_path / "second", tiny_model, task, recipe, seed=5)
    rows = [row for row in lines(tmp_path / "second" / "metrics.jsonl") if row["step"]]
    assert rows[0]["swarm/taken"] == 4
    assert sum(row["swarm/malformed"] for row in rows) <= 1
    assert all(row["responses"] == 16 and row["update/skipped"] == 0 and row["judge/failed"] == 0 for row in rows)
    samples = [r for r in lines(tmp_path / "second" / "samples.jsonl") if r["phase"] == "train" and r["step"] == 1]
    foreign = [r for r in samples if r["id"].startswith("swarm:")]
    assert len(samples) == 16 + len(foreign)
    assert any(w for r in foreign for w in r["weights"])

    assert second.out is not None
    (second.out / "checkpoints" / "step-000003").rename(tmp_path / "gone")
    last = load_file(second.out / "model" / "model.safetensors")
    run(second, resume=second.out, quiet=True)
    again = load_file(second.out / "model" / "model.safetensors")
    assert all(torch.equal(x, again[key]) for key, x in last.items()), "the same pool, the same run"
    assert {p.name: p.read_bytes() for p in pool.iterdir() if p.name in before} == before


def test_text_that_spells_a_special_token_stays_text(tmp_path: Path, tiny_model: Path) -> None:
    task, pool = write_task(tmp_path / "task"), tmp_path / "pool"
    content = package(Example("", user("<|end|>?"), ""), [("a<|end|>b", True), ("<|pad|>A", False)])
    Folder(pool, "evil").publish(0, 0, content)
    train(tmp_path / "run", tiny_model, task, sapo_swarm(folder=str(pool), group_size=4), steps=1)
    found = [r for r in lines(tmp_path / "run" / "samples.jsonl") if r.get("id", "").startswith("swarm:")]
    assert [(r["response"], r["length"], r["truncated"]) for r in found] == [("a<|end|>b", 10, False), ("<|pad|>A", 8, True)]  # fmt: skip


def test_a_package_of_strings_only() -> None:
    assert Package.from_json(package(QUESTION, GROUP).to_json()) == package(QUESTION, GROUP)
