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
