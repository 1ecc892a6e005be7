"""The API over HTTP, without TLS and with bearer tokens; what TLS adds is in ``test_api_control_plane``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession, web

from control_plane.api import server
from control_plane.api.access import Authenticator
from control_plane.api.access_tokens import AccessTokens
from control_plane.api.context import ApiContext, Counters
from control_plane.api.limits import Limits
from control_plane.api.writer import Writer
from control_plane.metrics import Metrics
from control_plane.store.base import Key, Put
from control_plane.store.sqlite import SqliteOptions, SqliteStore

ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes"
SERVICES = "/api/v1/namespaces/default/services"
CHANGESETS = "/apis/mesh.tulle.io/v1/changesets"
LIMITS = Limits(body=20_000, body_time=0.2, depth=20, changeset=4, watches=2, bookmark=0.05, watch_write=0.5)


class Status:
    """Says of every object what generation it was asked about."""

    def conditions(self, key: Key, generation: int) -> Mapping[str, Any]:
        return {"conditions": [{"type": "Programmed", "message": f"{generation}/{generation} sidecars"}]}


@dataclass
class Api:
    """A served API. ``ask`` answers (code, body)."""

    store: SqliteStore
    context: ApiContext
    session: ClientSession
    tokens: AccessTokens
    base: str
    token: str

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        data: Any = None,
        kind: str = "application/json",
    ) -> tuple[int, Any]:
        async with self.send(method, path, body, token=token, data=data, kind=kind) as response:
            text = await response.text()
            return response.status, json.loads(text) if text.startswith("{") else text

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        data: Any = None,
        kind: str = "application/json",
    ) -> Any:
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        if body is not None:
            data = json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = kind
        return self.session.request(method, self.base + path, data=data, headers=headers)


def more_routes(app: web.Application) -> None:
    async def extra(_request: web.Request) -> web.Response:
        return web.Response(text="for those who may read everything")

    app.router.add_get("/extra", extra)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    store = await SqliteStore.open(tmp_path / "s.db", SqliteOptions(keep_revisions=10, watch_window=2))
    tokens = AccessTokens(tmp_path / "tokens.json")
    context = ApiContext(
        store=store,
        history=store,
        writer=Writer(store),
        status=Status(),
        authenticator=Authenticator("mesh.test", tokens, lambda: 0.0),
        limits=LIMITS,
        counters=Counters.register(Metrics()),
    )
    runner = web.AppRunner(
        server.build(context, more_routes), handle_signals=False, access_log=None, shutdown_timeout=2
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with ClientSession() as session:
        yield Api(
            store, context, session, tokens, f"http://{host}:{port}", tokens.create("root", "admin", [])
        )
    await runner.cleanup()
    await store.close()


def service(name: str = "web", namespace: str = "default", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": [{"name": "http", "port": 80}], **spec},
    }


def route(name: str = "web", path: str = "/") -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": path}}]}],
        },
    }


def fields(status: Mapping[str, Any]) -> list[str]:
    assert (status["kind"], status["status"]) == ("Status", "Failure")
    return [cause["field"] for cause in status["details"]["causes"]]


async def test_an_objects_life(api: Api) -> None:
    code, made = await api.ask("POST", ROUTES, route())
    assert (code, made["metadata"]["namespace"], made["apiVersion"]) == (
        201,
        "default",
        "gateway.networking.k8s.io/v1",
    )
    assert made["metadata"]["resourceVersion"] == "1"
    assert made["status"]["conditions"][0]["message"] == "1/1 sidecars"

    assert await api.ask("GET", f"{ROUTES}/web") == (200, made)
    changed = {**made, "spec": route(path="/b")["spec"]}
    code, replaced = await api.ask("PUT", f"{ROUTES}/web", changed)
    assert (code, replaced["metadata"]["generation"], replaced["metadata"]["uid"]) == (
        200,
        2,
        made["metadata"]["uid"],
    )
    code, patched = await api.ask(
        "PATCH",
        f"{ROUTES}/web",
        {"metadata": {"labels": {"a": "b"}}, "spec": {"rules": made["spec"]["rules"]}},
        kind="application/merge-patch+json",
    )
    assert (code, patched["metadata"]["labels"], patched["spec"]) == (200, {"a": "b"}, made["spec"])

    code, listed = await api.ask(
        "GET", "/apis/gateway.networking.k8s.io/v1beta1/httproutes?labelSelector=a%3Db"
    )
    assert (code, listed["kind"], listed["metadata"]["resourceVersion"]) == (200, "HTTPRouteList", "3")
    assert [item["apiVersion"] for item in listed["items"]] == ["gateway.networking.k8s.io/v1beta1"]

    code, gone = await api.ask("DELETE", f"{ROUTES}/web")
    assert (code, gone["status"]) == (200, "Success")
    assert (await api.ask("GET", f"{ROUTES}/web"))[0] == 404
    assert (await api.ask("DELETE", f"{ROUTES}/web"))[0] == 404


async def test_optimistic_concurrency(api: Api) -> None:
    _, first = await api.ask("POST", ROUTES, route())
    _, second = await api.ask("PUT", f"{ROUTES}/web", {**first, "spec": route(path="/b")["spec"]})
    code, status = await api.ask("PUT", f"{ROUTES}/web", first)
    assert (code, status["reason"], fields(status)) == (409, "Conflict", ["metadata.resourceVersion"])
    code, status = await api.ask("POST", ROUTES, route())
    assert (code, status["reason"]) == (409, "AlreadyExists")
    stale = {"preconditions": {"resourceVersion": first["metadata"]["resourceVersion"]}}
    assert (await api.ask("DELETE", f"{ROUTES}/web", stale))[0] == 409
    fresh = {"preconditions": {"resourceVersion": second["metadata"]["resourceVersion"]}}
    assert (await api.ask("DELETE", f"{ROUTES}/web", fresh))[0] == 200


async def test_concurrent_writers_of_one_revision_conflict_but_for_one(api: Api) -> None:
    _, made = await api.ask("POST", ROUTES, route())
    bodies = [{**made, "spec": route(path=f"/{n}")["spec"]} for n in range(8)]
    answers = await asyncio.gather(*(api.ask("PUT", f"{ROUTES}/web", body) for body in bodies))
    assert sorted(code for code, _ in answers) == [200] + [409] * 7


async def test_concurrent_patches_without_a_revision_all_succeed(api: Api) -> None:
    await api.ask("POST", ROUTES, route())
    patches = [{"metadata": {"labels": {f"l{n}": "x"}}} for n in range(5)]
    answers = await asyncio.gather(
        *(api.ask("PATCH", f"{ROUTES}/web", patch, kind="application/merge-patch+json") for patch in patches)
    )
    assert {code for code, _ in answers} == {200}
    _, found = await api.ask("GET", f"{ROUTES}/web")
    assert len(found["metadata"]["labels"]) == 5


async def test_an_admission_is_repeated_when_others_write_at_the_same_time(api: Api) -> None:
    await api.ask("POST", SERVICES, service())
    key = Key("", "services", "default", "web")
    commit, calls = api.store.commit, 0

    async def racing(changes: Any, *, author: str) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            found = await api.store.get(key)
            assert found is not None
            await commit(
                [Put(key, {**found.body, "spec": {**found.body["spec"], "selector": {"a": "b"}}})], author="x"
            )
        return await commit(changes, author=author)

    api.store.commit = racing  # type: ignore[method-assign]
    code, _ = await api.ask("POST", CHANGESETS, {"objects": [service(selector={"c": "d"})]})
    assert (code, calls) == (200, 2)


async def test_all_problems_of_one_object(api: Api) -> None:
    body = route(path="nope")
    body["spec"]["bogus"] = 1
    body["metadata"]["name"] = "Web_"
    code, status = await api.ask("POST", ROUTES, body)
    assert (code, status["reason"]) == (422, "Invalid")
    assert set(fields(status)) == {"metadata.name", "spec.bogus", "spec.rules[0].matches[0].path.value"}
    assert (await api.store.snapshot()).revision == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "message"),
    [
        ("POST", ROUTES, route() | {"kind": "Service"}, 400, "the path is for HTTPRoute"),
        ("POST", ROUTES, route() | {"apiVersion": "v1"}, 400, "does not belong to this path"),
        (
            "POST",
            ROUTES,
            {"metadata": {"name": "a", "namespace": "b"}},
            400,
            "the path says 'default', the body 'b'",
        ),
        ("PUT", f"{ROUTES}/a", {"metadata": {"name": "b"}}, 400, "the path says 'a', the body 'b'"),
        ("PUT", f"{ROUTES}/a", route("a"), 404, "'a' not found"),
        ("PATCH", f"{ROUTES}/a", {}, 415, "merge-patch"),
        ("POST", "/apis/apps/v1/namespaces/default/deployments", {}, 404, "no resource 'deployments'"),
        ("GET", f"{ROUTES}?labelSelector=a%20b", None, 400, "labelSelector"),
        ("GET", f"{ROUTES}?watch=1&resourceVersion=x", None, 400, "not a resource version"),
        ("POST", f"{ROUTES}?dryRun=Some", route(), 400, "use dryRun=All"),
        ("DELETE", ROUTES, None, 405, "DELETE is not possible"),
        ("GET", "/nothing", None, 404, "nothing at /nothing"),
        ("GET", "/apis/nothing", None, 404, "no API group"),
        ("POST", CHANGESETS, {"object": []}, 422, "unknown field"),
        ("POST", CHANGESETS, {"objects": {}, "dryRun": 1}, 422, "must be a list"),
    ],
)
async def test_refusals_are_statuses(
    api: Api, method: str, path: str, body: Any, code: int, message: str
) -> None:
    got, status = await api.ask(method, path, body)
    assert (got, status["kind"], status["code"]) == (code, "Status", code)
    assert message in status["message"]


async def test_a_dry_run_stores_nothing(api: Api) -> None:
    code, shown = await api.ask("POST", f"{SERVICES}?dryRun=All", service())
    assert (code, shown["spec"]["clusterIP"].startswith("10.96.")) == (201, True)
    code, answer = await api.ask("POST", CHANGESETS, {"objects": [service()], "dryRun": True})
    assert (code, answer["revision"], answer["results"][0]["action"]) == (200, 0, "created")
    assert (await api.store.snapshot()).objects == {}


class TestChangesets:
    async def test_many_objects_are_one_revision(self, api: Api) -> None:
        full = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", **route()}
        code, answer = await api.ask("POST", CHANGESETS, {"objects": [service(), full]})
        assert (code, answer["revision"]) == (200, 1)
        assert [result["action"] for result in answer["results"]] == ["created", "created"]
        body = {"objects": [service()], "delete": [{k: full[k] for k in ("apiVersion", "kind", "metadata")}]}
        code, answer = await api.ask("POST", CHANGESETS, body)
        assert (code, answer["revision"]) == (200, 2)
        assert [result["action"] for result in answer["results"]] == ["unchanged", "deleted"]

    async def test_one_bad_object_stops_all_and_all_problems_are_told(self, api: Api) -> None:
        bad = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", **route(path="nope")}
        code, status = await api.ask(
            "POST",
            CHANGESETS,
            {"objects": [service(), bad, service("x", clusterIP="1.2.3.4")], "delete": [service("y")]},
        )
        assert code == 422
        assert fields(status) == [
            "objects[1].spec.rules[0].matches[0].path.value",
            "objects[2].spec.clusterIP",
            "delete[0].metadata.name",
        ]
        assert (await api.store.snapshot()).revision == 0

    async def test_only_missing_is_not_found_and_can_be_ignored(self, api: Api) -> None:
        assert (await api.ask("POST", CHANGESETS, {"delete": [service()]}))[0] == 404
        code, answer = await api.ask("POST", CHANGESETS, {"delete": [service()], "ignoreNotFound": True})
        assert (code, answer["results"][0]["action"]) == (200, "absent")

    async def test_addresses_are_unique_within_and_between(self, api: Api) -> None:
        objects = [service("a"), service("b"), service("c", clusterIP="10.96.7.7")]
        assert (await api.ask("POST", CHANGESETS, {"objects": objects}))[0] == 200
        _, listed = await api.ask("GET", SERVICES)
        assert len({item["spec"]["clusterIP"] for item in listed["items"]}) == 3
        code, status = await api.ask("POST", SERVICES, service("d", clusterIP="10.96.7.7"))
        assert (code, fields(status)) == (422, ["spec.clusterIP"])


class TestAccess:
    async def test_only_health_is_open(self, api: Api) -> None:
        for path, code in (
            ("/healthz", 200),
            ("/readyz", 200),
            ("/version", 401),
            (SERVICES, 401),
            ("/nothing", 401),
        ):
            async with api.session.get(api.base + path) as response:
                assert response.status == code, path
                if code == 401:
                    assert "WWW-Authenticate" in response.headers

    @pytest.mark.parametrize(
        ("role", "namespaces", "own", "other", "everywhere", "write_own", "write_other"),
        [
            ("view", [], 200, 200, 200, 403, 403),
            ("view", ["default"], 200, 403, 403, 403, 403),
            ("edit", ["default"], 200, 403, 403, 201, 403),
            ("edit", [], 200, 200, 200, 201, 201),
        ],
    )
    async def test_roles(
        self,
        api: Api,
        role: str,
        namespaces: list[str],
        own: int,
        other: int,
        everywhere: int,
        write_own: int,
        write_other: int,
    ) -> None:
        token = api.tokens.create("x", role, namespaces)
        theirs = SERVICES.replace("default", "other")
        codes = [
            (await api.ask(method, path, body, token=token))[0]
            for method, path, body in (
                ("GET", SERVICES, None),
                ("GET", theirs, None),
                ("GET", "/api/v1/services", None),
                ("POST", SERVICES, service()),
                ("POST", theirs, service(namespace="other")),
            )
        ]
        assert codes == [own, other, everywhere, write_own, write_other]
        assert (await api.ask("GET", "/apis", token=token))[0] == 200
        history = "/apis/mesh.tulle.io/v1/revisions"
        assert (await api.ask("GET", history, token=token))[0] == everywhere
        assert (await api.ask("GET", "/extra", token=token))[0] == everywhere
        mixed = {"objects": [service(), service(namespace="other")]}
        assert (await api.ask("POST", CHANGESETS, mixed, token=token))[0] == (
            200 if write_other == 201 else 403
        )

    async def test_a_watch_needs_the_same_role(self, api: Api) -> None:
        token = api.tokens.create("x", "view", ["default"])
        assert (await api.ask("GET", "/api/v1/services?watch=1", token=token))[0] == 403


class TestLimits:
    def limited(self, api: Api, limit: str) -> float:
        return api.context.counters.limited.value(limit)

    async def test_a_large_body(self, api: Api) -> None:
        code, status = await api.ask("POST", SERVICES, data=b"x" * (LIMITS.body + 1))
        assert (code, status["reason"], self.limited(api, "body")) == (413, "RequestEntityTooLarge", 1)

    async def test_a_large_body_of_unknown_length(self, api: Api) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield b"x" * 1024

        code, _ = await api.ask("POST", SERVICES, data=chunks())
        assert (code, self.limited(api, "body")) == (413, 1)

    async def test_a_slow_body(self, api: Api) -> None:
        never = asyncio.Event()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"{"
            await never.wait()

        code, status = await api.ask("POST", SERVICES, data=chunks())
        assert (code, self.limited(api, "body_time")) == (408, 1)
        assert "did not arrive" in status["message"]

    async def test_deep_json(self, api: Api) -> None:
        code, _ = await api.ask("POST", SERVICES, data=b"[" * 19_000)
        assert (code, self.limited(api, "depth")) == (400, 1)

    async def test_a_long_changeset(self, api: Api) -> None:
        code, _ = await api.ask("POST", CHANGESETS, {"objects": [service(f"s{n}") for n in range(5)]})
        assert (code, self.limited(api, "changeset")) == (413, 1)

    async def test_many_watches(self, api: Api) -> None:
        async with api.send("GET", SERVICES + "?watch=1"), api.send("GET", SERVICES + "?watch=1"):
            code, status = await api.ask("GET", SERVICES + "?watch=1")
            assert (code, status["reason"], self.limited(api, "watches")) == (429, "TooManyRequests", 1)
        async with asyncio.timeout(10), api.send("GET", SERVICES + "?watch=1&allowWatchBookmarks=1") as again:
            while again.status == 429:
                again = await api.send("GET", SERVICES + "?watch=1&allowWatchBookmarks=1")
            assert again.status == 200


class TestWatch:
    async def lines(self, response: ClientResponse, count: int) -> list[tuple[str, str, str]]:
        """Type, name and revision of the next events; bookmarks are left out."""
        found: list[tuple[str, str, str]] = []
        async with asyncio.timeout(10):
            while len(found) < count:
                line = json.loads(await response.content.readline())
                metadata = line["object"].get("metadata", {})
                if line["type"] != "BOOKMARK":
                    found.append(
                        (line["type"], metadata.get("name", ""), metadata.get("resourceVersion", ""))
                    )
        return found

    async def test_from_nothing_it_begins_with_what_there_is(self, api: Api) -> None:
        await api.ask("POST", SERVICES, service("a"))
        async with api.send("GET", SERVICES + "?watch=1") as response:
            assert await self.lines(response, 1) == [("ADDED", "a", "1")]
            await api.ask("POST", ROUTES, route())
            await api.ask("POST", SERVICES.replace("default", "other"), service("o", "other"))
            await api.ask("POST", SERVICES, service("b"))
            await api.ask("PUT", f"{SERVICES}/a", service("a", selector={"x": "y"}))
            await api.ask("DELETE", f"{SERVICES}/a")
            assert await self.lines(response, 3) == [
                ("ADDED", "b", "4"),
                ("MODIFIED", "a", "5"),
                ("DELETED", "a", "6"),
            ]

    async def test_it_resumes_where_a_client_was(self, api: Api) -> None:
        for name in "abcd":
            await api.ask("POST", SERVICES, service(name))
        async with api.send("GET", SERVICES + "?watch=1&resourceVersion=2") as response:
            assert await self.lines(response, 2) == [("ADDED", "c", "3"), ("ADDED", "d", "4")]
        await api.ask("DELETE", f"{SERVICES}/a")
        async with api.send("GET", SERVICES + "?watch=1&resourceVersion=4") as response:
            assert await self.lines(response, 1) == [("DELETED", "a", "5")]

    async def test_a_revision_that_is_gone_or_not_yet_is_410(self, api: Api) -> None:
        for number in range(15):
            await api.ask("POST", SERVICES, service(f"s{number}"))
        for version in ("3", "99"):
            code, status = await api.ask("GET", f"{SERVICES}?watch=1&resourceVersion={version}")
            assert (code, status["reason"]) == (410, "Expired")
        async with api.send("GET", SERVICES + "?watch=1&resourceVersion=5") as response:
            assert len(await self.lines(response, 10)) == 10

    async def test_bookmarks_carry_the_position(self, api: Api) -> None:
        await api.ask("POST", SERVICES, service())
        async with (
            asyncio.timeout(10),
            api.send("GET", f"{ROUTES}?watch=1&resourceVersion=1&allowWatchBookmarks=true") as response,
        ):
            await api.ask("POST", SERVICES, service("b"))
            while True:
                line = json.loads(await response.content.readline())
                assert line["type"] == "BOOKMARK"
                if line["object"]["metadata"]["resourceVersion"] == "2":
                    break

    async def test_selectors_hold_and_an_object_that_leaves_is_deleted(self, api: Api) -> None:
        labelled = service("a")
        labelled["metadata"]["labels"] = {"app": "web"}
        async with api.send("GET", SERVICES + "?watch=1&labelSelector=app%3Dweb") as response:
            await api.ask("POST", SERVICES, service("b"))
            await api.ask("POST", SERVICES, labelled)
            await api.ask("PUT", f"{SERVICES}/a", service("a"))
            assert await self.lines(response, 2) == [("ADDED", "a", "2"), ("DELETED", "a", "3")]

    async def test_it_ends_when_told_and_when_the_server_stops(self, api: Api) -> None:
        async with asyncio.timeout(10):
            async with api.send("GET", SERVICES + "?watch=1&timeoutSeconds=1") as response:
                assert await response.read() == b""
            async with api.send("GET", SERVICES + "?watch=1") as response:
                api.context.stopping.set()
                assert await response.read() == b""
        assert api.context.watches == 0

    async def test_status_is_of_the_moment(self, api: Api) -> None:
        async with api.send("GET", SERVICES + "?watch=1") as response:
            await api.ask("POST", SERVICES, service("a"))
            line = json.loads(await response.content.readline())
        assert line["object"]["status"]["conditions"][0]["message"] == "1/1 sidecars"


async def test_history_tells_who_did_what(api: Api) -> None:
    token = api.tokens.create("ann", "edit", [])
    await api.ask("POST", SERVICES, service(), token=token)
    await api.ask("DELETE", f"{SERVICES}/web")
    _, listed = await api.ask("GET", "/apis/mesh.tulle.io/v1/revisions?limit=1")
    assert [(item["author"], item["changes"][0]["action"]) for item in listed["items"]] == [
        ("token:root", "deleted")
    ]
    _, first = await api.ask("GET", "/apis/mesh.tulle.io/v1/revisions/1")
    assert (first["author"], first["changes"][0]["before"]) == ("token:ann", None)
    assert first["changes"][0]["after"]["kind"] == "Service"
    assert (await api.ask("GET", "/apis/mesh.tulle.io/v1/revisions/9"))[0] == 404


async def test_discovery_and_openapi_are_served(api: Api) -> None:
    for path, kind in (
        ("/api", "APIVersions"),
        ("/apis", "APIGroupList"),
        ("/api/v1", "APIResourceList"),
        ("/apis/networking.istio.io/v1beta1", "APIResourceList"),
        ("/apis/networking.istio.io", "APIGroup"),
    ):
        code, found = await api.ask("GET", path)
        assert (code, found["kind"]) == (200, kind)
    _, index = await api.ask("GET", "/openapi/v3")
    for entry in index["paths"].values():
        assert (await api.ask("GET", entry["serverRelativeURL"]))[1]["openapi"] == "3.1.0"
    assert (await api.ask("GET", "/openapi/v3/apis/apps/v1"))[0] == 404
    assert (await api.ask("GET", "/version"))[1]["gitVersion"].startswith("v")


async def test_a_bug_is_a_500_that_tells_nothing(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def conditions(self, key: Key, generation: int) -> Mapping[str, Any]:
            raise RuntimeError("secret detail")

    await api.ask("POST", SERVICES, service())
    api.context.status = Broken()
    code, status = await api.ask("GET", f"{SERVICES}/web")
    assert (code, "secret" in status["message"]) == (500, False)
    assert "secret detail" in caplog.text


async def test_a_store_that_cannot_is_503(api: Api) -> None:
    await api.store.close()
    code, status = await api.ask("GET", SERVICES)
    assert (code, status["reason"]) == (503, "ServiceUnavailable")
    api.context.limits = replace(LIMITS)
