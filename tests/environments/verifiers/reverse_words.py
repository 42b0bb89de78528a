"""A small environment of verifiers 0.4, written with its own decorators: words are to be written backwards, in two turns."""

import json
import urllib.request

import verifiers.v1 as vf
from verifiers.v1.configs.harness import HarnessConfig
from verifiers.v1.runtimes import ProgramResult

__all__ = ["ReverseHarness", "ReverseWords"]

WORDS = ("apple", "river", "stone")


class Data(vf.TaskData):
    word: str


class Config(vf.TasksetConfig):
    most: int = 3


class Reverse(vf.Task[Data, vf.State]):
    @vf.reward(weight=2.0)
    async def right(self, trace: vf.Trace) -> float:
        return float(trace.last_reply.strip() == self.data.word[::-1])

    @vf.metric
    async def letters(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply))


class ReverseWords(vf.Taskset[Reverse, Config]):
    def load(self):
        for word in WORDS[: self.config.most]:
            yield Reverse(Data(prompt=f"Write {word} backwards.", word=word), self.config.task)


class ReverseHarness(vf.Harness[HarnessConfig]):
    """Asks twice, in this process: what it says first is thought over."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(self, ctx, trace, runtime, endpoint, secret, mcp_urls, data):
        import asyncio

        messages = [{"role": "user", "content": data.prompt}]
        for more in ("Are you sure? Write it again.", None):
            said = await asyncio.to_thread(self.ask, endpoint, secret, ctx.model, messages)
            messages.append({"role": "assistant", "content": said})
            if more:
                messages.append({"role": "user", "content": more})
        return ProgramResult(0, "", "")

    @staticmethod
    def ask(endpoint, secret, model, messages):
        request = urllib.request.Request(
            f"{endpoint}/chat/completions",
            json.dumps({"model": model, "messages": messages}).encode(),
            {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())["choices"][0]["message"]["content"]
