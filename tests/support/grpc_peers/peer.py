"""The peer with grpcio. It does what ``peer.js`` does, word for word."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc import aio

SERVICE = "tulle.test.Echo"
BINARY = bytes(range(256))
WAIT = 60.0
GRACE = 1.0
MEGABYTE = 1 << 20
CODES = {code.value[0]: code for code in grpc.StatusCode}
TRAILING = (("t-ascii", "t"), ("t-bin", b"\x00\xff"))


class Servant:
    """The methods. What ``Hang`` was cancelled is remembered by its request."""

    def __init__(self) -> None:
        self._cancelled: set[bytes] = set()

    async def echo(self, request: bytes, context: aio.ServicerContext[bytes, bytes]) -> bytes:
        own = [(key, value) for key, value in context.invocation_metadata() or () if key.startswith("x-test")]
        await context.send_initial_metadata(own)
        context.set_trailing_metadata(TRAILING)
        return request

    async def fail(self, request: bytes, context: aio.ServicerContext[bytes, bytes]) -> bytes:
        asked = json.loads(request)
        await context.abort(CODES[asked["code"]], asked["message"], TRAILING)
        raise AssertionError

    async def down(self, request: bytes, context: aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
        asked = json.loads(request)
        for number in range(asked["count"]):
            yield bytes((number % 256,)) * asked["size"]
        if asked.get("code"):
            await context.abort(CODES[asked["code"]], "enough", TRAILING)

    async def up(self, requests: AsyncIterator[bytes], context: aio.ServicerContext[bytes, bytes]) -> bytes:
        return json.dumps(await digest(requests)).encode()

    async def both(
        self, requests: AsyncIterator[bytes], context: aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async def hang(self, request: bytes, context: aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
        try:
            yield b"there"
            await asyncio.Event().wait()
        finally:
            self._cancelled.add(request)

    async def seen(self, request: bytes, context: aio.ServicerContext[bytes, bytes]) -> bytes:
        return b"1" if request in self._cancelled else b"0"


async def digest(messages: AsyncIterator[bytes]) -> dict[str, object]:
    count = size = 0
    summed = hashlib.sha256()
    async for message in messages:
        count += 1
        size += len(message)
        summed.update(message)
    return {"count": count, "bytes": size, "sha256": summed.hexdigest()}


async def serve(port: int) -> None:
    servant = Servant()
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(servant.echo),
        "Fail": grpc.unary_unary_rpc_method_handler(servant.fail),
        "Down": grpc.unary_stream_rpc_method_handler(servant.down),
        "Up": grpc.stream_unary_rpc_method_handler(servant.up),
        "Both": grpc.stream_stream_rpc_method_handler(servant.both),
        "Hang": grpc.unary_stream_rpc_method_handler(servant.hang),
        "Seen": grpc.unary_unary_rpc_method_handler(servant.seen),
    }
    server = aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    print(bound, flush=True)
    await ended.wait()
    # A call that arrives just when the end begins may be neither served nor refused by grpcio: it is cancelled then.
    await server.stop(GRACE)


class Caller:
    """The scenarios."""

    def __init__(self, channel: aio.Channel) -> None:
        self._echo = channel.unary_unary(f"/{SERVICE}/Echo")
        self._fail = channel.unary_unary(f"/{SERVICE}/Fail")
        self._down = channel.unary_stream(f"/{SERVICE}/Down")
        self._up = channel.stream_unary(f"/{SERVICE}/Up")
        self._both = channel.stream_stream(f"/{SERVICE}/Both")
        self._hang = channel.unary_stream(f"/{SERVICE}/Hang")
        self._seen = channel.unary_unary(f"/{SERVICE}/Seen")
        self._unknown = channel.unary_unary(f"/{SERVICE}/Unknown")

    async def unary(self) -> object:
        sent = (
            ("x-test-ascii", "a, b"),
            ("x-test-bin", BINARY),
            ("x-test-twice", "1"),
            ("x-test-twice", "2"),
        )
        call = self._echo(b"hello", metadata=sent)
        answer = await call
        return {
            "answer": answer.decode(),
            "initial": shown(await call.initial_metadata(), "x-test"),
            "trailing": shown(await call.trailing_metadata(), "t-"),
            "code": (await call.code()).value[0],
        }

    async def empty(self) -> object:
        return len(await self._echo(b""))

    async def server_stream(self) -> object:
        return await digest(self._down(asked(count=5, size=10)))

    async def client_stream(self) -> object:
        return json.loads(await self._up(pieces(5, 10)))

    async def both_ways(self) -> object:
        call = self._both()
        got = []
        for number in range(5):
            await call.write(b"%d" % number)
            got.append((await call.read()).decode())
        await call.done_writing()
        return [*got, (await call.code()).value[0]]

    async def trailers_only(self) -> object:
        return await failed(self._fail(asked(code=5, message="no")))

    async def statuses(self) -> object:
        found = []
        for code in range(1, 17):
            found.append(await failed(self._fail(asked(code=code, message=f"100 % {code} \u00fc\u4e16 \n"))))
        return found

    async def unknown_method(self) -> object:
        found = await failed(self._unknown(b""))
        return found["code"]

    async def failing_stream(self) -> object:
        call = self._down(asked(count=3, size=10, code=1))
        count = 0
        try:
            async for _ in call:
                count += 1
        except (aio.AioRpcError, asyncio.CancelledError):
            pass
        return [count, (await call.code()).value[0], await call.details()]

    async def deadline(self) -> object:
        call = self._hang(b"deadline", timeout=0.5)
        try:
            async for _ in call:
                pass
        except aio.AioRpcError:
            pass
        return [(await call.code()).value[0], await self._was_seen(b"deadline")]

    async def cancelled(self) -> object:
        call = self._hang(b"cancelled")
        first = await call.read()
        call.cancel()
        return [first.decode(), await self._was_seen(b"cancelled")]

    async def large_down(self) -> object:
        return await digest(self._down(asked(count=100, size=MEGABYTE)))

    async def large_up(self) -> object:
        return json.loads(await self._up(pieces(100, MEGABYTE)))

    async def many(self) -> object:
        calls = [self._both() for _ in range(1000)]

        async def first(number: int) -> bytes:
            await calls[number].write(b"%d" % number)
            return bytes(await calls[number].read())

        answers = await asyncio.gather(*map(first, range(len(calls))))
        for call in calls:
            await call.done_writing()
        codes = [(await call.code()).value[0] for call in calls]
        return [sum(answer == b"%d" % number for number, answer in enumerate(answers)), codes.count(0)]

    async def loop(self) -> object:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
        good, bad = 0, []
        while not ended.is_set():
            try:
                await self._echo(b"x", timeout=WAIT)
            except aio.AioRpcError as error:
                bad.append(f"{error.code().name}: {error.details()}")
                continue
            good += 1
            if good == 20:
                print("under way", flush=True)
        return [good, bad]

    async def _was_seen(self, what: bytes) -> bool:
        deadline = asyncio.get_running_loop().time() + WAIT
        while asyncio.get_running_loop().time() < deadline:
            if await self._seen(what) == b"1":
                return True
            await asyncio.sleep(0.02)  # polls another process
        return False


def asked(**what: object) -> bytes:
    return json.dumps(what).encode()


async def pieces(count: int, size: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes((number % 256,)) * size


def shown(metadata: Any, prefix: str) -> list[list[str]]:
    """The values of one name as one list, which is what Node makes of them."""
    found: dict[str, list[str]] = {}
    for key, value in metadata:
        if key.startswith(prefix):
            found.setdefault(key, []).append(value.hex() if isinstance(value, bytes) else value)
    return [[key, ", ".join(values)] for key, values in sorted(found.items())]


async def failed(call: Any) -> dict[str, object]:
    try:
        await call
    except (aio.AioRpcError, asyncio.CancelledError):
        pass
    trailing = shown(await call.trailing_metadata(), "t-")
    return {"code": (await call.code()).value[0], "message": await call.details(), "trailing": trailing}


async def call(port: int, scenarios: list[str]) -> None:
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        caller = Caller(channel)
        for name in scenarios:
            scenario: Callable[[], Awaitable[object]] = getattr(caller, name)
            try:
                result = await asyncio.wait_for(scenario(), 2 * WAIT)
            except (aio.AioRpcError, TimeoutError) as error:
                result = f"{type(error).__name__}: {error}"
            print(json.dumps([name, result]), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "server":
        asyncio.run(serve(int(sys.argv[2])))
    else:
        asyncio.run(call(int(sys.argv[2]), sys.argv[3:]))
