"""The client of the tinker package trains as plain PyTorch does."""

from __future__ import annotations

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tinker
import torch

from policyopt.serve.losses import LOSSES
from tests.serve.data import datum, logprobs, texts
from tests.tiny import load_tiny

warnings.filterwarnings("ignore", category=FutureWarning, module="tinker")


def plain(folder: Path, model: Path, data: list[list[int]]) -> tuple[Any, list[torch.Tensor]]:
    """The adapters in a folder on the model by PEFT alone, and the log-probabilities of texts, with gradient."""
    from peft import PeftModel

    base = load_tiny(model).model
    net = PeftModel.from_pretrained(base, str(folder), is_trainable=True).eval().double()
    found = []
    for tokens in data:
        logits = net(input_ids=torch.tensor([tokens[:-1]])).logits[0]
        found.append(logits.log_softmax(-1).gather(-1, torch.tensor(tokens[1:])[:, None])[:, 0])
    return net, found


def gradients(net: Any) -> dict[str, torch.Tensor]:
    return {n.replace(".default.", "."): p.grad for n, p in net.named_parameters() if p.requires_grad}


def moved_client(client: Any, model: Path, **how: Any) -> Any:
    """A client whose adapters are not those of the start any more."""
    training = client.create_lora_training_client(base_model=str(model), rank=3, seed=5, **how).result()
    training.forward_backward([datum(t) for t in texts(7, 5)], "cross_entropy")
    training.optim_step(tinker.AdamParams(learning_rate=0.05)).result()
    return training


def test_the_gradient_is_that_of_plain_autograd(client: Any, served: Any, tiny_model: Path) -> None:
    training, data = moved_client(client, tiny_model), texts(9, 4, 6, seed=1)
    service = served[1]
    folder = service.store.find(training.save_state("before").result().path).folder

    def check(losses: torch.Tensor, net: Any) -> None:
        losses.backward()
        expected, mine = gradients(net), service.held.get(training.model_id).parameters
        assert expected.keys() == mine.keys()
        largest = max(float(g.abs().max()) for g in expected.values())
        assert largest > 0.1
        for name, g in expected.items():  # weights travel in float32
            torch.testing.assert_close(mine[name].grad, g, rtol=0, atol=1e-6 * largest)

    weights = [torch.linspace(-1, 1, len(t) - 1) for t in data]
    sent = [datum(t, weights=w) for t, w in zip(data, weights, strict=True)]
    out = training.forward_backward(sent, "cross_entropy").result()
    net, logp = plain(folder, tiny_model, data)
    for mine, theirs in zip(logprobs(out), logp, strict=True):
        assert mine == pytest.approx(theirs.tolist(), abs=1e-5)
    loss = -sum((w * x).sum() for w, x in zip(weights, logp, strict=True))
    assert out.metrics["loss:sum"] == pytest.approx(loss.item(), rel=1e-6)
    check(loss, net)
    training.optim_step(tinker.AdamParams(learning_rate=0.0)).result()

    # A loss that couples texts, worked out by the client.
    def coupled(data: Any, found: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        sums = torch.stack([x.sum() for x in found])
        return (sums.softmax(0) * sums).sum() + (found[0] ** 2).sum(), {"texts:sum": float(len(found))}

    out = training.forward_backward_custom([datum(t) for t in data], coupled).result()
    net, logp = plain(folder, tiny_model, data)
    loss, _ = coupled(None, logp)
    assert out.metrics["loss:sum"] == pytest.approx(loss.item(), rel=1e-5)
    assert out.metrics["texts:sum"] == 3
    check(loss, net)


def test_several_targets_at_a_place(client: Any, served: Any, tiny_model: Path) -> None:
    training, (tokens,) = moved_client(client, tiny_model), texts(6)
    service = served[1]
    folder = service.store.find(training.save_state("several").result().path).folder
    targets = torch.tensor([[t, (t + 1) % 102, 0] for t in tokens[1:]])
    weights = torch.zeros(targets.shape)
    weights[1, 0], weights[3, 1] = 0.5, -2.0  # sent sparse
    several = tinker.Datum(
        model_input=tinker.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={"target_tokens": targets, "weights": weights},
    )
    out = training.forward([several, datum(tokens)], "cross_entropy").result()
    net, (one,) = plain(folder, tiny_model, [tokens])
    whole = net(input_ids=torch.tensor([tokens[:-1]])).logits[0].log_softmax(-1)
    found = torch.tensor(logprobs(out)[0])
    torch.testing.assert_close(found.double(), whole.gather(-1, targets).detach(), rtol=0, atol=1e-5)
    assert logprobs(out)[1] == pytest.approx(one.tolist(), abs=1e-5)
    assert out.metrics["loss:sum"] == pytest.approx(
        -0.5 * float(found[1, 0]) + 2 * float(found[3, 1]) - sum(logprobs(out)[1]), rel=1e-5
    )
    assert all(p.grad is None for p in service.held.get(training.model_id).parameters.values())


def test_a_step_is_that_of_adamw(client: Any, served: Any, tiny_model: Path) -> None:
    training = moved_client(client, tiny_model)
    mine = served[1].held.get(training.model_id)
    training.forward_backward([datum(texts(5)[0])], "cross_entropy").result()
    theirs = {n: torch.nn.Parameter(p.detach().clone()) for n, p in mine.parameters.items()}
    expected = torch.optim.AdamW(theirs.values(), lr=1.0)
    expected.load_state_dict(copy.deepcopy(mine.weights.optimizers["policy"].state_dict()))
    for lr, clip, decay in ((0.01, 0.0, 0.0), (0.02, 0.5, 0.1), (0.005, 1e9, 0.01)):
        for name, p in theirs.items():
            p.grad = mine.parameters[name].grad.clone()
        size = float(torch.nn.utils.clip_grad_norm_(theirs.values(), clip or float("inf")))
        for group in expected.param_groups:
            group |= {"lr": lr, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": decay, "fused": None, "foreach": None}
        expected.step()
        adam = tinker.AdamParams(
            learning_rate=lr, beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=decay, grad_clip_norm=clip
        )
        assert training.optim_step(adam).result().metrics["grad_norm"] == pytest.approx(size)
        for name, p in theirs.items():
            torch.testing.assert_close(mine.parameters[name].detach(), p.detach(), rtol=0, atol=1e-12)
        training.forward_backward([datum(t) for t in texts(4, 8, seed=3)], "cross_entropy").result()


def test_the_losses_are_those_of_the_protocol() -> None:
    g = torch.Generator().manual_seed(0)
    logp, old, advantage = (torch.randn(50, generator=g, dtype=torch.float64) for _ in range(3))
    logp.requires_grad_()
    r = (logp - old).exp()
    low, high, beta = 0.7, 1.5, 0.3
    written = {
        "importance_sampling": -(r * advantage).sum(),
        "ppo": -torch.minimum(r * advantage, r.clamp(low, high) * advantage).sum(),
        "cispo": -(r.clamp(low, high).detach() * logp * advantage).sum(),
        "dro": -(logp * advantage - beta / 2 * (logp - old) ** 2).sum(),
    }
    config = {"clip_low_threshold": low, "clip_high_threshold": high, "beta": beta}
    for name, expected in written.items():
        found = LOSSES[name].value(logp, {"logprobs": old, "advantages": advantage}, config)
        torch.testing.assert_close(found, expected)
        (mine,), (theirs,) = (torch.autograd.grad(x, logp, retain_graph=True) for x in (found, expected))
        torch.testing.assert_close(mine, theirs)


def test_models_keep_apart_and_forget_nothing(client: Any, served: Any, tiny_model: Path) -> None:
    """Two clients take turns, of unlike shapes, while more models come than are held in memory."""
    data = [datum(t) for t in texts(6, 9, seed=2)]
    kinds: list[dict[str, Any]] = [{"rank": 2}, {"rank": 5, "train_mlp": False, "train_unembed": False}]

    def alone(kind: dict[str, Any]) -> list[list[float]]:
        training = client.create_lora_training_client(base_model=str(tiny_model), seed=1, **kind).result()
        for _ in range(2):
            training.forward_backward(data, "cross_entropy")
            training.optim_step(tinker.AdamParams(learning_rate=0.01)).result()
        return logprobs(training.forward(data, "cross_entropy").result())

    expected = [alone(kind) for kind in kinds]
    assert expected[0] != expected[1]
    both = [client.create_lora_training_client(base_model=str(tiny_model), seed=1, **kind).result() for kind in kinds]
    for _ in range(2):
        for training in both:
            training.forward_backward(data, "cross_entropy").result()
        for training in both:
            training.optim_step(tinker.AdamParams(learning_rate=0.01)).result()
        held = served[1].held
        held.rest()
        held._models.clear()  # what it does with the least used, beyond its number
    assert [logprobs(training.forward(data, "cross_entropy").result()) for training in both] == expected
    assert [training.get_info().lora_rank for training in both] == [2, 5]
    names = list(served[1].held.get(both[1].model_id).parameters)
    assert names and all("self_attn" in n for n in names)


def test_clients_at_the_same_time_get_what_each_gets_alone(served: Any, tiny_model: Path) -> None:
    def loop(seed: int) -> Any:
        training = (
            tinker.ServiceClient(base_url=served[0])
            .create_lora_training_client(base_model=str(tiny_model), rank=2 + seed, seed=seed)
            .result()
        )
        drawn = []
        for step in range(2):
            sampler = training.save_weights_and_get_sampling_client().result()
            params = tinker.SamplingParams(max_tokens=8, seed=step)
            asked = [sampler.sample(tinker.ModelInput.from_ints(p), 2, params) for p in texts(5, 7, seed=seed)]
            drawn.append([[s.tokens for s in each.result().sequences] for each in asked])
            training.forward_backward([datum(t) for t in texts(6, 8, seed=seed + step)], "cross_entropy")
            training.optim_step(tinker.AdamParams(learning_rate=0.02))
        return drawn, logprobs(training.forward([datum(texts(9)[0])], "cross_entropy").result())

    alone = [loop(seed) for seed in range(2)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(loop, range(2))) == alone
    assert alone[0] != alone[1]
