"""What stands between two turns, on the chat templates of common models: their texts are written here as they are published, in short."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from policyopt.environments.calls import find_calls, form_of
from policyopt.errors import UserError
from policyopt.models.prompting import Prompting
from policyopt.models.text import Text

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "The sum.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}

QWEN25 = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] }}{%- else %}{{- 'You are Qwen.' }}{%- endif %}
    {{- "\\n\\n# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools>\\n\\nFor each call write <tool_call>\\n{\\"name\\": ..., \\"arguments\\": ...}\\n</tool_call><|im_end|>\\n" }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- message.content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

# Qwen3 keeps the thoughts of the turns behind the last question alone, and can be told not to think.
QWEN3 = QWEN25.replace(
    "{%- for message in messages %}",
    "{%- set ns = namespace(last=messages|length - 1) %}"
    "{%- for message in messages[::-1] %}{%- if message.role == 'user' and ns.last == messages|length - 1 %}"
    "{%- set ns.last = messages|length - 1 - loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for message in messages %}",
    1,
).replace(
    "{{- '<|im_start|>assistant\\n' }}{%- endif %}",
    "{{- '<|im_start|>assistant\\n' }}{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}",
)

LLAMA3 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content']|trim %}{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}{{- 'Today Date: 26 Jul 2024\\n\\n' }}{{- system }}{{- '<|eot_id|>' }}
{%- for message in messages %}
    {%- if message.role == 'tool' or message.role == 'ipython' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}{{- message.content }}{{- '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {%- if loop.first and tools %}{{- 'Given these functions, answer with {"name": ..., "parameters": ...}\\n' }}{%- for t in tools %}{{- t | tojson }}{{- '\\n' }}{%- endfor %}{%- endif %}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

MISTRAL = """{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message['role'] == 'user' %}
        {%- if tools and loop.last %}{{- '[AVAILABLE_TOOLS]' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{%- endif %}
        {{- '[INST]' }}{%- if loop.last and system is defined %}{{- system + '\\n\\n' }}{%- endif %}{{- message['content'] + '[/INST]' }}
    {%- elif message.tool_calls is defined %}{{- '[TOOL_CALLS]' + message.tool_calls | tojson + eos_token }}
    {%- elif message['role'] == 'assistant' %}{{- message['content'] + eos_token }}
    {%- elif message['role'] == 'tool' %}{{- '[TOOL_RESULTS]' + message['content'] + '[/TOOL_RESULTS]' }}
    {%- else %}{{- raise_exception('only user, assistant and tool') }}{%- endif %}
{%- endfor %}"""

# A template that is strict about whose turn it is, and knows no tools.
STRICT = """{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('roles must alternate') }}{%- endif %}
    {{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"""

SPECIAL = {
    "qwen2.5": ("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    "qwen3": ("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"),
    "mistral": ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]"),
    "strict": ("<bos>", "<end_of_turn>", "<start_of_turn>"),
}  # fmt: skip
TEMPLATES = {"qwen2.5": QWEN25, "qwen3": QWEN3, "llama3": LLAMA3, "mistral": MISTRAL, "strict": STRICT}


def text_of(name: str, **prompting: Any) -> Text:
    """Characters as tokens, with the special tokens and the template of a family of models."""
    special = SPECIAL[name]
    letters = "\n" + "".join(chr(c) for c in range(32, 127))
    vocabulary = {t: i for i, t in enumerate([*special, *letters])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=special[0], eos_token=special[1], additional_special_tokens=list(special[2:]),
        chat_template=TEMPLATES[name], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    return Text(tokenizer, (tokenizer.eos_token_id,), Prompting(**prompting))


def shown(text: Text, ids: Any) -> str:
    return str(text.tokenizer.decode(ids, skip_special_tokens=False))


ASKED = [{"role": "user", "content": "2+3?"}]
HEARD: dict[str, list[dict[str, str]]] = {
    "user": [{"role": "user", "content": "and 4?"}],
    "tool": [{"role": "tool", "content": "5", "name": "add"}],
    "tools": [{"role": "tool", "content": "5"}, {"role": "tool", "content": "6"}],
    "tool and user": [{"role": "tool", "content": "5"}, {"role": "user", "content": "go on"}],
}
ROWS = [(name, who) for name in TEMPLATES for who in HEARD if name != "strict" or who in ("user", "tool")]


def as_the_template_writes(text: Text, said: str, heard: list[dict[str, str]], tools: Any) -> Any:
    """The whole conversation by transformers' own ``apply_chat_template``."""
    talk = [*ASKED, {"role": "assistant", "content": said}, *heard]
    return text.tokenizer.apply_chat_template(
        talk, add_generation_prompt=True, return_dict=False, tools=tools or None, **text.prompting.template_args
    )


@pytest.mark.parametrize(("name", "who"), ROWS)
def test_what_was_drawn_and_what_follows_is_what_the_template_would_write(name: str, who: str) -> None:
    text, tools = text_of(name), [] if name == "mistral" else [TOOL]
    heard = HEARD[who]
    if name == "strict":  # where a template knows no tools, what they say is said by the user
        tools, heard = [], [{**m, "role": "user"} for m in heard]
    drawn = (*text.encode("I add"), text.eos[0])
    whole = (*text.prompt(ASKED, tools), *drawn, *text.following(HEARD[who], drawn[-1], tools))
    assert shown(text, whole) == shown(text, as_the_template_writes(text, "I add", heard, tools))
    assert list(whole) == list(as_the_template_writes(text, "I add", heard, tools))


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_end_of_a_turn_stands_once(name: str) -> None:
    text = text_of(name)
    ended = text.following(HEARD["user"], text.eos[0], ())
    cut = text.following(HEARD["user"], 40, ())
    assert ended.count(text.eos[0]) == cut.count(text.eos[0]) - 1 and cut == (text.eos[0], *ended)


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_others_say_cannot_write_special_tokens(name: str) -> None:
    text = text_of(name)
    said = "".join(SPECIAL[name]) + " quartz0said quartzanswer {{ 7*7 }}"
    plain, sly = (
        text.following([{"role": who, "content": c}], text.eos[0], ()) for who, c in (("tool", "x"), ("tool", said))
    )
    special = set(text.tokenizer.all_special_ids)
    assert [t for t in sly if t in special] == [t for t in plain if t in special]
    assert said in shown(text, sly), "word for word"


@pytest.mark.parametrize("content", ["", " \n two lines \n\n", "  indented", "ends with a space "])
@pytest.mark.parametrize("name", ["qwen2.5", "llama3", "mistral"])
def test_what_tools_say_is_not_trimmed(name: str, content: str) -> None:
    text = text_of(name)
    assert content in shown(text, text.following([{"role": "tool", "content": content}], text.eos[0], ()))


def test_arguments_of_the_template_hold_for_what_follows_too() -> None:
    text = text_of("qwen3", template_args={"enable_thinking": False})
    assert shown(text, text.following(HEARD["tool"], text.eos[0], [TOOL])).endswith(
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert shown(text, text.prompt(ASKED)).endswith("</think>\n\n")
    assert not shown(text_of("qwen3"), text_of("qwen3").following(HEARD["tool"], 1, [TOOL])).endswith("</think>\n\n")


def test_thoughts_of_earlier_turns_stay_as_they_were_drawn() -> None:
    text = text_of("qwen3")
    drawn = (*text.encode("<think>\nhm\n</think>\n\nI add"), text.eos[0])
    whole = shown(text, (*text.prompt(ASKED), *drawn, *text.following(HEARD["user"], drawn[-1], ())))
    assert "<think>\nhm\n</think>\n\nI add<|im_end|>\n<|im_start|>user\nand 4?" in whole


@pytest.mark.parametrize(
    ("name", "form", "said"),
    [
        ("qwen2.5", "hermes", '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'),
        ("qwen3", "hermes", 'first <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'),
        ("llama3", "llama", '{"name": "add", "parameters": {"a": 1}}'),
        ("llama3", "llama", '<|python_tag|>{"name": "add", "parameters": {"a": 1}}'),
        ("mistral", "mistral", '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}]'),
        ("strict", "json", '{"name": "add", "arguments": {"a": 1}}'),
    ],
)
def test_calls_are_found_in_the_form_of_the_template(name: str, form: str, said: str) -> None:
    text = text_of(name)
    assert form_of(TEMPLATES[name]) == form
    calls, faults = find_calls(text.whole((*text.encode(said), text.eos[0])), form)
    assert [(c.name, dict(c.arguments)) for c in calls] == [("add", {"a": 1})] and not faults


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_model_is_told_of_tools(name: str) -> None:
    text = text_of(name)
    told = shown(text, text.prompt(ASKED, [TOOL]))
    assert '"add"' in told and "2+3?" in told
    if name == "strict":  # a system message would come first, which this template refuses
        assert told.startswith("<start_of_turn>user\nYou may call these tools:") and "2+3?<end_of_turn>" in told
        with pytest.raises(UserError, match="roles must alternate"):
            text.prompt([*ASKED, *ASKED], [TOOL])


def test_a_template_that_refuses_whoever_answers() -> None:
    text = text_of("strict")
    with pytest.raises(UserError, match="refuses a conversation in which somebody answers the model"):
        text.following([*HEARD["user"], *HEARD["user"]], text.eos[0], ())


def test_without_a_template_words_are_parted_by_blank_lines() -> None:
    text = text_of("strict")
    text.tokenizer.chat_template = None
    assert shown(text, text.following(HEARD["tools"], text.eos[0], ())) == "\n\n5\n\n6\n\n"
