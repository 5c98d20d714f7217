-- How people hear of things: what each of them prefers, when each was told last, and the endpoints of webhooks.

-- No row means: by e-mail, at any hour, gathered as the notifier is set up to. The URLs (Apprise's) hold secrets: sealed.
CREATE TABLE preferences (
    person_id     uuid PRIMARY KEY REFERENCES people,
    email         boolean NOT NULL,
    urls          bytea,
    quiet_from    time,
    quiet_to      time,
    zone          text,
    hold_high     boolean NOT NULL,
    gather_medium interval CHECK (gather_medium BETWEEN '0' AND '1 day'),
    gather_low    interval CHECK (gather_low BETWEEN '0' AND '1 day'),
    changed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (email OR urls IS NOT NULL),
    CHECK (num_nulls(quiet_from, quiet_to, zone) IN (0, 3)),
    CHECK (quiet_from <> quiet_to)
);

-- When each person was last told something of a kind that is gathered: what comes soon after it waits for a summary.
CREATE TABLE inboxes (
    person_id uuid PRIMARY KEY REFERENCES people,
    told_at   timestamptz
);
CREATE INDEX notices_held ON notices (person_id) WHERE state = 'due' AND held IS NOT NULL;

GRANT SELECT, INSERT, UPDATE ON preferences TO banksman_gateway;
GRANT SELECT ON preferences TO banksman_notifier;
GRANT SELECT, INSERT, UPDATE ON inboxes TO banksman_notifier;
GRANT UPDATE (held, channel) ON notices TO banksman_notifier;
GRANT SELECT (id, batch_id) ON runs TO banksman_notifier;
GRANT SELECT (id, name) ON batches TO banksman_notifier;
GRANT UPDATE (attempts, last_error, held) ON notices TO banksman_gateway;
GRANT SELECT (id, request_id, verdict, person_id, created_at) ON votes TO banksman_notifier;
GRANT SELECT (request_id, attempt, state, outcome) ON executions TO banksman_notifier;

-- Webhooks: where the organisation's own programs hear what happened. URL and secrets are sealed. The audit log is the
-- outbox: (xid, number) is how far this endpoint has been told of it, moved in the transaction that writes the deliveries.
CREATE TABLE endpoints (
    id               uuid PRIMARY KEY,
    url              bytea NOT NULL,
    secret           bytea NOT NULL,
    -- After a rotation both sign, until the receiver knows the new one.
    old_secret       bytea,
    old_until        timestamptz,
    events           text[] NOT NULL CHECK (events <> '{}'),
    created_by       uuid NOT NULL REFERENCES people,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    disabled_at      timestamptz,
    disabled_because text,
    failing_since    timestamptz,
    removed_at       timestamptz,
    xid              xid8 NOT NULL DEFAULT pg_snapshot_xmin(pg_current_snapshot()),
    number           bigint NOT NULL DEFAULT 0,
    CHECK ((disabled_at IS NULL) = (disabled_because IS NULL)),
    CHECK ((old_secret IS NULL) = (old_until IS NULL)),
    CHECK (removed_at IS NULL OR disabled_at IS NOT NULL)
);

-- One event to one endpoint. Its id is the webhook-id, the same at each attempt; it is tried for a day from tried_from.
CREATE TABLE deliveries (
    id          uuid PRIMARY KEY,
    endpoint_id uuid NOT NULL REFERENCES endpoints,
    xid         xid8 NOT NULL,
    number      bigint NOT NULL,
    event       text NOT NULL,
    run_id      uuid REFERENCES runs,
    request_id  uuid REFERENCES requests,
    happened_at timestamptz NOT NULL,
    state       text NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'claimed', 'sent', 'dead')),
    due_at      timestamptz DEFAULT clock_timestamp(),
    tried_from  timestamptz NOT NULL DEFAULT clock_timestamp(),
    fence       integer NOT NULL DEFAULT 0,
    attempts    integer NOT NULL DEFAULT 0,
    last_error  text,
    sent_at     timestamptz,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (endpoint_id, xid, number),
    CHECK ((due_at IS NOT NULL) = (state IN ('due', 'claimed')))
);
CREATE INDEX deliveries_due ON deliveries (endpoint_id, due_at) WHERE state IN ('due', 'claimed');
CREATE INDEX deliveries_claimed ON deliveries (endpoint_id) WHERE state = 'claimed';
CREATE INDEX deliveries_of_endpoint ON deliveries (endpoint_id, id);
CREATE INDEX deliveries_dead ON deliveries (endpoint_id) WHERE state = 'dead';

GRANT SELECT, INSERT ON endpoints TO banksman_gateway;
GRANT UPDATE (secret, old_secret, old_until, disabled_at, disabled_because, failing_since, removed_at) ON endpoints
    TO banksman_gateway;
GRANT SELECT ON deliveries TO banksman_gateway;
GRANT UPDATE (state, due_at, tried_from, attempts) ON deliveries TO banksman_gateway;
GRANT SELECT ON endpoints, deliveries TO banksman_notifier;
GRANT UPDATE (disabled_at, disabled_because, failing_since, xid, number) ON endpoints TO banksman_notifier;
GRANT INSERT (id, endpoint_id, xid, number, event, run_id, request_id, happened_at) ON deliveries TO banksman_notifier;
GRANT UPDATE (state, due_at, fence, attempts, last_error, sent_at) ON deliveries TO banksman_notifier;
GRANT SELECT (id, xid, at, action, run_id, request_id) ON audit_events TO banksman_notifier;
