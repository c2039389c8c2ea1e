"""Runs that go on when a reader goes away, and readers who come back where they were.

Run it with `uv run uvicorn examples.sse_server:app`. Start a run and read its events, as often as
you like:

    curl -X POST '127.0.0.1:8000/runs?q=Which+region+sells+most'            {"run_id": "..."}
    curl -N '127.0.0.1:8000/runs/RUN_ID/events'                             from the start
    curl -N '127.0.0.1:8000/runs/RUN_ID/events' -H 'Last-Event-ID: ID' what follows the event with
    this id
    curl -X DELETE '127.0.0.1:8000/runs/RUN_ID'                             stop it
"""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agent_runtime import AgentCallbackHandler, AgentContext, AgentFactory, CallError, EventBus
from agent_runtime.event_bus.cloud_event import to_cloud_event

SEEN = ("run.*", "llm.*", "tool.*", "interrupt", "bus.gap")


async def events(bus: EventBus, run_id: str, after: int | str) -> AsyncIterator[str]:
    """Yield the run's events behind `after` as server-sent events, until its end."""
    async with bus.subscribe(*SEEN, run_id=run_id, after=after, buffer=1000) as subscription:
        async for event in subscription:
            mark = f"id: {event.id}\n" if event.seq else ""  # a gap has no place of its own
            yield (
                f"{mark}event: {event.type}\ndata: {json.dumps(to_cloud_event(event)['data'])}\n\n"
            )
            if event.type in ("run.end", "run.error"):
                return


async def start(request: Request) -> Response:
    """`POST /runs?q=...`: begin a run, whoever stays to read it."""
    question = request.query_params.get("q", "")
    state = request.app.state
    if not question:
        return JSONResponse({"error": "give a question as ?q="}, status_code=400)
    call = AgentContext(question, run_id=str(uuid.uuid4()))

    async def run() -> None:
        with contextlib.suppress(CallError):  # its `run.error` is one of the events
            async with state.agent.execute_stream(call) as stream:
                async for _ in stream:
                    pass

    task = asyncio.create_task(run())
    state.running[call.run_id] = task
    task.add_done_callback(lambda _: state.running.pop(call.run_id, None))
    return JSONResponse({"run_id": call.run_id}, status_code=202)


async def read(request: Request) -> Response:
    """`GET /runs/{run_id}/events`: the run's events.

    `Last-Event-ID` says which the reader has seen.
    """
    last_id = request.headers.get("last-event-id", "")
    if len(last_id) > 300:
        return JSONResponse({"error": "Last-Event-ID is the id of an event"}, status_code=400)
    run_id = request.path_params["run_id"]
    bus = request.app.state.bus
    if not bus.retained(run_id=run_id):
        return JSONResponse(
            {"error": "no such run, or its events are not kept any more"}, status_code=404
        )
    if any(event.id == last_id for event in bus.retained("run.end", "run.error", run_id=run_id)):
        return Response(
            status_code=204
        )  # the end was seen: an EventSource that comes back stops at this
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(
        events(bus, run_id, last_id or 0), media_type="text/event-stream", headers=headers
    )


async def stop(request: Request) -> Response:
    """`DELETE /runs/{run_id}`: cancel the run; its readers see a `run.error`."""
    task = request.app.state.running.get(request.path_params["run_id"])
    if task is None:
        return JSONResponse({"error": "no such run"}, status_code=404)
    task.cancel()
    return Response(status_code=202)


def make_app(factory: AgentFactory, template: str = "analyst") -> Starlette:
    """The app around one agent of a factory whose handler captures tokens."""
    routes = [
        Route("/runs", start, methods=["POST"]),
        Route("/runs/{run_id}", stop, methods=["DELETE"]),
        Route("/runs/{run_id}/events", read),
    ]
    made = Starlette(routes=routes)
    made.state.bus = factory.event_bus
    made.state.agent = factory.create_from_template(template)
    made.state.running = {}
    return made


def make_factory() -> AgentFactory:
    """A factory whose bus keeps the last 20,000 events, tokens among them."""
    bus = EventBus(retain=20_000)
    handler = AgentCallbackHandler(bus=bus, capture=["run", "llm", "token", "tool", "interrupt"])
    return AgentFactory(event_bus=bus, callback_handler=handler)


app = make_app(make_factory())
