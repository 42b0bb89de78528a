"""What the benchmark of docs/speed.md says: its bookkeeping, not how fast anything is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

FOLDER = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.usefixtures("benchmarks")


def small(**changes: Any) -> Any:
    from speed.workloads import Workload

    shape = {"hidden": 32, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 16, "inner": 64}
    return Workload("tiny", "tiny", prompts=2, group=3, prompt=9, tokens=6, shape=shape).with_(**changes)


def test_lengths_are_the_same_for_all_and_others_in_every_step() -> None:
    many = small(prompts=40, group=25, tokens=256, mean=80.0)
    assert many.lengths(3) == many.lengths(3) != many.lengths(4)
    assert min(many.lengths(0)) >= 1 and max(many.lengths(0)) == 256
    assert sum(many.lengths(0)) / 1000 == pytest.approx(76, abs=6)
    assert small().lengths(0) == [6] * 6


def test_operations_are_those_that_torch_counts(tmp_path: Path) -> None:
    """Attention as the eager code computes it looks at all pairs; the arithmetic gets as many here."""
    from speed.arithmetic import Sizes, backward, forward
    from speed.floor import Floor
    from speed.workloads import make_model

    floor = Floor(small(), make_model(small(), tmp_path))
    model = floor.model
    model.set_attn_implementation("eager")
    sizes, ids = Sizes.of(model), torch.arange(24).view(3, 8)
    with FlopCounterMode(display=False) as counted:
        loss = model(ids, use_cache=False).logits.sum()
        ahead = counted.get_total_flops()
        loss.backward()
    assert ahead == forward(sizes, 24, 3 * 8 * 8, 24)
    assert counted.get_total_flops() - ahead == backward(sizes, 24, 3 * 8 * 8, 24)


def test_what_a_step_needs_counts_prompts_once_and_no_last_token() -> None:
    from speed.arithmetic import Sizes, needed

    sizes = Sizes(body=10, width=0, cache=0, head=7, trained=17)
    lengths = [6, 2, 1, 3, 3, 3]
    found = needed(small(), sizes, lengths, 9)
    assert found.tokens == 2 * 9 + 18 - 6
    assert found.drawing == 2 * (10 * found.tokens + 7 * 18)
    assert found.update == 3 * found.drawing
    twice = needed(small(reference=True, epochs=2), sizes, lengths, 9)
    assert twice.update == 2 * found.update + found.drawing


@pytest.mark.parametrize(
    "changes", [{}, {"mean": 4.0}, {"reference": True, "epochs": 2, "minibatches": 2, "critic": True}]
)
def test_the_floor_has_the_gradient_of_whole_rows(changes: dict[str, Any], tmp_path: Path) -> None:
    """Shared prompts, rows side by side and the head in chunks are ways to go, and change nothing."""
    from speed.floor import Floor
    from speed.workloads import make_model

    torch.manual_seed(0)
    work = small(**changes)
    floor = Floor(work, make_model(work, tmp_path))
    lengths = sorted(work.lengths(2), reverse=True)
    tokens, logp = floor.draw(range(6), lengths)
    for i, n in enumerate(lengths):
        ids = torch.cat([floor.prompt[i // 3], tokens[i, :n]])
        whole = floor.model(ids[None], use_cache=False).logits[0, 8:-1].log_softmax(-1)
        assert torch.allclose(logp[i, :n], whole.gather(-1, tokens[i, :n, None])[:, 0], atol=1e-4)
    seen: list[torch.Tensor] = []
    floor.optimizer.step = lambda: seen.append(floor.model.lm_head.weight.grad.clone())  # type: ignore[method-assign,assignment,union-attr]
    for kept in (False, True):
        if kept:  # each row alone
            floor.pieces = lambda lengths, rows: ([row] for row in rows)  # type: ignore[method-assign,assignment]
        floor.update(range(6), lengths, tokens, logp)
    half = len(seen) // 2
    assert half == work.epochs * work.minibatches and float(seen[0].abs().sum()) > 0
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(seen[:half], seen[half:], strict=True))


def test_ratios_are_medians_of_pairs() -> None:
    """A machine that becomes ten times slower in the middle changes both times of a pair, and no ratio."""
    from speed.turns import paired

    mine = [{"step": x} for x in (1.0, 10.0, 30.0)]
    theirs = [{"step": x} for x in (2.0, 20.0, 20.0, 1.0)]
    assert paired(mine, theirs) == 0.5
    assert paired([], theirs) is None


def test_distinct_tokens_of_texts_that_part() -> None:
    from speed.passes import distinct

    texts = [([1, 2], [3, 4]), ([1, 2], [3, 5, 6]), ([1], [2, 9])]
    assert distinct(texts) == 4  # 1, 2, 3 and 5; the last ones are not read


def test_contenders_take_turns_and_one_that_is_lost_holds_nobody_up(tmp_path: Path) -> None:
    """Two processes on a tiny W1, and a third that does not exist."""
    from speed.report import Results, told
    from speed.turns import contenders, measure

    said: list[str] = []
    with contenders(["floor", "nobody"]) as running:
        running["floor"].log.touch()
        measured = list(measure(small(), running, 2, "float32", said.append, warm=1))[-1]
    assert [len(rows) for rows in measured.rows.values()] == [2] and set(measured.lost) == {"nobody"}
    row = measured.rows["floor"][0]
    assert row["step"] == pytest.approx(row["rollout"] + row["update"]) and row["peak"] > 50
    assert any("nobody is lost" in line for line in said)
    results = Results(tmp_path)
    results.put("training", "tiny", told(measured))
    text, kept = (tmp_path / "speed.md").read_text(), json.loads((tmp_path / "speed.json").read_text())
    assert "| tiny | floor |" in text and "lost" in text
    assert kept["training"]["tiny"]["needed"]["tokens"] == 2 * 9 + 6 * 6 - 6
    assert set(kept["machine"]) >= {"cpu", "cores", "threads", "torch", "transformers"}


def test_what_stands_between_the_marks_is_exchanged() -> None:
    from speed.report import MARKS, into

    page = f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n"
    assert into(page, "new") == f"before\n{MARKS[0]}\n\nnew\n\n{MARKS[1]}\nafter\n"
    assert into("no marks", "new") == "no marks"


def test_tokens_that_pass_the_trainer_are_counted_with_their_padding() -> None:
    from speed.passes import batch_of, engine_of, gradient

    rows = [([5, 6, 7], [8, 9]), ([5, 6], [8])]
    row_by_row = engine_of(small().shape, micro_batch=1)
    assert gradient(row_by_row, batch_of(rows))[1] in (5 + 3, 4 + 2)  # the last token of a row need not be read


def test_the_slope_is_that_of_a_power() -> None:
    from speed.figure import panels, slope

    curve = [(n, 3 * n**1.5) for n in (1, 2, 8, 32)]
    assert slope(curve) == pytest.approx(1.5)
    drawn = panels({"length": {"ours": curve, "TRL": curve[:1]}, "one": {"ours": [(4.0, 2.0)]}}, "seconds")
    assert "ours (1.50)" in drawn and "TRL (" not in drawn and "prefers-color-scheme:dark" in drawn
    assert ElementTree.fromstring(drawn).tag.endswith("svg")


@pytest.mark.heavy
def test_trl_reads_the_prompts_and_draws_the_lengths_of_the_workload(tmp_path: Path) -> None:
    from speed.floor import Floor
    from speed.peer import Peer
    from speed.workloads import make_model

    work = small(mean=4.0, epochs=2, minibatches=2, reference=True)
    folder = make_model(work, tmp_path / "model")
    peer = Peer(work, folder, "float32", tmp_path / "trl")
    seen: list[tuple[list[list[int]], list[int]]] = []
    draw = peer.trainer._generate_single_turn

    def watched(prompts: Any, *more: Any, **keywords: Any) -> Any:
        found = draw(prompts, *more, **keywords)
        seen.append((prompts, [len(x) for x in found[0]]))
        return found

    peer.trainer._generate_single_turn = watched
    turns, times = iter([5, 6, None]), list[dict[str, float] | None]()
    peer.serve(lambda found: (times.append(found), next(turns))[1])
    prompts = Floor(work, folder).prompt.repeat_interleave(work.group, 0).tolist()
    assert [lengths for _, lengths in seen] == [work.lengths(5), work.lengths(6)]
    assert all(sorted(asked) == sorted(prompts) for asked, _ in seen)
    assert times[0] is None and all(t is not None and 0 < t["rollout"] < t["step"] for t in times[1:])


@pytest.mark.heavy
@pytest.mark.parametrize("changes", [{"mean": 4.0}, {"critic": True, "reference": True, "epochs": 2, "minibatches": 2}])
def test_ours_draws_the_lengths_and_passes_nothing_twice(changes: dict[str, Any], tmp_path: Path) -> None:
    from speed.ours import Ours
    from speed.workloads import make_model

    work = small(**changes)
    ours = Ours(work, make_model(work, tmp_path / "model"), "float32", tmp_path / "ours")
    found = ours.step(1)  # it asserts the lengths itself
    ours.close()
    passes = {name.removeprefix("passes/"): x for name, x in found.items() if "passes/" in name}
    more = {"reference": 1, "critic": 1, "critic with gradient": 2} if work.critic else {}
    assert passes == {"policy with gradient": work.epochs, **more}
