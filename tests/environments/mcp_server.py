"""A server of the Model Context Protocol: ``python mcp_server.py`` over standard input and output, ``python mcp_server.py PORT`` over HTTP."""

import logging
import os
import sys
import time

from mcp.server.mcpserver import MCPServer

server = MCPServer("counter")
count = 0


@server.tool()
def add(a: int, b: int = 1) -> int:
    """The sum of two numbers."""
    return a + b


@server.tool()
def tick() -> str:
    """Counts its own calls."""
    global count
    count += 1
    return f"tick {count}"


@server.tool()
def secret() -> str:
    """A variable of the environment."""
    return os.environ.get("COLOUR", "none")


@server.tool()
def wait(seconds: float) -> str:
    """Waits."""
    time.sleep(seconds)
    return "waited"


@server.tool()
def leave() -> str:
    """Ends the server."""
    os._exit(3)


if __name__ == "__main__":
    logging.disable()
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()
