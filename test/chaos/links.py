"""links.py: what comes over the network to a server comes through here, and can be cut, delayed and healed.

A Link is one way in: from one server to another, known by the address that it comes from
(preload.c gives each server one of its own). Cutting with `drop` lets bytes wait in a queue that nobody reads, until they go on or are
forgotten; with `reset` ends the connections; with `vanish` swallows all that is sent on them. One direction alone can
be dropped."""
import asyncio
import socket
import threading


class Link:
    def __init__(self, source, target):
        self.source, self.target = source, target
        self.refuse = False             # new connections
        self.lost = set()               # connections whose bytes vanish, for good
        self.hold = {"to": False, "from": False}
        self.delay = 0.0
        self.conns = set()


class Network:
    """One listener per server; `links[(source, target)]` rule what passes."""

    def __init__(self):
        self.links = {}
        self.names = {}                 # of servers, by the address that their connections come from
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def add(self, server, others):
        """The port on which the server is reached from the others."""
        self.names[server.source] = server.name
        for other in others:
            self.links[(other, server.name)] = Link(other, server.name)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        asyncio.run_coroutine_threadsafe(
            asyncio.start_server(lambda r, w: self._accept(server, r, w), sock=sock), self.loop).result()
        return sock.getsockname()[1]

    async def _accept(self, server, reader, writer):
        source = self.names.get(writer.get_extra_info("peername")[0])
        # a server that calls itself is no network
        link = self.links.get((source, server.name)) or (Link(source, source) if source == server.name else None)
        if link is None or link.refuse:
            writer.close()
            return
        try:
            r2, w2 = await asyncio.open_connection("127.0.0.1", server.port)
        except OSError:
            writer.close()
            return
        pair = (writer, w2)
        link.conns.add(pair)
        tasks = [asyncio.ensure_future(self._pump(link, pair, "to", reader, w2)),
                 asyncio.ensure_future(self._pump(link, pair, "from", r2, writer))]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for t in tasks:
            t.cancel()
        link.conns.discard(pair)
        link.lost.discard(pair)
        for w in pair:
            w.close()

    async def _pump(self, link, pair, way, reader, writer):
        try:
            while True:
                data = await reader.read(65536)
                while pair in link.lost and not data:
                    await asyncio.sleep(0.05)
                if not data:
                    return
                if pair in link.lost:
                    continue
                if link.delay:
                    await asyncio.sleep(link.delay)
                while link.hold[way]:
                    await asyncio.sleep(0.02)
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            return

    def cut(self, link, how, ways=("to", "from")):
        """how: drop (bytes wait, connections seem alive), reset, or vanish (of the connections that there are nothing
        arrives any more, and neither side is told; new ones are well)."""
        def do():
            if how == "reset":
                link.refuse = True
                self._reset(link.conns)
            elif how == "vanish":
                link.lost |= link.conns
            else:
                for way in ways:
                    link.hold[way] = True
        self.loop.call_soon_threadsafe(do)

    @staticmethod
    def _reset(pairs):
        for pair in list(pairs):
            for w in pair:
                w.transport.abort()

    def heal(self, link, forget=False):
        """forget: what was on the way is lost with its connections."""
        def do():
            if forget:
                self._reset(link.conns)
            self._reset(link.lost)      # as the kernel does when it has waited long enough
            link.refuse = False
            link.delay = 0.0
            link.hold = {"to": False, "from": False}
        self.loop.call_soon_threadsafe(do)
