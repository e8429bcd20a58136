#!/usr/bin/env python3
"""proxy.py: the network between the two databases, with a switch in it.

    proxy.py run CONTROL_SOCKET LISTEN_PORT:TARGET_PORT ...
    proxy.py tell CONTROL_SOCKET up|down|silent

up      bytes pass.
down    open connections are reset, new ones are reset at once: a router that
        answers "unreachable".
silent  nothing passes and nobody is told, as when a cable is pulled: open
        connections stay open, new ones are accepted and never served.

Everything is on 127.0.0.1.  "tell" returns when the new state is in force.
"""
import asyncio
import os
import socket
import struct
import sys

HOST = "127.0.0.1"


class Network:
    def __init__(self):
        self.passing = asyncio.Event()
        self.passing.set()
        self.state = "up"
        self.writers = set()

    def switch(self, state):
        self.state = state
        if state == "up":
            self.passing.set()
        else:
            self.passing.clear()
        if state == "down":
            for writer in list(self.writers):
                reset(writer)

    async def pump(self, reader, writer):
        """Carry one direction of one connection until its end."""
        try:
            while True:
                data = await reader.read(65536)
                await self.passing.wait()
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        except (ConnectionError, OSError):
            pass

    async def serve(self, reader, writer, target):
        """One connection: from a client to the database behind it."""
        self.writers.add(writer)
        onward = None
        try:
            if self.state == "down":
                return reset(writer)
            await self.passing.wait()
            back, onward = await asyncio.open_connection(HOST, target)
            self.writers.add(onward)
            if self.state == "down":
                return reset(writer)
            ways = [asyncio.ensure_future(self.pump(reader, onward)),
                    asyncio.ensure_future(self.pump(back, writer))]
            # A database connection is over as soon as one side has left.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
        except (ConnectionError, OSError):
            pass
        finally:
            for end in (writer, onward):
                if end is not None:
                    self.writers.discard(end)
                    end.close()


def reset(writer):
    """Close with RST, so that the other side notices now."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                            struct.pack("ii", 1, 0))
        except OSError:
            pass
    writer.transport.abort()


async def run(control, pairs):
    network = Network()

    async def command(reader, writer):
        word = (await reader.readline()).decode().strip()
        if word in ("up", "down", "silent"):
            network.switch(word)
            await asyncio.sleep(0)      # let the resets go out
            writer.write(b"ok\n")
        else:
            writer.write(b"what?\n")
        await writer.drain()
        writer.close()

    servers = []
    for pair in pairs:
        port, target = (int(number) for number in pair.split(":"))
        servers.append(await asyncio.start_server(
            lambda r, w, t=target: network.serve(r, w, t), HOST, port))
    if os.path.exists(control):
        os.unlink(control)
    servers.append(await asyncio.start_unix_server(command, control))
    await asyncio.gather(*(server.serve_forever() for server in servers))


def tell(control, word):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(control)
        sock.sendall(word.encode() + b"\n")
        if sock.recv(16) != b"ok\n":
            sys.exit("proxy.py: the proxy does not understand '%s'" % word)


def main():
    if len(sys.argv) >= 4 and sys.argv[1] == "run":
        asyncio.run(run(sys.argv[2], sys.argv[3:]))
    elif len(sys.argv) == 4 and sys.argv[1] == "tell":
        tell(sys.argv[2], sys.argv[3])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
