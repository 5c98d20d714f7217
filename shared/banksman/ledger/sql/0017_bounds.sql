-- Python has no year 10000 and none before 1: a run with such a time could not be read again.
ALTER TABLE runs
    ADD CHECK (finish_by >= '2000-01-01 00:00:00+00' AND finish_by < '9000-01-01 00:00:00+00') NOT VALID;

-- How often in its segment a run came to a worker that cannot carry it: each time it comes again later.
ALTER TABLE runs ADD COLUMN elsewhere integer NOT NULL DEFAULT 0;
GRANT UPDATE (elsewhere) ON runs TO banksman_worker;

-- How many runs of a lot workers hold or have been sent a wake-up for, and how many of them only that. The wake-ups of a paused
-- batch start nothing, so they take nobody's room.
CREATE OR REPLACE VIEW runs_away WITH (security_invoker = true) AS
SELECT agent, lot, count(*) FILTER (WHERE status = 'running' OR paused_at IS NULL) AS n,
       count(*) FILTER (WHERE status = 'queued' AND paused_at IS NULL) AS sent
FROM runs
LEFT JOIN batches ON batches.id = lot AND paused_at IS NOT NULL
WHERE status IN ('queued', 'running') AND dispatched AND due_at > statement_timestamp() AND due_at < 'infinity'
GROUP BY agent, lot;
