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
