-- Around voting: votes taken back, who is away and who decides instead, who is looking, and what people ask each other.

-- Votes that their voters took back while the request was open. The vote's row stays as it is. The mark is the gateway's,
-- as on votes: a row that somebody else wrote takes nothing back, and keeps nobody from doing so.
CREATE TABLE withdrawals (
    vote_id    uuid NOT NULL REFERENCES votes,
    mac        text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (vote_id, mac)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON withdrawals EXECUTE FUNCTION refuse_change();

-- Whoever votes again names the vote that they took back: each of them once (votes_one_each), and only their own. So of
-- the votes of one person on one revision all but one were taken back.
CREATE FUNCTION replace_own_votes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM votes
        JOIN withdrawals ON vote_id = id
        WHERE id = NEW.replaces AND request_id = NEW.request_id AND revision = NEW.revision AND person_id = NEW.person_id
    ) THEN
        RAISE EXCEPTION 'a vote replaces one that the same person took back, on the same revision'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER replace_own_votes BEFORE INSERT ON votes
    FOR EACH ROW WHEN (NEW.replaces IS NOT NULL) EXECUTE FUNCTION replace_own_votes();

-- Who is away, from when until when, and who decides meanwhile. It ends before its time by ended_at.
CREATE TABLE absences (
    id          uuid PRIMARY KEY,
    person_id   uuid NOT NULL REFERENCES people,
    stand_in_id uuid NOT NULL REFERENCES people,
    from_at     timestamptz NOT NULL,
    until_at    timestamptz NOT NULL,
    ended_at    timestamptz,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (from_at < until_at),
    CHECK (person_id <> stand_in_id)
);
CREATE INDEX absences_person ON absences (person_id, until_at);
CREATE INDEX absences_stand_in ON absences (stand_in_id, until_at);

-- Which groups are lent to whom at this moment. Nobody lends to two: of absences that overlap, the first counts. Roles are
-- never lent, and neither is what was borrowed.
CREATE VIEW lent AS
SELECT away.stand_in_id, away.person_id AS absent_id, people.groups
FROM absences AS away
JOIN people ON people.id = away.person_id
WHERE away.from_at <= clock_timestamp() AND clock_timestamp() < away.until_at
  AND away.ended_at IS NULL
  AND people.disabled_at IS NULL
  AND 'reviewer' = ANY (people.roles)
  AND NOT EXISTS (
      SELECT FROM absences AS before
      WHERE before.person_id = away.person_id
        AND before.id < away.id
        AND before.ended_at IS NULL
        AND before.from_at <= clock_timestamp() AND clock_timestamp() < before.until_at);

-- "Ana is looking": a lease that anybody may ignore.
CREATE TABLE lookings (
    request_id uuid NOT NULL REFERENCES requests,
    person_id  uuid NOT NULL REFERENCES people,
    until_at   timestamptz NOT NULL,
    PRIMARY KEY (request_id, person_id)
);
CREATE INDEX lookings_over ON lookings (until_at);

-- What people ask each other about a request before it is decided. No part of what is decided.
CREATE TABLE remarks (
    id         uuid PRIMARY KEY,
    request_id uuid NOT NULL REFERENCES requests,
    person_id  uuid NOT NULL REFERENCES people,
    body       bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX remarks_request ON remarks (request_id, id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON remarks EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT ON withdrawals, remarks TO banksman_gateway;
GRANT SELECT, INSERT, UPDATE (ended_at) ON absences TO banksman_gateway;
GRANT SELECT, INSERT, UPDATE (until_at), DELETE ON lookings TO banksman_gateway;
GRANT SELECT ON lent TO banksman_gateway, banksman_worker;
GRANT SELECT (vote_id) ON withdrawals TO banksman_notifier;
