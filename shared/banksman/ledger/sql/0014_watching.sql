-- For whoever watches the workers and says how many of them there are to be.
GRANT SELECT ON runs_lots, runs_away TO banksman_gateway;

-- How many runs workers have in hand, have been sent, or could be sent now; counted up to 10,000 for each lot. What waits for
-- people, for an operator or for a later moment is no work. An autoscaler asks by this alone: a role `banksman_scaler`, where
-- there is one, is let in by `banksman migrate`, and sees no table.
CREATE FUNCTION work_at_hand() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
BEGIN ATOMIC
    SELECT COALESCE(sum(counted.n), 0)::bigint
    FROM runs_lots
    LEFT JOIN agents ON agents.name = runs_lots.agent
    CROSS JOIN LATERAL (
        SELECT count(*) AS n
        FROM (SELECT
              FROM runs
              WHERE runs.agent = runs_lots.agent AND runs.lot = runs_lots.lot AND (started_at IS NULL) = fresh
                AND status IN ('queued', 'running') AND due_at < 'infinity'
                AND (status = 'running'
                     OR (NOT held AND paused_at IS NULL AND cancel_at IS NULL
                         AND (dispatched OR due_at <= statement_timestamp())))
              LIMIT 10000) AS first
    ) AS counted;
END;
REVOKE ALL ON FUNCTION work_at_hand() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION work_at_hand() TO banksman_gateway;
