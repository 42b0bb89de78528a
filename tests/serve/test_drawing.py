"""What samplers draw, through the client of the tinker package."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tinker

from policyopt.serve import drawing
from policyopt.serve.drawing import Wanted, draw_together
from policyopt.serve.refused import Refused
from tests.serve.data import datum, logprobs, texts


def asked(sampler: Any, prompt: list[int], n: int = 1, more: dict[str, Any] | None = None, **params: Any) -> Any:
    return sampler.sample(
        tinker.ModelInput.from_ints(prompt),
        n,
        tinker.SamplingParams(**{"max_tokens": 12, "seed": 1} | params),
        **more or {},
    ).result()


def read(answer: bytes) -> list[int]:
    from tinker.proto.response_conv import deserialize_sample_response

    return list(deserialize_sample_response(answer).sequences[0].tokens)


def drawn(response: Any) -> list[tuple[str, list[int], list[float]]]:
    return [(s.stop_reason, s.tokens, s.logprobs) for s in response.sequences]


@pytest.fixture
def training(client: Any, tiny_model: Path) -> Any:
    training = client.create_lora_training_client(base_model=str(tiny_model), rank=3, seed=5).result()
    training.forward_backward([datum(t) for t in texts(7, 5)], "cross_entropy")
    training.optim_step(tinker.AdamParams(learning_rate=0.05)).result()
    return training


def test_what_is_drawn_is_as_likely_as_the_trainer_says(client: Any, training: Any, tiny_model: Path) -> None:
    sampler = training.save_weights_and_get_sampling_client().result()
    prompt = texts(9, seed=4)[0]
    found = asked(sampler, prompt, 3)
    _, tokens, mine = max(drawn(found), key=lambda s: len(s[1]))
    (theirs,) = logprobs(training.forward([datum(prompt + tokens)], "cross_entropy").result())
    assert mine == pytest.approx(theirs[-len(tokens) :], abs=1e-5)
    read = sampler.compute_logprobs(tinker.ModelInput.from_ints(prompt + tokens)).result()
    assert read[0] is None
    assert read[1:] == pytest.approx(theirs, abs=1e-5)
    last = sampler.compute_logprobs(tinker.ModelInput.from_ints(prompt + tokens), prompt_logprobs_last_n=2).result()
    assert last[:-2] == [None] * (len(last) - 2)
    assert last[-2:] == pytest.approx(theirs[-2:], abs=1e-5)

    # The same seed draws the same, another one something else; the samples of a request are not alike.
    assert drawn(asked(sampler, prompt, 3)) == drawn(found)
    assert drawn(asked(sampler, prompt, 3, seed=2)) != drawn(found)
    assert len({tuple(s.tokens) for s in found.sequences}) == 3
    assert len({s.sequence_id for s in found.sequences}) == 3
    assert drawn(asked(sampler, prompt, seed=None)) != drawn(asked(sampler, prompt, seed=None))

    # The model itself is another one than what was trained on it, and training on changes no snapshot.
    base = client.create_sampling_client(base_model=str(tiny_model)).result()
    assert drawn(asked(base, prompt, 3)) != drawn(found)
    training.forward_backward([datum(prompt)], "cross_entropy")
    training.optim_step(tinker.AdamParams(learning_rate=0.1)).result()
    assert drawn(asked(sampler, prompt, 3)) == drawn(found)


def test_the_likeliest_tokens(training: Any) -> None:
    sampler = training.save_weights_and_get_sampling_client().result()
    prompt = texts(6, seed=4)[0]
    found = asked(sampler, prompt, more={"topk_prompt_logprobs": 3, "topk_sample_logprobs": 2}, temperature=0.0)
    assert found.sequences[0].tokens == asked(sampler, prompt, top_k=1).sequences[0].tokens
    (sequence,) = found.sequences
    assert [best[0] for best in sequence.topk_logprobs] == [
        (t, pytest.approx(x, abs=1e-6)) for t, x in zip(sequence.tokens, sequence.logprobs, strict=True)
    ]
    assert found.topk_prompt_logprobs[0] is None
    for i, table in enumerate(found.topk_prompt_logprobs[1:], 1):
        assert len(table) == 3
        assert table[0][1] >= table[1][1] >= table[2][1]
        (scored,) = logprobs(training.forward([datum([*prompt[:i], table[1][0]])], "cross_entropy").result())
        assert table[1][1] == pytest.approx(scored[-1], abs=1e-5)


def test_where_a_response_ends(training: Any, served: Any) -> None:
    sampler = training.save_weights_and_get_sampling_client().result()
    policy, prompt = served[1].policy, texts(6, seed=4)[0]

    def first(**params: Any) -> tuple[str, list[int], list[float]]:
        return drawn(asked(sampler, prompt, max_tokens=40, seed=11, **params))[0]

    never = first(stop=[])
    assert never[:1] == ("length",) and len(never[1]) == 40
    usual = first()
    assert usual[0] == "stop"
    assert usual[1] == never[1][: len(usual[1])]
    assert usual[1][-1] in policy.eos and not set(usual[1][:-1]) & set(policy.eos)
    until = usual[1].index(usual[1][-2]) + 1
    assert first(stop=[usual[1][-2]])[:2] == ("stop", usual[1][:until])
    text = policy.tokenizer.decode(usual[1][1:3])
    assert first(stop=text)[:2] == ("stop", usual[1][:3])
    assert first(stop=[text, "no such text"])[:2] == ("stop", usual[1][:3])


def test_truncated_draws_come_from_what_is_left(training: Any) -> None:
    sampler = training.save_weights_and_get_sampling_client().result()
    prompt = texts(6, seed=4)[0]
    found = asked(sampler, prompt, 40, max_tokens=1, top_k=2, temperature=0.5)
    p: dict[int, float] = {s.tokens[0]: math.exp(s.logprobs[0]) for s in found.sequences}
    assert len(p) == 2
    assert sum(p.values()) == pytest.approx(1, abs=1e-5)
    one = asked(sampler, prompt, 8, max_tokens=1, top_p=1e-6)
    assert {s.logprobs[0] for s in one.sequences} == {0.0}


def test_requests_in_flight_are_one_batch(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    service = served[1]
    from tinker import types

    def order(i: int) -> Any:
        request = types.SampleRequest(
            prompt=types.ModelInput.from_ints(texts(5 + i)[0]), sampling_params=types.SamplingParams(max_tokens=8, stop=[], seed=i),
            base_model=service.names[0],
        )  # fmt: skip
        return drawing.read_order(request, service.policy, service.limits)

    answers: dict[int, bytes] = {}

    def wanted(i: int) -> Wanted:
        def failed(error: BaseException) -> None:
            raise error

        return Wanted(order(i), lambda answer: answers.__setitem__(i, answer), failed)

    rows: list[int] = []
    draw = service.sampler._draw
    monkeypatch.setattr(service.sampler, "_draw", lambda: rows.append(len(service.sampler.stepper.active)) or draw())
    late = [[wanted(3)], [wanted(4)]]

    def more() -> list[Wanted]:
        return late.pop() if len(rows) > 2 and late else []

    with service.seats.seated(None):
        draw_together(service.sampler, service.split, [wanted(i) for i in range(3)], more, lambda: False)
        assert sorted(answers) == [0, 1, 2, 3, 4]
        assert rows[0] == 3 and max(rows) == 5
        assert sum(rows) == 5 * 8 and len(rows) <= 8 + 6
        together = dict(answers)
        for i in range(5):
            draw_together(service.sampler, service.split, [wanted(i)], lambda: [], lambda: False)
    assert {i: read(a) for i, a in together.items()} == {i: read(a) for i, a in answers.items()}


@pytest.mark.parametrize(
    ("params", "more", "said"),
    [
        ({"max_tokens": 0}, {}, "sampling_params.max_tokens 0"),
        ({"max_tokens": 300}, {}, "at most 254 in the model's context of 256"),
        ({"temperature": -1.0}, {}, "sampling_params.temperature -1"),
        ({"temperature": math.nan}, {}, "sampling_params.temperature nan"),
        ({"top_p": 0.0}, {}, "sampling_params.top_p 0"),
        ({"top_k": 5000}, {}, "sampling_params.top_k 5000"),
        ({"stop": [100000]}, {}, "sampling_params.stop holds the id 100000"),
        ({"stop": [""]}, {}, "sampling_params.stop"),
        ({}, {"num_samples": 0}, "num_samples 0"),
        ({}, {"topk_prompt_logprobs": 1000}, "topk_prompt_logprobs 1000"),
        ({}, {"prompt_alt_tokens_k": 2}, "prompt_alt_tokens_k is not served here"),
        ({}, {"prompt_logprobs_last_n": 2}, "prompt_logprobs_last_n 2"),
        ({}, {"prompt": []}, "prompt holds no tokens"),
        ({}, {"prompt": [5, -3]}, "prompt holds the id -3"),
        ({}, {"prompt": [5] * 257}, "prompt has 257 tokens"),
    ],
)
def test_an_order_that_cannot_be(params: Any, more: Any, said: str, served: Any) -> None:
    from tinker import types

    prompt = more.get("prompt", [5, 6, 7])
    request = types.SampleRequest(
        sampling_params=types.SamplingParams(**params), base_model="x",
        **{k: v for k, v in more.items() if k != "prompt"}, prompt=types.ModelInput.from_ints(prompt),
    )  # fmt: skip
    with pytest.raises(Refused, match=said.replace("[", r"\[")) as caught:
        drawing.read_order(request, served[1].policy, served[1].limits)
    assert caught.value.status == 400
