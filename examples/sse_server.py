"""An agent streamed over server-sent events; it stops when the client goes away.

Run it with `uv run uvicorn examples.sse_server:app` and read it with
`curl -N '127.0.0.1:8000/ask?q=Which+region+sells+most'`.
"""

import json
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agent_runtime import AgentExecutor, AgentFactory, CallError, InputInvalid, TextChunk


async def events(agent: AgentExecutor, question: str) -> AsyncIterator[str]:
    """Server-sent events of one call. Closing this generator leaves the stream, and that cancels the call."""
    try:
        async with agent.execute_stream(question) as stream:
            async for chunk in stream.chunks():
                if isinstance(chunk, TextChunk):
                    yield f"event: text\ndata: {json.dumps(chunk.text)}\n\n"
            yield f"event: end\ndata: {json.dumps(stream.result.to_dict())}\n\n"
    except (CallError, InputInvalid) as error:
        yield f"event: error\ndata: {json.dumps({'code': error.code, 'message': str(error)})}\n\n"


async def ask(request: Request) -> Response:
    """`GET /ask?q=...`: the answer as a stream of events."""
    question = request.query_params.get("q", "")
    if not question:
        return JSONResponse({"error": "give a question as ?q="}, status_code=400)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    stream = events(request.app.state.agent, question)
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


def make_app(agent: AgentExecutor) -> Starlette:
    """The app around one agent."""
    made = Starlette(routes=[Route("/ask", ask)])
    made.state.agent = agent
    return made


app = make_app(AgentFactory().create_from_template("analyst"))
