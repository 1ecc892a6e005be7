"""``python -m control_plane.dns``: it tells where it listens and reads its zone again on SIGHUP."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import dns.asyncquery
import dns.message

HEAD = "$ORIGIN example.org.\n$TTL 5\n@ SOA ns root 1 1 1 1 1\n@ NS ns\nns A 127.0.0.1\n"


async def test_the_zone_is_read_again_on_sighup_and_kept_when_it_is_bad(tmp_path: Path) -> None:
    file = tmp_path / "zone"
    file.write_text(HEAD + "a A 10.0.0.1\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "control_plane.dns", "--zone", str(file), "--listen", "127.0.0.1:0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().split()[-1]
        host, _, port = line.rpartition(":")

        async def lookup() -> str:
            query = dns.message.make_query("a.example.org", "A")
            return str((await dns.asyncquery.udp(query, host, port=int(port), timeout=5)).answer[0][0])

        assert await lookup() == "10.0.0.1"
        file.write_text(HEAD + "a A 10.0.0.2\n")
        process.send_signal(signal.SIGHUP)
        # A good reload is silent, so the only sign of it is the new answer.
        async with asyncio.timeout(5):
            while await lookup() != "10.0.0.2":  # noqa: ASYNC110 - the answer is the only sign
                await asyncio.sleep(0)
        file.write_text("nonsense")
        process.send_signal(signal.SIGHUP)
        assert b"not reloaded" in await asyncio.wait_for(process.stderr.readline(), 5)
        assert await lookup() == "10.0.0.2"
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 5) == 0
