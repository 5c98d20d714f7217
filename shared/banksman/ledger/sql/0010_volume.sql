-- A paused batch: none of its runs is claimed until it goes on. waits_for: groups that have as many open requests as they are
-- to have, and this batch has some there; meanwhile nothing of it begins that has not begun.
ALTER TABLE batches
    ADD COLUMN paused_at timestamptz,
    ADD COLUMN paused_by text,
    ADD COLUMN waits_for text[] NOT NULL DEFAULT '{}',
    ADD CHECK ((paused_at IS NULL) = (paused_by IS NULL));
CREATE INDEX batches_held ON batches (id) WHERE paused_at IS NOT NULL OR waits_for <> '{}';
GRANT UPDATE (paused_at, paused_by, waits_for) ON batches TO banksman_gateway;

-- key: what the caller calls this run of a batch. turn: whose turn it is among its like: in a batch the line that the run came on.
-- lot: what shares a worker's time with the others evenly: each batch, and together whatever came without one.
ALTER TABLE runs
    ADD COLUMN key text,
    ADD COLUMN turn bigint NOT NULL DEFAULT 0,
    ADD COLUMN lot uuid NOT NULL GENERATED ALWAYS AS
        (COALESCE(batch_id, '00000000-0000-0000-0000-000000000000'::uuid)) STORED;
ALTER TABLE runs ALTER COLUMN turn DROP DEFAULT;
CREATE INDEX runs_turn ON runs (agent, lot, (started_at IS NULL), priority DESC, turn)
    WHERE status IN ('queued', 'running') AND due_at < 'infinity';
CREATE INDEX runs_asked ON runs (requester, agent, priority, turn)
    WHERE status = 'queued' AND batch_id IS NULL AND started_at IS NULL;
CREATE INDEX runs_line ON runs (batch_id, turn, id) WHERE batch_id IS NOT NULL;
CREATE INDEX runs_left ON runs (batch_id)
    WHERE batch_id IS NOT NULL AND status IN ('queued', 'running', 'waiting', 'stuck');
CREATE INDEX runs_over ON runs (batch_id, finished_at, id) WHERE batch_id IS NOT NULL AND finished_at IS NOT NULL;
CREATE INDEX runs_of_agent ON runs (agent) WHERE status = 'running';

-- Who asks for many runs one by one takes turns with the others who ask: a run comes after those that its requester has
-- waiting, and never before the turn that it is now.
CREATE FUNCTION take_a_turn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.turn := GREATEST(
        (SELECT turn
         FROM runs
         WHERE agent = NEW.agent AND lot = '00000000-0000-0000-0000-000000000000' AND started_at IS NULL
           AND priority = NEW.priority AND status IN ('queued', 'running') AND due_at < 'infinity'
         ORDER BY turn
         LIMIT 1),
        (SELECT turn + 1
         FROM runs
         WHERE requester = NEW.requester AND agent = NEW.agent AND priority = NEW.priority
           AND status = 'queued' AND batch_id IS NULL AND started_at IS NULL
         ORDER BY turn DESC
         LIMIT 1),
        0);
    RETURN NEW;
END $$;
CREATE TRIGGER take_a_turn BEFORE INSERT ON runs FOR EACH ROW WHEN (NEW.turn IS NULL) EXECUTE FUNCTION take_a_turn();

-- Each lot of an agent that has anything queued or running, what of it has begun apart from what is fresh; found by stepping from
-- one to the next in the index, so that many runs cost no more than one. Held: its batch is paused, or begins nothing new.
CREATE VIEW runs_lots WITH (security_invoker = true) AS
WITH RECURSIVE lots AS (
    (SELECT agent, lot, started_at IS NULL AS fresh
     FROM runs
     WHERE status IN ('queued', 'running') AND due_at < 'infinity'
     ORDER BY agent, lot, (started_at IS NULL)
     LIMIT 1)
    UNION ALL
    SELECT next.agent, next.lot, next.fresh
    FROM lots
    CROSS JOIN LATERAL (
        SELECT agent, lot, started_at IS NULL AS fresh
        FROM runs
        WHERE status IN ('queued', 'running') AND due_at < 'infinity'
          AND (agent, lot, (started_at IS NULL)) > (lots.agent, lots.lot, lots.fresh)
        ORDER BY agent, lot, (started_at IS NULL)
        LIMIT 1) AS next
)
SELECT agent, lot, fresh, paused_at IS NOT NULL OR (fresh AND COALESCE(waits_for, '{}') <> '{}') AS held
FROM lots
LEFT JOIN batches ON batches.id = lot;

-- How many runs of a lot workers hold or have been sent a wake-up for, and how many of them only that.
CREATE VIEW runs_away WITH (security_invoker = true) AS
SELECT agent, lot, count(*) AS n, count(*) FILTER (WHERE status = 'queued') AS sent
FROM runs
WHERE status IN ('queued', 'running') AND dispatched AND due_at > statement_timestamp() AND due_at < 'infinity'
GROUP BY agent, lot;
GRANT SELECT ON runs_lots, runs_away TO banksman_worker;
