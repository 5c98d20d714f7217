-- The keeper removes no message, delivery, delegation or looking of a run that is not over either.
CREATE OR REPLACE FUNCTION keep_what_is_not_over() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    run uuid;
BEGIN
    IF TG_TABLE_NAME = 'runs' THEN
        run := OLD.id;
    ELSIF TG_TABLE_NAME IN ('requests', 'executions', 'snapshots', 'blobs') THEN
        run := OLD.run_id;
    ELSIF TG_TABLE_NAME = 'withdrawals' THEN
        SELECT run_id INTO run FROM votes JOIN requests ON requests.id = request_id WHERE votes.id = OLD.vote_id;
    ELSIF TG_TABLE_NAME = 'delegations' THEN
        -- Of the two, the one that is not over, where there is one.
        SELECT id INTO run FROM runs WHERE id IN (OLD.child_id, OLD.parent_id) ORDER BY finished_at NULLS FIRST LIMIT 1;
    ELSIF TG_TABLE_NAME = 'deliveries' THEN
        run := COALESCE(OLD.run_id, (SELECT run_id FROM requests WHERE id = OLD.request_id));
    ELSIF TG_TABLE_NAME = 'notices' THEN
        IF OLD.request_id IS NULL AND OLD.state IN ('sent', 'dead', 'dropped') THEN
            -- A message about no request: a code to sign in with, a receipt, a trial.
            RETURN OLD;
        END IF;
        SELECT run_id INTO run FROM requests WHERE id = OLD.request_id;
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

-- Others remove rows of these in the course of a run.
CREATE TRIGGER keep_what_is_not_over BEFORE DELETE ON delegations FOR EACH ROW
    WHEN (current_user = 'banksman_keeper') EXECUTE FUNCTION keep_what_is_not_over();
CREATE TRIGGER keep_what_is_not_over BEFORE DELETE ON notices FOR EACH ROW
    WHEN (current_user = 'banksman_keeper') EXECUTE FUNCTION keep_what_is_not_over();
CREATE TRIGGER keep_what_is_not_over BEFORE DELETE ON lookings FOR EACH ROW
    WHEN (current_user = 'banksman_keeper') EXECUTE FUNCTION keep_what_is_not_over();
CREATE TRIGGER keep_what_is_not_over BEFORE DELETE ON deliveries FOR EACH ROW
    WHEN (current_user = 'banksman_keeper') EXECUTE FUNCTION keep_what_is_not_over();

-- Others write a request's context in the course of a run.
DROP TRIGGER keep_content ON requests;
CREATE TRIGGER keep_content BEFORE UPDATE OF context ON requests FOR EACH ROW
    WHEN (current_user = 'banksman_keeper') EXECUTE FUNCTION keep_what_is_not_over();
