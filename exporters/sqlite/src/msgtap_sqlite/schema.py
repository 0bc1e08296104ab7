"""The tables, and how a file of an older version becomes one of this version. Nothing here reads or writes a row.

What is asked of SQLite is in its version 3.24 of 2018: no RETURNING, no STRICT, no generated columns. Scripts are run
as they stand, so their comments have no semicolons.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x6D736774  # "msgt"

_V1 = """
CREATE TABLE text (id INTEGER PRIMARY KEY, value TEXT NOT NULL UNIQUE);

-- epoch grows when rows of text are deleted, so that whoever remembers ids forgets them
-- deleted: rows that were, since texts were collected last
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta (name, value)
VALUES ('epoch', 0), ('last_call', 0), ('deleted', 0), ('swept_at', 0), ('collected_at', 0);

-- how far each process's journal has been taken in
CREATE TABLE journal (name TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID;

-- one row for each call; names, models, ids and so on are rows of text
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    ended_at INTEGER NOT NULL,  -- ms since the epoch
    duration_us INTEGER NOT NULL,
    first_token_us INTEGER,
    duration_bucket INTEGER NOT NULL,
    first_token_bucket INTEGER,
    trace_id BLOB,
    span_id BLOB,
    status INTEGER,
    attempt INTEGER NOT NULL,
    resource INTEGER NOT NULL,
    service INTEGER,
    run INTEGER,
    model INTEGER,
    request_model INTEGER,
    provider INTEGER,
    client INTEGER,
    error INTEGER,
    ending INTEGER,
    stop_reason INTEGER,
    session INTEGER,
    user INTEGER,
    input INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write_5m INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL,
    output INTEGER NOT NULL,
    thinking INTEGER NOT NULL,
    cost REAL  -- USD; NULL is unknown
);
CREATE INDEX calls_ended_at ON calls (ended_at);
CREATE INDEX calls_session ON calls (session);
CREATE INDEX calls_user ON calls (user);
CREATE INDEX calls_run ON calls (run) WHERE run IS NOT NULL;

-- what no column holds: keys is a JSON array in text, vals the JSON array of their values
CREATE TABLE call_attributes (id INTEGER PRIMARY KEY, keys INTEGER NOT NULL, vals TEXT NOT NULL);

-- of a span of msgtap's own, keys and vals are what its call does not have too
CREATE TABLE spans (
    id INTEGER PRIMARY KEY,
    trace_id BLOB NOT NULL,
    span_id BLOB NOT NULL,
    parent_id BLOB,
    name INTEGER,  -- NULL: only the call is known so far
    kind INTEGER,
    started_at INTEGER,  -- ns since the epoch
    ended_at INTEGER,
    status INTEGER,
    resource INTEGER,
    scope INTEGER,
    keys INTEGER,
    vals TEXT,
    more TEXT,  -- JSON: events and links
    call INTEGER  -- calls.id
);
CREATE UNIQUE INDEX spans_ids ON spans (trace_id, span_id);

-- log records that are no calls
CREATE TABLE logs (
    id INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,  -- ns since the epoch
    trace_id BLOB,
    span_id BLOB,
    severity INTEGER NOT NULL,
    event INTEGER,
    body TEXT,  -- JSON
    resource INTEGER NOT NULL,
    scope INTEGER NOT NULL,
    keys INTEGER NOT NULL,
    vals TEXT NOT NULL
);

-- the last state of each series in each hour; attributes is a JSON object in text
CREATE TABLE points (
    hour INTEGER NOT NULL,  -- hours since the epoch
    metric INTEGER NOT NULL,
    attributes INTEGER NOT NULL,
    resource INTEGER NOT NULL,
    started_at INTEGER NOT NULL,  -- ns since the epoch
    scope INTEGER NOT NULL,
    unit INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    time INTEGER NOT NULL,
    value REAL NOT NULL,  -- a histogram's sum
    count INTEGER,
    buckets TEXT,  -- JSON
    bounds INTEGER,  -- JSON in text
    PRIMARY KEY (hour, metric, attributes, resource, started_at)
) WITHOUT ROWID;

-- calls by hour; both histograms are JSON objects from bucket to number, see latency.py
CREATE TABLE rollups (
    hour INTEGER NOT NULL,  -- hours since the epoch
    service INTEGER NOT NULL,  -- 0: there is none, as below
    model INTEGER NOT NULL,
    provider INTEGER NOT NULL,
    client INTEGER NOT NULL,
    error INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    input INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write_5m INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL,
    output INTEGER NOT NULL,
    thinking INTEGER NOT NULL,
    cost REAL NOT NULL,
    priced_calls INTEGER NOT NULL,
    durations TEXT NOT NULL,
    first_tokens TEXT NOT NULL,
    PRIMARY KEY (hour, service, model, provider, client, error)
) WITHOUT ROWID;
"""

MIGRATIONS: Final = (_V1,)
"""What makes version n of version n - 1. The version of a file is its ``user_version``; that of an empty one is 0."""

REFERENCES: Final = {
    "calls": "resource, service, run, model, request_model, provider, client, error, ending, stop_reason,"
    " session, user",
    "call_attributes": "keys",
    "spans": "name, resource, scope, keys",
    "logs": "event, resource, scope, keys",
    "points": "metric, attributes, resource, scope, unit, kind, bounds",
    "rollups": "service, model, provider, client, error",
}
"""The columns that hold ids of ``text``."""
