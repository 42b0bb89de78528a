"""Training, programs and the lens know engines by their protocol alone, and say before a run what an engine lacks."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

import policyopt
from policyopt.capability import CAPABILITIES, asks_of, refuse_missing
from policyopt.engine import make_engine
from policyopt.engine.local import LocalEngine, LocalSampler
from policyopt.engine.protocol import Engine, EngineSampler, Size
from policyopt.errors import UserError
from policyopt.lens import cost
from policyopt.methods.group.grpo import grpo
from policyopt.models.text import Text
from policyopt.part import part
from policyopt.recipe import Recipe
from policyopt.registry import get_method, get_study, methods
from policyopt.sources.program import Rollout
from tests.engine.test_looks import Apart, Reread
from tests.tiny import load_tiny

PACKAGE = Path(policyopt.__file__).parent
USERS = ("training", "rollout", "sources", "lens", "parts", "methods")
"""Packages that call an engine, or might."""


def members(protocol: type) -> set[str]:
    return {name for cls in protocol.__mro__ for name in (*vars(cls), *vars(cls).get("__annotations__", ()))}


KNOWN = {
    "engine": members(Engine),
    "sampler": members(EngineSampler),
    "text": members(Text) | set(Text.__dataclass_fields__),
    "size": set(Size.__dataclass_fields__),
}


def files() -> Iterator[Path]:
    for name in USERS:
        yield from sorted((PACKAGE / name).rglob("*.py"))


def distinct() -> list[str]:
    """A method for each rollout program of the library."""
    return list({type(m().source): name for name, m in reversed(methods().items())}.values())


PROGRAMS = distinct()


def called(node: ast.expr) -> str | None:
    """The last name of a chain: "sampler" of ``self.engine.sampler``."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None


def test_nobody_imports_an_engine() -> None:
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [f"{node.module}.{a.name}" for a in node.names] if isinstance(node, ast.ImportFrom) else []
            wrong = [name for name in names if name.startswith("policyopt.engine.local")]
            assert not wrong, f"{path}: {wrong}; policyopt.engine.make_engine makes one"


def test_nobody_reaches_past_the_protocol() -> None:
    seen = set()
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            owner = called(node.value) if isinstance(node, ast.Attribute) else None
            if isinstance(node, ast.Attribute) and owner in ("engine", "sampler"):
                seen.add(node.attr)
                assert node.attr in KNOWN[owner], f"{path}, line {node.lineno}: {ast.unparse(node)}"
                continue
            if isinstance(node, ast.Call) and called(node.func) == "getattr" and called(node.args[0]) in KNOWN:
                raise AssertionError(f"{path}, line {node.lineno}: {ast.unparse(node)} goes around the protocol")
            inner = node.value if isinstance(node, ast.Attribute) else None
            if isinstance(inner, ast.Attribute) and owner in ("text", "size") and called(inner.value) == "engine":
                assert node.attr in KNOWN[owner], f"{path}, line {node.lineno}: {ast.unparse(node)}"
    assert {"generate", "annotate", "update", "text", "run"} <= seen, "the test looks where engines are called"


def test_the_local_engine_has_what_the_protocol_says(tiny_model: Path) -> None:
    engine = LocalEngine(load_tiny(tiny_model), grpo())
    mine, asked = set(dir(engine)), members(Engine)
    assert {name for name in asked if not name.startswith("_")} <= mine
    assert {name for name in members(EngineSampler) if not name.startswith("_")} <= set(dir(engine.sampler))
    assert engine.capabilities == CAPABILITIES.keys()


USES = {
    "stop": "stop sequences",
    "forced": "forced tokens",
    "processor": "logit processors",
    "top": "top alternatives",
    "resume": "resume",
}
"""Arguments of a request that a sampler may not have."""


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_use_no_more_than_they_ask_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, used = get_method(name)(), set[str]()

    def watched(method: str, note: Callable[[Mapping[str, Any]], Iterable[str]], cls: type) -> None:
        original = getattr(cls, method)

        def call(self: Any, *args: Any, **keywords: Any) -> Any:
            used.update(note(keywords))
            return original(self, *args, **keywords)

        monkeypatch.setattr(cls, method, call)

    def request(keywords: Mapping[str, Any]) -> Iterable[str]:
        heat = {"temperature from logits"} if callable(keywords.get("temperature")) else set()
        return heat | {USES[k] for k, x in keywords.items() if k in USES and x}

    watched("generate", request, LocalSampler)
    watched("logprobs", lambda keywords: ["scoring"], LocalSampler)
    watched("embed", lambda keywords: ["token embeddings"], LocalSampler)
    watched("values", lambda keywords: ["critic"], LocalEngine)
    monkeypatch.setattr(cost, "PROMPTS", 4)
    monkeypatch.setattr(cost, "MICRO", 64)  # passes are not counted here
    cost.measure(recipe)
    assert used <= asks_of(recipe.source)


# Capabilities --------------------------------------------------------------------------------------------------------


@part
class Demanding(Rollout):
    """A program that says itself what it uses of a sampler."""

    asks: ClassVar[frozenset[str]] = frozenset(
        {"logit processors", "temperature from logits", "forced tokens", "stop sequences", "resume", "scoring"}
    )


@part
class Misspelt(Rollout):
    asks: ClassVar[frozenset[str]] = frozenset({"forced token"})


def recipe_asking(capability: str) -> Recipe:
    if capability in Demanding.asks:
        return grpo().replace(source=Demanding())
    if capability == "temperature":
        return grpo().set("source.temperature", 0.7)
    if capability == "truncated draws":
        return grpo().set("source.top_k", 5)
    if capability == "routing replay":
        return grpo().set("source.routing_replay", "sampler")
    if capability == "parameters":
        return grpo().replace(probes=get_study("rl-subnetworks")())
    if capability == "second looks":
        return grpo(kl_coef=0.0).replace(weight=(Reread(),))
    if capability == "group statistics":
        return grpo(kl_coef=0.0).replace(weight=(Apart(),))
    names = {
        "top alternatives": "rose",
        "token embeddings": "xrpo",
        "sampling entropy": "arpo-agentic",
        "role sampling": "rlgf",
        "entropy": "entropy-high-tokens",
        "statistics": "siren",
        "role logits": "rapo",
        "roles": "grpo",
        "moving roles": "remix",
        "critic": "ppo",
        "gradient noise": "oblr-po",
    }
    return made(names[capability])


def made(name: str) -> Recipe:
    return get_method(name)()


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_what_an_engine_lacks_is_refused_by_name(capability: str) -> None:
    class Stub:
        capabilities = frozenset(CAPABILITIES) - {capability}

    recipe = recipe_asking(capability)
    asked = recipe.asks
    who = asked[capability][0]
    with pytest.raises(UserError) as error:
        refuse_missing(recipe.name, asked, Stub.capabilities, "stub")
    assert str(error.value).startswith(
        f"{recipe.name} asks for what the engine 'stub' does not have: '{capability}' ({who}"
    )
    assert str(error.value).count("): ") == 1, "nothing else is missing"
    refuse_missing(recipe.name, asked, CAPABILITIES, "stub")


def test_an_engine_is_not_made_for_what_it_cannot_do(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyopt.engine.local.CAPABILITIES", frozenset(CAPABILITIES) - {"critic"})
    nothing: Any = None
    with pytest.raises(
        UserError, match=r"ppo asks for what the engine 'local' does not have: 'critic' \(advantage GAE, critic "
    ):
        make_engine(nothing, made("ppo"))
    assert make_engine(load_tiny(tiny_model), made("grpo")).version == 0


def test_a_capability_that_is_none_is_refused_with_its_nearest() -> None:
    with pytest.raises(
        ValueError, match="Misspelt asks for 'forced token', which is no capability; nearest: forced tokens"
    ):
        asks_of(Misspelt())
    with pytest.raises(ValueError, match="nearest: forced tokens"):
        grpo().replace(source=Misspelt())


def test_plain_grpo_asks_for_a_reference_alone() -> None:
    assert grpo().asks == {"roles": ("regularizers.KL",)}
    assert grpo(kl_coef=0.0).asks == {}


def test_the_protocol_needs_no_transformers() -> None:
    code = "import sys, policyopt.engine.protocol; print('transformers' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"
