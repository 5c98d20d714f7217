-- The seal of the audit log: a Merkle tree (RFC 9162) over its events in their order, and signed heads of that tree.

-- The place of an event in the log is (xid, id). In another PostgreSQL (a dump that was restored, an upgrade) the live
-- transaction ids may begin below the stored ones: `banksman migrate` then sets the shift, so that places never go back.
CREATE FUNCTION audit_shift() RETURNS bigint LANGUAGE sql IMMUTABLE RETURN 0::bigint;
CREATE FUNCTION audit_xid() RETURNS xid8 LANGUAGE sql STABLE
    RETURN (pg_current_xact_id()::text::bigint + audit_shift())::text::xid8;
-- Below it no event is still to come.
CREATE FUNCTION audit_horizon() RETURNS xid8 LANGUAGE sql STABLE
    RETURN (pg_snapshot_xmin(pg_current_snapshot())::text::bigint + audit_shift())::text::xid8;
-- From it on no transaction has begun.
CREATE FUNCTION audit_ceiling() RETURNS xid8 LANGUAGE sql STABLE
    RETURN (pg_snapshot_xmax(pg_current_snapshot())::text::bigint + audit_shift())::text::xid8;
ALTER TABLE audit_events ALTER COLUMN xid SET DEFAULT audit_xid();
ALTER TABLE endpoints ALTER COLUMN xid SET DEFAULT audit_horizon();

-- Which PostgreSQL the log has lived in, since which place, and the last event that was there when it came.
CREATE TABLE audit_homes (
    number     integer PRIMARY KEY,
    cluster    bigint NOT NULL,
    xid        xid8 NOT NULL,
    floor      bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One for each sealed event, without gaps from 0 on. No foreign key: a leaf outlives an event that somebody removes.
CREATE TABLE audit_leaves (
    position bigint PRIMARY KEY,
    xid      xid8 NOT NULL,
    id       bigint NOT NULL,
    hash     bytea NOT NULL CHECK (octet_length(hash) = 32),
    UNIQUE (id)
);

-- The root of every complete subtree of 256^tier leaves; with the leaves it yields any proof in a few reads.
CREATE TABLE audit_nodes (
    tier   smallint CHECK (tier > 0),
    number bigint,
    hash   bytea NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (tier, number)
);

-- What the sealer signed. Number and size stand in the statement too; there they are signed.
CREATE TABLE audit_heads (
    number    bigint PRIMARY KEY,
    size      bigint NOT NULL UNIQUE,
    statement bytea NOT NULL,
    signature bytea NOT NULL,
    kid       text NOT NULL
);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_homes EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_leaves EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_nodes EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_heads EXECUTE FUNCTION refuse_change();

-- For the page and the export: what one person did, what happened of one kind, what concerns one request.
CREATE INDEX audit_actor ON audit_events (actor, xid, id);
CREATE INDEX audit_action ON audit_events (action, xid, id);
CREATE INDEX audit_request ON audit_events (request_id, xid, id) WHERE request_id IS NOT NULL;
CREATE INDEX audit_at ON audit_events USING brin (at);

GRANT USAGE ON SCHEMA public TO banksman_sealer;
GRANT SELECT ON audit_events, audit_homes, audit_leaves, audit_nodes, audit_heads TO banksman_sealer, banksman_gateway;
GRANT SELECT (number, statement, signature, kid) ON audit_heads TO banksman_notifier;
GRANT INSERT ON audit_leaves, audit_nodes, audit_heads TO banksman_sealer;
