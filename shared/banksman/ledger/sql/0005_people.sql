-- Codes that were asked for, by whoever typed an address: the same row whether or not somebody has it, so that neither
-- the answer nor the time it takes tells. Forgotten after an hour.
CREATE TABLE sign_ins (
    -- Of the notice that carries the code, where there is one.
    id         uuid PRIMARY KEY,
    person_id  uuid REFERENCES people,
    -- The browser that asked, where this person has signed in before, else the network address: hashed, for counting.
    asker      bytea NOT NULL,
    known      boolean NOT NULL,
    tries      smallint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX sign_ins_person ON sign_ins (person_id, created_at);
CREATE INDEX sign_ins_created ON sign_ins (created_at);

GRANT SELECT, INSERT, UPDATE (tries), DELETE ON sign_ins TO banksman_gateway;
