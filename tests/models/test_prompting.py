"""How prompts are written, where responses end, and what of them is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from policyopt.engine.local import LocalEngine, LocalSampler
from policyopt.errors import UserError
from policyopt.items import user
from policyopt.methods.group.grpo import grpo
from policyopt.models.load import Policy, load_policy
from policyopt.models.prompting import Prompting
from policyopt.models.stops import Stops, stop_ids
from policyopt.models.template import opened, structural_ids, turn_end, unread
from policyopt.models.text import Text
from policyopt.sources.program import Response
from policyopt.training.config import TrainConfig, config_from_yaml
from tests.tiny import load_tiny

END, MARK, TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
OPENS = TURNS.replace("{% endif %}{% endif %}", "{% else %}<think>\n{% endif %}{% endif %}")


def byte_level(template: str = TURNS, eos: str = TURN) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes and of a few words, whose turn marks and tags are special tokens."""
    special = [END, MARK, TURN, *TAGS]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "n"), ("an", "s"), ("ans", "w"), ("e", "r"), ("answ", "er")]
    words = ["".join(pair) for pair in merges]
    backend = Tokenizer(models.BPE({t: i for i, t in enumerate([*special, *alphabet, *words])}, merges))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, pad_token=END, chat_template=template)


def spaced() -> PreTrainedTokenizerFast:
    """A tokenizer of words that carry their space in front, and lose it at the beginning of a text."""
    words = ["</s>", "▁the", "▁end", "▁of", "s", "."]
    backend = Tokenizer(models.BPE({t: i for i, t in enumerate(words)}, []))
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def text(prompting: Prompting, tokenizer: Any = None) -> Text:
    tokenizer = tokenizer or byte_level()
    return Text(tokenizer, (tokenizer.convert_tokens_to_ids(TURN),), prompting)


def written(messages: Any, tokenizer: Any = None, **prompting: Any) -> str:
    found = text(Prompting(**prompting), tokenizer)
    return str(found.tokenizer.decode(found.prompt(messages)))


# Prompts -------------------------------------------------------------------------------------------------------------


def test_a_system_prompt_stands_before_conversations_that_bring_none() -> None:
    told = f"{MARK}system\nBe brief.{TURN}\n{MARK}user\n1+1{TURN}\n{MARK}assistant\n"
    assert written(user("1+1"), system="Be brief.") == told
    own = ({"role": "system", "content": "Sing."}, *user("1+1"))
    assert written(own, system="Be brief.") == told.replace("Be brief.", "Sing.")
    plain = byte_level()
    plain.chat_template = None
    assert written(user("1+1"), plain, system="Be brief.") == "Be brief.\n\n1+1"


def test_a_system_prompt_may_lie_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "system.txt"
    path.write_text("Be brief.\nSing.\n")
    for name in (f"@{path}", str(path)):
        assert Prompting(system=name).system == "Be brief.\nSing."
    assert Prompting(system="system.txt").system == "system.txt", "there is no such file here"
    for wrong, why in ((f"@{path}x", "cannot be read"), ("@", "cannot be read"), (" ", "an empty system prompt")):
        with pytest.raises(ValidationError, match=why):
            Prompting(system=wrong)


def test_arguments_reach_the_template() -> None:
    assert written(user("?")).endswith("assistant\n")
    assert written(user("?"), template_args={"enable_thinking": False}).endswith("assistant\n<think>\n\n</think>\n\n")
    assert unread(byte_level(), {"enable_thinking": False, "enable_thinkng": False}) == ["enable_thinkng"]
    with pytest.raises(ValidationError, match="tokenize is no argument of a template"):
        Prompting(template_args={"tokenize": False})
    with pytest.raises(UserError, match="the chat template of the tokenizer refuses the prompt"):
        written(user("?"), byte_level("{{ messages[0].content + size }}"), template_args={"size": 3})


def test_a_configuration_holds_it_all(tmp_path: Path) -> None:
    prompting = Prompting(
        system="a\nb", template_args={"enable_thinking": False, "tags": ["x", {"y": 1}]}, stop=("\n\n", "x"),
        stop_tokens=(7, TURN), special="all",
    )  # fmt: skip
    path = tmp_path / "config.yaml"
    path.write_text(TrainConfig(recipe=grpo(), prompting=prompting).to_yaml())
    assert config_from_yaml(path).prompting == prompting
    assert prompting.stop_tokens == ("7", TURN)
    assert Prompting(stop="x", stop_tokens=7) == Prompting(stop=("x",), stop_tokens=("7",))


# Ends ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "eos", "ends"),
    [(TURNS, TURN, TURN), (TURNS, END, TURN), (TURNS.replace(TURN, "\nbye"), END, None), (None, END, None)],
)
def test_what_ends_a_turn_is_read_off_the_template(template: str | None, eos: str, ends: str | None) -> None:
    tokenizer = byte_level(template or "", eos)
    found = turn_end(tokenizer)
    assert (None if found is None else tokenizer.convert_ids_to_tokens(found)) == ends


def test_a_solution_ends_as_a_turn_does_whatever_else_ends_a_response(tiny_model: Path, tmp_path: Path) -> None:
    policy = load_tiny(tiny_model)
    policy.model.generation_config.eos_token_id = [0, 2, 50]
    policy.save(tmp_path / "copy")
    again = load_tiny(tmp_path / "copy", prompting=Prompting(stop_tokens=("60", "<|user|>")))
    assert again.eos == (2, 0, 50, 60, again.tokenizer.convert_tokens_to_ids("<|user|>"))
    assert again.text.solution("1")[-1] == 2
    again.tokenizer.eos_token = "x"
    again.save(tmp_path / "other")
    ends = load_policy(str(tmp_path / "other"), device="cpu").eos
    assert ends == (2, again.tokenizer.convert_tokens_to_ids("x"), 0, 50), "the template's, then the tokenizer's"


def test_stop_tokens_have_a_name_or_a_number() -> None:
    tokenizer = byte_level()
    assert stop_ids(tokenizer, ["2", "answer", "\n", MARK]) == [
        2, *tokenizer.encode("answer"), *tokenizer.encode("\n"), 1
    ]  # fmt: skip
    for wrong in ("two words", "99999", "<|im_stop|>"):
        with pytest.raises(UserError, match=r"--stop-token .*no such token"):
            stop_ids(tokenizer, [wrong])


@pytest.mark.parametrize(
    ("stop", "said", "where"),
    [
        ("\nUser:", "1\n2\nUser: 3", "1\n2\nUser:"), ("swe", "an answer", "an answer"), ("wer", "answer", "answer"),
        ("ans", "an answer", "an answer"), ("</answer>", "<answer>7</answer> so", "<answer>7</answer>"),
        ("é", "cafés", "café"), ("数", "a数b", "a数"), (" ", "a b", "a "), ("xyz", "xy z", None),
    ],
)  # fmt: skip
def test_a_stop_text_is_found_whichever_tokens_spell_it(stop: str, said: str, where: str | None) -> None:
    tokenizer = byte_level()
    stops, ids = Stops(tokenizer, [stop, "never"]), tokenizer.encode(said)
    ended = [n for n in range(1, len(ids) + 1) if stops(ids[:n])]
    assert (tokenizer.decode(ids[: ended[0]]) if ended else None) == where


def test_words_that_carry_their_space_are_seen_with_it() -> None:
    tokenizer = spaced()
    the, end, of, s, dot = range(1, 6)
    assert Stops(tokenizer, ["the end"])([of, the, end])
    assert Stops(tokenizer, ["ends "])([end, s, of]), "the space of the next word"
    assert not Stops(tokenizer, ["ends "])([end, s, dot])


def test_a_response_ends_after_a_stop_text_which_it_keeps(tiny_model: Path) -> None:
    def drawn(policy: Policy) -> list[Response]:
        sampler = LocalSampler.of(policy)
        [found] = sampler.run([sampler.generate((7, 8, 9), n=6, max_tokens=40, key=(3, 1), stop=[(55,)])])
        return found

    free = drawn(load_tiny(tiny_model))
    longest = max(range(6), key=lambda i: len(free[i].tokens))
    policy = load_tiny(tiny_model)
    stop = policy.text.decode(free[longest].tokens[3:5])
    assert len(stop) == 2
    policy = load_tiny(tiny_model, prompting=Prompting(stop=(stop,)))
    stopped = drawn(policy)
    assert stopped[longest].tokens == free[longest].tokens[:5]
    for before, after in zip(free, stopped, strict=True):
        assert after.tokens == before.tokens[: len(after.tokens)]
        found = policy.text.decode(after.tokens).find(stop)
        assert (found, after.stop_reason, after.finished) in (
            (-1, before.stop_reason, before.finished), (len(policy.text.decode(after.tokens)) - 2, "eos", True),
        )  # fmt: skip
    engine = LocalEngine(policy, grpo(group_size=4))
    [again] = engine.sampler.run([engine.sampler.logprobs((7, 8, 9), tuple(free[longest].tokens[:5]), temperature=1.0)])
    assert again.finished, "of somebody else's text too"


# What is read --------------------------------------------------------------------------------------------------------


def test_tags_that_are_special_tokens_are_read_and_turn_marks_are_not() -> None:
    for template in (TURNS, OPENS):
        tokenizer = byte_level(template)
        ids = tokenizer.encode(f"<think>a</think><answer>7</answer>{TURN}{END}")
        assert text(Prompting(), tokenizer).decode(ids) == "<think>a</think><answer>7</answer>"
        assert text(Prompting(special="none"), tokenizer).decode(ids) == "a7"
        assert text(Prompting(special="all"), tokenizer).decode(ids) == tokenizer.decode(ids)
        assert structural_ids(tokenizer, (2,)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("template", "arguments", "begins"),
    [
        (OPENS, {}, "<think>\n"), (OPENS, {"enable_thinking": False}, ""), (TURNS, {}, ""),
        (TURNS.replace("<|im_start|>assistant\n", "<assistant>"), {}, ""), ("", {}, ""),
    ],
)  # fmt: skip
def test_a_thought_that_the_template_opened_is_told_to_the_judge(
    template: str, arguments: dict[str, Any], begins: str
) -> None:
    tokenizer = byte_level(template)
    assert opened(tokenizer, arguments) == begins
    found = text(Prompting(template_args=arguments), tokenizer)
    assert found.responses([tokenizer.encode("1</think>2")]) == [f"{begins}1</think>2"]
    assert found.decode(tokenizer.encode("1")) == "1", "a program sees what was written"
    unread = text(Prompting(template_args=arguments, special="none"), tokenizer)
    assert unread.responses([tokenizer.encode("1</think>2")]) == ["12"], "a tag that nobody reads closed is not opened"
