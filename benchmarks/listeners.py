"""Many open event streams, as many browsers have them: `python -m benchmarks.listeners PORT STREAMS`, the token on the first line of stdin.

Says `open` once every stream has its first event; for each further line on stdin one JSON line: how many events each stream has got so far.
Ends with stdin.
"""

import asyncio
import json
import sys

_EVENT = b"\nevent: "


class Stream:
    """One connection that counts its events."""

    def __init__(self) -> None:
        self.events = 0
        self.begun = asyncio.Event()

    async def follow(self, port: int, token: str) -> None:
        """Reads until the connection ends, which is a fault: the benchmark ends this process first."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"GET /api/v1/events HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {token}\r\n\r\n".encode()
        )
        kept = b""
        while got := await reader.read(65536):
            kept += got
            self.events += kept.count(_EVENT)
            kept = kept[-len(_EVENT) + 1 :]  # what may be the beginning of the next one
            if self.events:
                self.begun.set()
        raise ConnectionError("a stream ended")


async def listen(port: int, streams: int) -> None:
    """Opens the streams and answers until stdin ends."""
    said = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(said), sys.stdin)
    token = (await said.readline()).decode().strip()
    every = [Stream() for _ in range(streams)]
    following = [asyncio.create_task(one.follow(port, token)) for one in every]
    for one in every:
        await one.begun.wait()
    print("open", flush=True)
    while await said.readline():
        broken = [task.exception() for task in following if task.done()]
        assert not broken, broken
        print(json.dumps([one.events for one in every]), flush=True)


if __name__ == "__main__":
    asyncio.run(listen(int(sys.argv[1]), int(sys.argv[2])))
