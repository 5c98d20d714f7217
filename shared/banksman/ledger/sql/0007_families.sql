-- What came in with a batch stays of it for policy, however far below it was delegated; it is counted there as one run.
CREATE FUNCTION batch_above(run uuid) RETURNS uuid LANGUAGE sql STABLE AS $$
    WITH RECURSIVE above AS (
        SELECT id, parent_id, batch_id FROM runs WHERE id = run
        UNION
        SELECT runs.id, runs.parent_id, runs.batch_id FROM runs JOIN above ON runs.id = above.parent_id
    )
    SELECT batch_id FROM above WHERE parent_id IS NULL
$$;

-- Deliveries that are over are kept for a month.
CREATE INDEX deliveries_over ON deliveries (happened_at) WHERE state IN ('sent', 'dead');
GRANT DELETE ON deliveries TO banksman_notifier;
