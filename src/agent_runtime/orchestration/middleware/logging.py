"""One log record for each call."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from agent_runtime.orchestration.middleware.base import CONTROL_FLOW, Middleware
from agent_runtime.secrets.redaction import SECRETS
from agent_runtime.types import AgentContext, AgentResult, Handler

CALL_LOG = logging.getLogger("agent_runtime.calls")
CALL_LOG.addHandler(
    logging.NullHandler()
)  # a library is silent until the application configures logging
MAX_CONTENT_CHARACTERS = 4096
"""Characters of a question or an answer in a record."""


class LoggingMiddleware(Middleware):
    """Logs how each call ended.

    INFO when it completed, was interrupted or cancelled, WARNING when it failed.

    Fields are attributes of the record: `run_id`, `session_id`, `tenant`, `user`, `template`,
    `template_digest`, `outcome` (a status or an error's code), `duration_s`, token and call counts,
    `cost_usd`, `cost_kind`. Input and output are logged, redacted, only with `content`; credentials
    never.
    """

    def __init__(self, logger: logging.Logger | None = None, *, content: bool = False) -> None:
        self._logger = logger or CALL_LOG
        self._content = content

    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        """Await the call and log its outcome; errors are raised again."""
        started = time.perf_counter()
        try:
            result = await next_call(context)
        except CONTROL_FLOW:
            self._log(logging.INFO, context, "control_flow", started)
            raise
        except asyncio.CancelledError:
            self._log(logging.INFO, context, "cancelled", started)
            raise
        except BaseException as error:
            self._log(
                logging.WARNING, context, getattr(error, "code", type(error).__name__), started
            )
            raise
        self._log(logging.INFO, context, result.status, started, result.output)
        return result

    def _log(
        self, level: int, context: AgentContext, outcome: str, started: float, output: str = ""
    ) -> None:
        if not self._logger.isEnabledFor(level):
            return
        usage = context.usage
        duration_s = time.perf_counter() - started
        principal = context.principal
        fields: dict[str, Any] = {
            "run_id": context.run_id,
            "session_id": context.session_id,
            "tenant": None if principal is None else principal.tenant,
            "user": None if principal is None else principal.id,
            "template": context.agent_name,
            "template_digest": context.template_digest,
            "outcome": outcome,
            "duration_s": round(duration_s, 6),
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "model_calls": usage.model_calls,
            "tool_calls": usage.tool_calls,
            "cost_usd": usage.cost_usd,
            "cost_kind": usage.cost_kind,
        }
        if self._content:
            fields["input"] = SECRETS.text(str(context.input))[:MAX_CONTENT_CHARACTERS]
            fields["output"] = SECRETS.text(output)[:MAX_CONTENT_CHARACTERS]
        self._logger.log(
            level, "call %s %s in %.3f s", context.run_id, outcome, duration_s, extra=fields
        )
