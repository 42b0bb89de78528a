"""A real OpenEnv server, run in an environment that has the package: ``python openenv_server.py KIND PORT``."""

import random
import sys

import uvicorn
from fastmcp import FastMCP
from openenv.core.env_server.http_server import create_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.mcp_environment import MCPEnvironment
from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation
from openenv.core.env_server.types import Action, Observation, State


class Said(Action):
    """A guess."""

    message: str


class Heard(Observation):
    echo: str = ""


class Guess(Environment[Said, Heard, State]):
    """Higher or lower: 1 for the number, a tenth for a number at all."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed=None, episode_id=None, most=9, **kwargs):
        self.number, self._state = random.Random(seed).randint(0, int(most)), State(episode_id=episode_id)
        return Heard(echo=f"Guess a number from 0 to {most}.")

    def step(self, action, timeout_s=None, **kwargs):
        self._state.step_count += 1
        if "crash" in action.message:
            raise RuntimeError("the world has crashed")
        digits = [int(c) for c in action.message if c.isdigit()]
        if not digits:
            return Heard(echo="no number", reward=0.0)
        way = "right" if digits[-1] == self.number else "higher" if digits[-1] < self.number else "lower"
        return Heard(echo=way, reward=1.0 if way == "right" else 0.1, done=way == "right")

    @property
    def state(self):
        return self._state


class Move(Action):
    """A move on the line."""

    steps: int
    left: bool = False


class Line(Environment[Move, Heard, State]):
    """A walk to the place 3."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed=None, episode_id=None, **kwargs):
        self.place = 0
        return Heard(echo="at 0, go to 3")

    def step(self, action, timeout_s=None, **kwargs):
        self.place += -action.steps if action.left else action.steps
        return Heard(echo=f"at {self.place}", reward=float(self.place == 3), done=self.place == 3)

    @property
    def state(self):
        return State()


class Counter(MCPEnvironment):
    """Tools of the Model Context Protocol."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        server, self.count = FastMCP("counter"), 0

        @server.tool
        def tick(by: int) -> str:
            """Counts."""
            self.count += by
            return f"count {self.count}"

        @server.tool
        def fail(why: str) -> str:
            """Raises."""
            raise ValueError(why)

        super().__init__(server)

    def reset(self, seed=None, episode_id=None, **kwargs):
        self.count = 0
        return Observation(metadata={"status": "ready"})

    def _step_impl(self, action, timeout_s=None, **kwargs):
        raise ValueError("only tools")

    @property
    def state(self):
        return State()


KINDS = {
    "guess": (Guess, Said, Heard),
    "line": (Line, Move, Heard),
    "tools": (Counter, CallToolAction, CallToolObservation),
}

if __name__ == "__main__":
    kind, port, *most = sys.argv[1:]
    app = create_app(*KINDS[kind], env_name=kind, max_concurrent_envs=int(most[0]) if most else 8)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")
