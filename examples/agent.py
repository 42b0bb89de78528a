"""An agent that knows nothing of this library: it asks a model at an address, lets it use a calculator, and checks the answer.

Any client of the chat completions protocol can stand in the place of `ask`: the openai package, or an agent library on top of it.

    policyopt train grpo --task calculator --env agent:examples/agent.py:run
"""

import json
import re
import urllib.request


def ask(base_url, messages, **options):
    """What the model says to some messages."""
    body = json.dumps({"model": "policy", "messages": messages, **options}).encode()
    request = urllib.request.Request(f"{base_url}/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


def calculate(expression):
    """The product of two whole numbers, such as 37*24."""
    numbers = re.fullmatch(r"(\d{1,6})\*(\d{1,6})", expression)
    return str(int(numbers[1]) * int(numbers[2])) if numbers else "error"


def run(base_url, row):
    """One question: the model may use the calculator three times before it has to answer."""
    messages = [dict(message) for message in row["prompt"]]
    for _ in range(4):
        said = ask(base_url, messages)
        messages.append({"role": "assistant", "content": said})
        call = re.search(r'"e": ?"([^"]*)"', said)
        if call is None:
            break
        messages.append({"role": "user", "content": calculate(call[1])})
    final = re.search(r"-?\d+\s*$", said)
    return float(final is not None and final[0].strip() == row["answer"])
