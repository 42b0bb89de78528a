"""Agents on the clients that people use, each a program of its own: ``python clients.py NAME BASE_URL`` prints what it found as JSON."""

import asyncio
import json
import sys

TOOL = {
    "type": "function",
    "function": {
        "name": "calc",
        "description": "Works out a sum.",
        "parameters": {"type": "object", "properties": {"e": {"type": "string"}}, "required": ["e"]},
    },
}
ASKED = [{"role": "user", "content": "2+2=?"}]


def with_openai(base_url):
    """A loop with a tool, a stream and a refused request."""
    import openai

    client = openai.OpenAI(base_url=base_url, api_key="unused")
    assert [m.id for m in client.models.list()] == ["policy"]
    first = client.chat.completions.create(model="policy", messages=ASKED, tools=[TOOL], temperature=0, max_tokens=200)
    [choice] = first.choices
    [call] = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and json.loads(call.function.arguments) == {"e": "2+2"}
    assert first.usage.completion_tokens > 10
    messages = [*ASKED, choice.message, {"role": "tool", "tool_call_id": call.id, "content": "4"}]
    stream = client.chat.completions.create(
        model="policy", messages=messages, tools=[TOOL], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[-1].usage.total_tokens > chunks[-1].usage.completion_tokens > 0
    try:
        client.chat.completions.create(model="policy", messages=ASKED, n=3)
    except openai.BadRequestError as error:
        refused = str(error)
    return {"said": said, "refused": refused}


def with_async_openai(base_url):
    """Three questions at the same time."""
    import openai

    async def ask():
        async with openai.AsyncOpenAI(base_url=base_url, api_key="unused") as client:
            asked = (client.chat.completions.create(model="policy", messages=ASKED) for _ in range(3))
            return [found.choices[0].message.content for found in await asyncio.gather(*asked)]

    return {"said": asyncio.run(ask())}


def with_smolagents(base_url):
    """A tool-calling agent of smolagents, as its documentation shows it."""
    from smolagents import OpenAIServerModel, ToolCallingAgent, tool

    @tool
    def calc(e: str) -> str:
        """Works out a sum.

        Args:
            e: The sum.
        """
        return str(sum(map(int, e.split("+"))))

    model = OpenAIServerModel(model_id="policy", api_base=base_url, api_key="unused")
    agent = ToolCallingAgent(tools=[calc], model=model, max_steps=4, verbosity_level=0)
    return {"said": str(agent.run("2+2=?")), "steps": len(agent.memory.steps)}


if __name__ == "__main__":
    name, base_url = sys.argv[1:]
    print(json.dumps(globals()[f"with_{name}"](base_url)))
