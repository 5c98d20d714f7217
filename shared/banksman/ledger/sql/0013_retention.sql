-- What is over is removed whole after a while (purge), or loses its content at once (erase): by a role that nothing else
-- uses, and only while the run is over. The audit log stays.
ALTER TABLE runs
    ADD COLUMN erased_at timestamptz,
    ADD CHECK (erased_at IS NULL OR finished_at IS NOT NULL) NOT VALID;

CREATE FUNCTION refuse_all_but_the_keeper() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_user = 'banksman_keeper' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'rows of % are never changed or removed', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE FUNCTION keep_what_is_not_over() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    run uuid;
BEGIN
    IF TG_TABLE_NAME = 'runs' THEN
        run := OLD.id;
    ELSIF TG_TABLE_NAME IN ('requests', 'executions', 'snapshots', 'blobs') THEN
        run := OLD.run_id;
    ELSIF TG_TABLE_NAME = 'withdrawals' THEN
        SELECT run_id INTO run FROM votes JOIN requests ON requests.id = request_id WHERE votes.id = OLD.vote_id;
    ELSE
        SELECT run_id INTO run FROM requests WHERE id = OLD.request_id;
    END IF;
    IF NOT EXISTS (SELECT FROM runs WHERE id = run AND finished_at IS NOT NULL) THEN
        RAISE EXCEPTION 'a run that is not over keeps its %', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END $$;

DROP TRIGGER append_only ON revisions;
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON revisions EXECUTE FUNCTION refuse_all_but_the_keeper();
DROP TRIGGER append_only ON votes;
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON votes EXECUTE FUNCTION refuse_all_but_the_keeper();
DROP TRIGGER append_only ON withdrawals;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON withdrawals
    EXECUTE FUNCTION refuse_all_but_the_keeper();
DROP TRIGGER append_only ON decisions;
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON decisions EXECUTE FUNCTION refuse_all_but_the_keeper();
DROP TRIGGER append_only ON renewals;
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON renewals EXECUTE FUNCTION refuse_all_but_the_keeper();
DROP TRIGGER append_only ON remarks;
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON remarks EXECUTE FUNCTION refuse_all_but_the_keeper();
DROP TRIGGER append_only ON grants;
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON grants EXECUTE FUNCTION refuse_all_but_the_keeper();

CREATE TRIGGER keep_what_is_not_over BEFORE DELETE ON runs FOR EACH ROW EXECUTE FUNCTION keep_what_is_not_over();
CREATE TRIGGER keep_what_is_not_over BEFORE DELETE ON snapshots FOR EACH ROW EXECUTE FUNCTION keep_what_is_not_over();
CREATE TRIGGER keep_what_is_not_over BEFORE DELETE ON blobs FOR EACH ROW EXECUTE FUNCTION keep_what_is_not_over();
CREATE TRIGGER keep_what_is_not_over BEFORE DELETE ON requests FOR EACH ROW EXECUTE FUNCTION keep_what_is_not_over();
CREATE TRIGGER keep_what_is_not_over BEFORE DELETE ON revisions FOR EACH ROW EXECUTE FUNCTION keep_what_is_not_over();
CREATE TRIGGER keep_what_is_not_over BEFORE DELETE ON votes FOR EACH ROW EXECUTE FUNCTION keep_what_is_not_over();
CREATE TRIGGER keep_what_is_not_over BEFORE DELETE ON withdrawals FOR EACH ROW EXECUTE FUNCTION keep_what_is_not_over();
CREATE TRIGGER keep_what_is_not_over BEFORE DELETE ON decisions FOR EACH ROW EXECUTE FUNCTION keep_what_is_not_over();
CREATE TRIGGER keep_what_is_not_over BEFORE DELETE ON renewals FOR EACH ROW EXECUTE FUNCTION keep_what_is_not_over();
CREATE TRIGGER keep_what_is_not_over BEFORE DELETE ON remarks FOR EACH ROW EXECUTE FUNCTION keep_what_is_not_over();
CREATE TRIGGER keep_what_is_not_over BEFORE DELETE ON executions FOR EACH ROW EXECUTE FUNCTION keep_what_is_not_over();
CREATE TRIGGER keep_what_is_not_over BEFORE DELETE ON grants FOR EACH ROW EXECUTE FUNCTION keep_what_is_not_over();
-- Erasing changes rows; whoever else changes these is not the keeper.
CREATE TRIGGER keep_content BEFORE UPDATE ON runs FOR EACH ROW
    WHEN (OLD.finished_at IS NULL AND current_user = 'banksman_keeper') EXECUTE FUNCTION keep_what_is_not_over();
CREATE TRIGGER keep_content BEFORE UPDATE OF context ON requests FOR EACH ROW
    EXECUTE FUNCTION keep_what_is_not_over();
CREATE TRIGGER keep_content BEFORE UPDATE ON executions FOR EACH ROW
    WHEN (current_user = 'banksman_keeper') EXECUTE FUNCTION keep_what_is_not_over();

-- A grant that is over loses its statement with the run that it was given from, while others' calls still name it.
CREATE OR REPLACE FUNCTION keep_the_grant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.used < OLD.used OR (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at)
        OR (NOT sealed_anew(OLD.statement, NEW.statement)
            AND (current_user <> 'banksman_keeper' OR OLD.revoked_at IS NULL AND OLD.expires_at > clock_timestamp()))
        OR (NEW.id, NEW.signature, NEW.kid, NEW.owner_id, NEW.request_id, NEW.agent, NEW.tool, NEW.most,
            NEW.expires_at, NEW.created_at)
        IS DISTINCT FROM (OLD.id, OLD.signature, OLD.kid, OLD.owner_id, OLD.request_id, OLD.agent,
            OLD.tool, OLD.most, OLD.expires_at, OLD.created_at) THEN
        RAISE EXCEPTION 'a grant is used and revoked, never changed' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;

-- Lists and queues of the inbox that read no more when much is there: of what is rare among very many that wait, and of one
-- agent, requester or person among all that ever ran.
CREATE FUNCTION escalates_at(created_at timestamptz, requirement jsonb) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT created_at + make_interval(secs => min((rung ->> 'after')::float8))
    FROM jsonb_array_elements(requirement -> 'escalation') AS rung
$$;
CREATE INDEX requests_escalates ON requests (escalates_at(created_at, requirement)) WHERE state = 'open';
CREATE INDEX requests_outcome ON requests (expires_at, id) WHERE state = 'open' AND kind = 'outcome';
CREATE INDEX requests_tool ON requests (tool, expires_at, id) WHERE state = 'open';
CREATE INDEX requests_tool_settled ON requests (tool, settled_at, id) WHERE state <> 'open';
CREATE INDEX requests_agent ON requests (agent, id);
CREATE INDEX requests_agent_open ON requests (agent) WHERE state = 'open';
CREATE INDEX runs_agent ON runs (agent, id);
CREATE INDEX runs_requester ON runs (requester, status, id);
CREATE INDEX runs_person ON runs (requester_id, id) WHERE requester_id IS NOT NULL;

-- How many runs of a batch are where, without reading the runs.
CREATE INDEX runs_in_batch ON runs (batch_id, status) WHERE batch_id IS NOT NULL;
DROP INDEX runs_left;

-- What a removed row is looked for in, one after the other, before it goes.
CREATE INDEX deliveries_run ON deliveries (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX deliveries_request ON deliveries (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX grants_request ON grants (request_id);
CREATE INDEX votes_replaces ON votes (replaces) WHERE replaces IS NOT NULL;
-- Messages about no request: codes to sign in with, receipts, trials.
CREATE INDEX notices_alone ON notices (created_at) WHERE request_id IS NULL;

GRANT USAGE ON SCHEMA public TO banksman_keeper;
GRANT SELECT, DELETE ON runs, delegations, snapshots, blobs, requests, revisions, votes, withdrawals, decisions, renewals,
    executions, notices, remarks, lookings, deliveries, grants, batches, answers TO banksman_keeper;
GRANT UPDATE (prompt, metadata, output, error, tags, key, erased_at) ON runs TO banksman_keeper;
GRANT UPDATE (statement) ON grants TO banksman_keeper;
GRANT UPDATE (context) ON requests TO banksman_keeper;
GRANT UPDATE (result) ON executions TO banksman_keeper;
GRANT UPDATE (last_error) ON notices, deliveries TO banksman_keeper;
GRANT INSERT (actor, action, run_id, request_id, body) ON audit_events TO banksman_keeper;
