-- The whole spine: what a run is, what it waits for, who said what, what was done, and the log of all of it.
-- Content (conversations, arguments, results, files) is bytea, sealed by banksman.vault; plain columns are what is searched.

CREATE TABLE people (
    id          uuid PRIMARY KEY,
    email       text NOT NULL,
    name        text NOT NULL,
    roles       text[] NOT NULL DEFAULT '{reviewer}',
    groups      text[] NOT NULL DEFAULT '{}',
    -- What somebody was given lately, by group: since when, and from when on it counts for requests opened before that.
    fresh       jsonb NOT NULL DEFAULT '{}',
    disabled_at timestamptz,
    -- Who is removed stays disabled, and stays in the votes and the audit log that name them.
    removed_at  timestamptz,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (roles <@ '{reviewer,operator,admin,auditor}'),
    CHECK (removed_at IS NULL OR disabled_at IS NOT NULL)
);
CREATE UNIQUE INDEX people_email ON people (lower(email)) WHERE removed_at IS NULL;

-- API keys of machines and personal tokens of people. A key's person is its owner: the requester of what it submits.
CREATE TABLE keys (
    id           uuid PRIMARY KEY,
    handle       text NOT NULL UNIQUE,
    secret_hash  bytea NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('key', 'tok')),
    name         text NOT NULL,
    person_id    uuid REFERENCES people,
    scopes       text[] NOT NULL,
    expires_at   timestamptz NOT NULL,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (kind = 'key' OR person_id IS NOT NULL)
);

CREATE TABLE sessions (
    id_hash    bytea PRIMARY KEY,
    person_id  uuid NOT NULL REFERENCES people,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    ended_at   timestamptz
);
CREATE INDEX sessions_person ON sessions (person_id);

-- Answers kept for Idempotency-Key, a day long.
CREATE TABLE answers (
    actor       text NOT NULL,
    key         text NOT NULL,
    fingerprint bytea NOT NULL,
    status      smallint NOT NULL,
    body        bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (actor, key)
);

-- What the workers can run, written by each worker as it starts: the gateway refuses a run of an agent that is not here.
-- While an agent is paused no segment of its runs starts; only the gateway writes that, so a worker cannot end it.
CREATE TABLE agents (
    name      text PRIMARY KEY,
    version   text NOT NULL,
    tools     jsonb NOT NULL,
    seen_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    paused_at timestamptz,
    paused_by uuid REFERENCES people,
    CHECK ((paused_at IS NULL) = (paused_by IS NULL))
);

-- Many runs submitted as one. How far a batch is, its runs say. From cancelled_at on none of them is claimed; once swept_at
-- is set each has been stopped or asked to stop.
CREATE TABLE batches (
    id           uuid PRIMARY KEY,
    name         text,
    requester    text NOT NULL,
    requester_id uuid REFERENCES people,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    cancelled_at timestamptz,
    cancelled_by text,
    swept_at     timestamptz,
    CHECK ((cancelled_at IS NULL) = (cancelled_by IS NULL)),
    CHECK (swept_at IS NULL OR cancelled_at IS NOT NULL)
);
CREATE INDEX batches_cancelling ON batches (id) WHERE cancelled_at IS NOT NULL AND swept_at IS NULL;

CREATE TABLE runs (
    id            uuid PRIMARY KEY,
    agent         text NOT NULL,
    agent_version text,
    status        text NOT NULL DEFAULT 'queued'
        CHECK (status IN ('queued', 'running', 'waiting', 'finished', 'failed', 'cancelled', 'stuck')),
    segment       integer NOT NULL DEFAULT 0,
    fence         bigint NOT NULL DEFAULT 0,
    owner         text,
    attempts      integer NOT NULL DEFAULT 0,
    dispatched    boolean NOT NULL DEFAULT false,
    due_at        timestamptz,
    priority      smallint NOT NULL DEFAULT 5 CHECK (priority BETWEEN 0 AND 9),
    cancel_at     timestamptz,
    requester     text NOT NULL,
    requester_id  uuid REFERENCES people,
    batch_id      uuid REFERENCES batches,
    parent_id     uuid REFERENCES runs,
    -- Of a child run that is over: somebody has looked since whether its parent waits for anything more.
    reported      boolean NOT NULL DEFAULT false,
    tags          text[] NOT NULL DEFAULT '{}',
    prompt        bytea NOT NULL,
    metadata      bytea NOT NULL,
    output        bytea,
    error         bytea,
    usage         jsonb NOT NULL DEFAULT '{}',
    finish_by     timestamptz,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at    timestamptz,
    finished_at   timestamptz,
    -- due_at: when a queued run may be dispatched (again), when a running one loses its lease; a parked run has none.
    -- A due run of a paused agent is set aside as queued and due at infinity, until the agent is resumed.
    CHECK ((due_at IS NOT NULL) = (status IN ('queued', 'running'))),
    CHECK ((owner IS NOT NULL) = (status = 'running')),
    CHECK ((finished_at IS NOT NULL) = (status IN ('finished', 'failed', 'cancelled')))
) WITH (fillfactor = 80);
CREATE INDEX runs_due ON runs (due_at) WHERE status IN ('queued', 'running');
CREATE INDEX runs_cancelling ON runs (cancel_at) WHERE cancel_at IS NOT NULL AND status IN ('queued', 'running');
CREATE INDEX runs_status ON runs (status, id);
CREATE INDEX runs_batch ON runs (batch_id, id) WHERE batch_id IS NOT NULL;
CREATE INDEX runs_parent ON runs (parent_id, id) WHERE parent_id IS NOT NULL;
CREATE INDEX runs_unreported ON runs (id)
    WHERE parent_id IS NOT NULL AND NOT reported AND status IN ('finished', 'failed', 'cancelled');

-- Which call of which parent a child run answers.
CREATE TABLE delegations (
    child_id  uuid PRIMARY KEY REFERENCES runs,
    parent_id uuid NOT NULL REFERENCES runs,
    segment   integer NOT NULL,
    step      integer NOT NULL,
    call_id   text NOT NULL,
    depth     smallint NOT NULL,
    UNIQUE (parent_id, segment, step, call_id)
);

-- A child has its parent's requester, so that nobody may decide on their own run by way of it; only the gateway takes in
-- runs that have no parent.
CREATE FUNCTION keep_the_requester() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.parent_id IS NULL THEN
        IF current_user = 'banksman_worker' THEN
            RAISE EXCEPTION 'a worker starts no run but a child' USING ERRCODE = 'insufficient_privilege';
        END IF;
    ELSIF NOT EXISTS (
        SELECT FROM runs
        WHERE id = NEW.parent_id AND requester = NEW.requester AND requester_id IS NOT DISTINCT FROM NEW.requester_id
    ) THEN
        RAISE EXCEPTION 'a child run has its parent''s requester' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_the_requester BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION keep_the_requester();

-- The conversation, appended: each snapshot keeps the first `kept` messages of the ones before and adds its own.
CREATE TABLE snapshots (
    run_id     uuid NOT NULL REFERENCES runs,
    seq        integer NOT NULL,
    segment    integer NOT NULL,
    kept       integer NOT NULL,
    messages   bytea NOT NULL,
    state      bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, seq)
);

-- Files of a run's workspace, by the SHA-256 of their content.
CREATE TABLE blobs (
    run_id uuid NOT NULL REFERENCES runs,
    hash   bytea NOT NULL,
    body   bytea NOT NULL,
    PRIMARY KEY (run_id, hash)
);

-- JSON schemas of tools, by the SHA-256 of their canonical form: edits are checked against them.
CREATE TABLE schemas (
    hash bytea PRIMARY KEY,
    body bytea NOT NULL
);

CREATE TABLE requests (
    id          uuid PRIMARY KEY,
    run_id      uuid NOT NULL REFERENCES runs,
    segment     integer NOT NULL,
    step        integer NOT NULL,
    call_id     text NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('approval', 'question', 'external', 'outcome')),
    state       text NOT NULL DEFAULT 'open'
        CHECK (state IN ('open', 'approved', 'denied', 'answered', 'expired', 'cancelled', 'superseded')),
    agent       text NOT NULL,
    tool        text NOT NULL,
    tier        text NOT NULL CHECK (tier IN ('low', 'medium', 'high')),
    -- The groups whose members may vote by now: for finding. Deciding works it out from the requirement.
    audience    text[] NOT NULL,
    shape       bytea NOT NULL,
    schema_hash bytea NOT NULL REFERENCES schemas,
    requirement jsonb NOT NULL,
    context     bytea NOT NULL,
    revision    integer NOT NULL DEFAULT 1,
    expires_at  timestamptz NOT NULL,
    -- When the gateway must look at it next: for a reminder, a rung of the ladder, the deadline; while it is open.
    due_at      timestamptz,
    -- How often the deadline has moved on, and since when nobody, or too few, may decide.
    extended    integer NOT NULL DEFAULT 0,
    unreachable_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at  timestamptz,
    CHECK ((settled_at IS NULL) = (state = 'open')),
    CHECK ((due_at IS NOT NULL) = (state = 'open')),
    CHECK (due_at <= expires_at)
) WITH (fillfactor = 90);
CREATE UNIQUE INDEX requests_one_open ON requests (run_id, step, call_id) WHERE state = 'open';
CREATE INDEX requests_run ON requests (run_id, id);
CREATE INDEX requests_open ON requests (id) WHERE state = 'open';
CREATE INDEX requests_due ON requests (due_at) WHERE state = 'open';
CREATE INDEX requests_unreachable ON requests (id) WHERE state = 'open' AND unreachable_at IS NOT NULL;
CREATE INDEX requests_deadline ON requests (expires_at, id) WHERE state = 'open';
CREATE INDEX requests_settled ON requests (settled_at, id) WHERE state <> 'open';

-- One exact version of what is asked: the bytes that were hashed, their digest, and the person who edited them, if any.
CREATE TABLE revisions (
    request_id uuid NOT NULL REFERENCES requests,
    revision   integer NOT NULL,
    action     bytea NOT NULL,
    digest     bytea NOT NULL,
    author_id  uuid REFERENCES people,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (request_id, revision)
);

CREATE TABLE votes (
    id          uuid PRIMARY KEY,
    request_id  uuid NOT NULL,
    revision    integer NOT NULL,
    digest      bytea NOT NULL,
    verdict     text NOT NULL CHECK (verdict IN ('approve', 'deny', 'answer', 'happened', 'rerun', 'stop')),
    person_id   uuid REFERENCES people,
    key_id      uuid REFERENCES keys,
    reason      bytea,
    answer      bytea,
    channel     text NOT NULL,
    render_hash bytea,
    -- A vote of the same person on the same revision that was taken back before this one.
    replaces    uuid REFERENCES votes,
    -- The gateway's mark over all of this: a row that somebody else wrote has none, and is not counted.
    mac         text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (request_id, revision) REFERENCES revisions,
    CHECK (num_nonnulls(person_id, key_id) = 1)
);
CREATE UNIQUE INDEX votes_one_each ON votes (request_id, revision, COALESCE(person_id, key_id), replaces)
    NULLS NOT DISTINCT;

-- Outcomes that people reached, each a signed statement. What the system settles (expired, cancelled, superseded) has
-- no row here, because it never allows anything.
CREATE TABLE decisions (
    request_id uuid PRIMARY KEY,
    revision   integer NOT NULL,
    verdict    text NOT NULL CHECK (verdict IN ('approved', 'denied', 'answered')),
    statement  bytea NOT NULL,
    signature  bytea NOT NULL,
    kid        text NOT NULL,
    start_by   timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (request_id, revision) REFERENCES revisions
);

-- The same decisions, signed again with a later `start_by`: a sibling that the run waits for was extended after them.
CREATE TABLE renewals (
    request_id uuid NOT NULL REFERENCES decisions,
    start_by   timestamptz NOT NULL,
    statement  bytea NOT NULL,
    signature  bytea NOT NULL,
    kid        text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (request_id, start_by)
);

CREATE VIEW decisions_now WITH (security_invoker = true) AS
SELECT decisions.request_id, revision, verdict, created_at, COALESCE(last.statement, decisions.statement) AS statement,
       COALESCE(last.signature, decisions.signature) AS signature, COALESCE(last.kid, decisions.kid) AS kid,
       COALESCE(last.start_by, decisions.start_by) AS start_by
FROM decisions
LEFT JOIN LATERAL (
    SELECT statement, signature, kid, start_by
    FROM renewals
    WHERE renewals.request_id = decisions.request_id
    ORDER BY start_by DESC
    LIMIT 1
) AS last ON true;

-- The journal: a tool call is started here before it starts, and finished here once its result is known.
CREATE TABLE executions (
    run_id      uuid NOT NULL REFERENCES runs,
    step        integer NOT NULL,
    call_id     text NOT NULL,
    attempt     smallint NOT NULL DEFAULT 1,
    tool        text NOT NULL,
    digest      bytea NOT NULL,
    request_id  uuid REFERENCES requests,
    grant_id    uuid,
    fence       bigint NOT NULL,
    state       text NOT NULL DEFAULT 'started' CHECK (state IN ('started', 'finished')),
    outcome     text CHECK (outcome IN ('returned', 'retry', 'failed', 'deferred')),
    result      bytea,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    PRIMARY KEY (run_id, step, call_id, attempt),
    CHECK ((state = 'finished') = (outcome IS NOT NULL)),
    CHECK ((state = 'finished') = (finished_at IS NOT NULL))
);
CREATE INDEX executions_request ON executions (request_id) WHERE request_id IS NOT NULL;

CREATE TABLE notices (
    id         uuid PRIMARY KEY,
    kind       text NOT NULL CHECK (kind IN ('request', 'reminder', 'escalation', 'remark', 'sign_in', 'receipt', 'test')),
    person_id  uuid NOT NULL REFERENCES people,
    request_id uuid REFERENCES requests,
    revision   integer,
    channel    text NOT NULL DEFAULT 'email',
    state      text NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'claimed', 'sent', 'dead', 'dropped')),
    due_at     timestamptz,
    fence      integer NOT NULL DEFAULT 0,
    attempts   integer NOT NULL DEFAULT 0,
    last_error text,
    -- Why it waits although nothing went wrong, while it is due later.
    held       text,
    sent_at    timestamptz,
    -- Of the link and the code: how often the code was typed wrongly, when the link was first opened, used, revoked.
    code_tries smallint NOT NULL DEFAULT 0,
    seen_at    timestamptz,
    used_at    timestamptz,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((due_at IS NOT NULL) = (state IN ('due', 'claimed'))),
    CHECK ((kind IN ('request', 'reminder', 'escalation', 'remark')) = (request_id IS NOT NULL)),
    FOREIGN KEY (request_id, revision) REFERENCES revisions
);
CREATE INDEX notices_due ON notices (due_at) WHERE state IN ('due', 'claimed');
CREATE INDEX notices_sign_in ON notices (person_id, created_at) WHERE kind = 'sign_in';
CREATE INDEX notices_dead ON notices (id) WHERE state = 'dead';
CREATE UNIQUE INDEX notices_receipt ON notices (person_id, expires_at) WHERE kind = 'receipt';
CREATE INDEX notices_sent ON notices (sent_at) WHERE sent_at IS NOT NULL;
CREATE INDEX notices_request ON notices (request_id) WHERE request_id IS NOT NULL;

-- Append-only, in the transaction of the move that it tells. (xid, id) below the snapshot horizon is the cursor.
CREATE TABLE audit_events (
    id         bigint GENERATED ALWAYS AS IDENTITY,
    xid        xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor      text NOT NULL,
    action     text NOT NULL,
    run_id     uuid,
    request_id uuid,
    body       jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (xid, id)
);
CREATE INDEX audit_run ON audit_events (run_id, xid, id) WHERE run_id IS NOT NULL;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed or removed', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON revisions EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON votes EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON decisions EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON renewals EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events EXECUTE FUNCTION refuse_change();

-- The walls between the services. The roles are made by banksman.ledger.migrate before this runs.
GRANT USAGE ON SCHEMA public TO banksman_worker, banksman_gateway, banksman_notifier;

GRANT SELECT ON runs, delegations, snapshots, blobs, schemas, requests, revisions, votes, decisions, renewals,
    decisions_now, executions, agents, batches TO banksman_worker, banksman_gateway;

GRANT UPDATE (agent_version, status, segment, fence, owner, attempts, dispatched, due_at, output, error, usage,
              started_at, finished_at, reported) ON runs TO banksman_worker;
GRANT INSERT (id, agent, requester, requester_id, tags, priority, prompt, metadata, finish_by, parent_id, dispatched,
              status, due_at, finished_at, error) ON runs TO banksman_worker;
GRANT INSERT ON delegations TO banksman_worker;
GRANT INSERT ON snapshots, blobs, schemas, revisions TO banksman_worker;
GRANT INSERT ON requests TO banksman_worker;
GRANT UPDATE (state, settled_at, due_at) ON requests TO banksman_worker;
GRANT INSERT ON executions TO banksman_worker;
GRANT UPDATE (state, outcome, result, finished_at) ON executions TO banksman_worker;
GRANT INSERT (name, version, tools), UPDATE (version, tools, seen_at) ON agents TO banksman_worker;
GRANT INSERT (id, kind, person_id, request_id, revision, channel, state, due_at, expires_at) ON notices TO banksman_worker;
GRANT SELECT (id, email, name, roles, groups, fresh, disabled_at) ON people TO banksman_worker;
GRANT SELECT (id, revoked_at, expires_at) ON keys TO banksman_worker;
GRANT INSERT (actor, action, run_id, request_id, body) ON audit_events TO banksman_worker;

GRANT INSERT ON runs TO banksman_gateway;
GRANT UPDATE (status, due_at, dispatched, cancel_at, attempts, error, finished_at) ON runs TO banksman_gateway;
GRANT UPDATE (paused_at, paused_by) ON agents TO banksman_gateway;
GRANT INSERT, UPDATE (cancelled_at, cancelled_by, swept_at) ON batches TO banksman_gateway;
GRANT UPDATE (state, revision, settled_at, audience, due_at, expires_at, extended, unreachable_at) ON requests
    TO banksman_gateway;
GRANT INSERT ON revisions, votes, decisions, renewals TO banksman_gateway;
GRANT SELECT, INSERT, UPDATE ON people, keys, sessions TO banksman_gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON answers TO banksman_gateway;
GRANT SELECT, INSERT ON notices TO banksman_gateway;
GRANT UPDATE (state, due_at, code_tries, seen_at, used_at, expires_at) ON notices TO banksman_gateway;
GRANT INSERT (actor, action, run_id, request_id, body) ON audit_events TO banksman_gateway;
GRANT SELECT ON audit_events TO banksman_gateway;

GRANT SELECT ON notices TO banksman_notifier;
GRANT UPDATE (state, due_at, fence, attempts, last_error, sent_at) ON notices TO banksman_notifier;
GRANT SELECT (id, run_id, kind, state, agent, tool, tier, requirement, revision, expires_at, created_at) ON requests TO banksman_notifier;
GRANT SELECT (id, agent, requester, status) ON runs TO banksman_notifier;
GRANT SELECT (id, email, name, disabled_at) ON people TO banksman_notifier;
GRANT INSERT (actor, action, run_id, request_id, body) ON audit_events TO banksman_notifier;
