"""Reports and calls for programs: JSON and CSV with keys that stay, and null for what is not known. Pure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgtap.cli.figures import printable

if TYPE_CHECKING:
    from msgtap_sqlite.reader import Call, Dimension, Report, Row, Tokens


def row_facts(row: Row) -> dict[str, Any]:
    """A row, flat; durations in seconds, cost in USD."""
    return {
        "key": row.key,
        "calls": row.calls,
        "errors": row.errors,
        **_tokens(row.tokens),
        "cost_usd": row.cost,
        "priced_calls": row.priced_calls,
        "duration_p50_s": row.p50,
        "duration_p95_s": row.p95,
        "first_token_p50_s": row.first_token_p50,
        "first_token_p95_s": row.first_token_p95,
    }


def call_facts(call: Call) -> dict[str, Any]:
    """A call, flat."""
    return {
        "id": call.id,
        "ended_at": timestamp(call.ended_at),
        "model": call.model,
        "provider": call.provider,
        "service": call.service,
        "client": call.client,
        "run": call.run,
        "session": call.session,
        "user": call.user,
        "status": call.status,
        "error": call.error,
        "ending": call.ending,
        "stop_reason": call.stop_reason,
        "attempt": call.attempt,
        "duration_s": call.duration,
        "first_token_s": call.first_token,
        **_tokens(call.tokens),
        "cost_usd": call.cost,
        "trace_id": call.trace_id,
        "span_id": call.span_id,
    }


def _tokens(tokens: Tokens) -> dict[str, int]:
    return {f"tokens_{name}": number for name, number in asdict(tokens).items()} | {"tokens_total": tokens.total}


def timestamp(moment: datetime) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def as_json(
    report: Report, by: Dimension, since: datetime | None, until: datetime | None, where: Mapping[str, str]
) -> str:
    """The report as one JSON object: what was asked, the rows, and the total of all calls that match."""
    document = {
        "by": by,
        "since": timestamp(since) if since else None,
        "until": timestamp(until) if until else None,
        "where": dict(where),
        "rows": [row_facts(row) for row in report.rows],
        "total": row_facts(report.total),
    }
    return json.dumps(document, indent=2)


def as_csv(report: Report) -> str:
    """The rows as CSV, without the total; what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, row_facts(report.total), lineterminator="\n")
    writer.writeheader()
    for row in report.rows:
        writer.writerow({**row_facts(row), "key": row.key and printable(row.key)})
    return text.getvalue()
