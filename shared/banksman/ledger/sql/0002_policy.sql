-- Rules that an administrator uploaded: each version a signed statement, kept for good. The highest one is in force.
CREATE TABLE policies (
    version    integer PRIMARY KEY CHECK (version > 0),
    statement  bytea NOT NULL,
    signature  bytea NOT NULL,
    kid        text NOT NULL,
    author_id  uuid NOT NULL REFERENCES people,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON policies EXECUTE FUNCTION refuse_change();

GRANT SELECT ON policies TO banksman_worker, banksman_gateway;
GRANT INSERT (version, statement, signature, kid, author_id) ON policies TO banksman_gateway;

-- A person's word that the same call may be made again, so often, until then: a signed statement. What stands beside it is
-- for finding; of the columns only `used` and the revocation count, and neither goes back.
CREATE TABLE grants (
    id         uuid PRIMARY KEY,
    statement  bytea NOT NULL,
    signature  bytea NOT NULL,
    kid        text NOT NULL,
    owner_id   uuid NOT NULL REFERENCES people,
    request_id uuid NOT NULL REFERENCES requests,
    agent      text NOT NULL,
    tool       text NOT NULL,
    most       integer NOT NULL CHECK (most > 0),
    used       integer NOT NULL DEFAULT 0 CHECK (used >= 0),
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at timestamptz,
    revoked_by uuid REFERENCES people,
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
CREATE INDEX grants_recent ON grants (expires_at);
ALTER TABLE executions ADD FOREIGN KEY (grant_id) REFERENCES grants;
CREATE INDEX executions_grant ON executions (grant_id) WHERE grant_id IS NOT NULL;

CREATE FUNCTION keep_the_grant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.used < OLD.used OR (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at)
        OR (NEW.id, NEW.statement, NEW.signature, NEW.kid, NEW.owner_id, NEW.request_id, NEW.agent, NEW.tool, NEW.most,
            NEW.expires_at, NEW.created_at)
        IS DISTINCT FROM (OLD.id, OLD.statement, OLD.signature, OLD.kid, OLD.owner_id, OLD.request_id, OLD.agent,
            OLD.tool, OLD.most, OLD.expires_at, OLD.created_at) THEN
        RAISE EXCEPTION 'a grant is used and revoked, never changed' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_the_grant BEFORE UPDATE ON grants FOR EACH ROW EXECUTE FUNCTION keep_the_grant();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON grants EXECUTE FUNCTION refuse_change();

GRANT SELECT ON grants TO banksman_worker, banksman_gateway;
GRANT UPDATE (used) ON grants TO banksman_worker;
GRANT INSERT (id, statement, signature, kid, owner_id, request_id, agent, tool, most, expires_at) ON grants TO banksman_gateway;
GRANT UPDATE (revoked_at, revoked_by) ON grants TO banksman_gateway;

-- For drafts: what one person decided lately.
CREATE INDEX votes_lately ON votes (person_id, id) WHERE person_id IS NOT NULL;
