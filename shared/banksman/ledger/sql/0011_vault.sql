-- Content that is kept for good may be sealed anew, and changes in nothing else: a value of version 1 keeps everything
-- behind its first 49 bytes, which name the key and wrap the data key; one of version 0 becomes one of version 1.
CREATE FUNCTION sealed_anew(old bytea, new bytea) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT old IS NOT DISTINCT FROM new
        OR (get_byte(old, 0) = 1 AND get_byte(new, 0) = 1 AND substring(old FROM 50) = substring(new FROM 50))
        OR (get_byte(old, 0) = 0 AND get_byte(new, 0) = 1 AND length(new) = length(old) + 64)
$$;

-- Takes the names of the sealed columns.
CREATE FUNCTION refuse_change_but_sealing() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was jsonb := to_jsonb(OLD);
    will jsonb := to_jsonb(NEW);
    sealed text;
BEGIN
    FOREACH sealed IN ARRAY TG_ARGV LOOP
        IF NOT COALESCE(sealed_anew((was ->> sealed)::bytea, (will ->> sealed)::bytea), false) THEN
            RAISE EXCEPTION 'rows of % are never changed or removed', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
        END IF;
        was := was - sealed;
        will := will - sealed;
    END LOOP;
    IF was IS DISTINCT FROM will THEN
        RAISE EXCEPTION 'rows of % are never changed or removed', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;

DROP TRIGGER append_only ON revisions;
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON revisions EXECUTE FUNCTION refuse_change();
CREATE TRIGGER sealed_only BEFORE UPDATE ON revisions FOR EACH ROW EXECUTE FUNCTION refuse_change_but_sealing('action');
DROP TRIGGER append_only ON votes;
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON votes EXECUTE FUNCTION refuse_change();
CREATE TRIGGER sealed_only BEFORE UPDATE ON votes FOR EACH ROW EXECUTE FUNCTION refuse_change_but_sealing('reason', 'answer');
DROP TRIGGER append_only ON decisions;
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON decisions EXECUTE FUNCTION refuse_change();
CREATE TRIGGER sealed_only BEFORE UPDATE ON decisions FOR EACH ROW EXECUTE FUNCTION refuse_change_but_sealing('statement');
DROP TRIGGER append_only ON renewals;
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON renewals EXECUTE FUNCTION refuse_change();
CREATE TRIGGER sealed_only BEFORE UPDATE ON renewals FOR EACH ROW EXECUTE FUNCTION refuse_change_but_sealing('statement');
DROP TRIGGER append_only ON policies;
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON policies EXECUTE FUNCTION refuse_change();
CREATE TRIGGER sealed_only BEFORE UPDATE ON policies FOR EACH ROW EXECUTE FUNCTION refuse_change_but_sealing('statement');
DROP TRIGGER append_only ON remarks;
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON remarks EXECUTE FUNCTION refuse_change();
CREATE TRIGGER sealed_only BEFORE UPDATE ON remarks FOR EACH ROW EXECUTE FUNCTION refuse_change_but_sealing('body');

CREATE OR REPLACE FUNCTION keep_the_grant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.used < OLD.used OR (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at)
        OR NOT sealed_anew(OLD.statement, NEW.statement)
        OR (NEW.id, NEW.signature, NEW.kid, NEW.owner_id, NEW.request_id, NEW.agent, NEW.tool, NEW.most,
            NEW.expires_at, NEW.created_at)
        IS DISTINCT FROM (OLD.id, OLD.signature, OLD.kid, OLD.owner_id, OLD.request_id, OLD.agent,
            OLD.tool, OLD.most, OLD.expires_at, OLD.created_at) THEN
        RAISE EXCEPTION 'a grant is used and revoked, never changed' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
