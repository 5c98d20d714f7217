-- What a run of a batch delegated is of the batch's lot too: it shares in what the batch gets, it is passed over while the batch is
-- paused, and it comes before the batch's next lines.
ALTER TABLE runs ALTER COLUMN lot DROP EXPRESSION;
ALTER TABLE runs ALTER COLUMN lot SET DEFAULT '00000000-0000-0000-0000-000000000000';

CREATE FUNCTION join_a_lot() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.batch_id IS NOT NULL THEN
        NEW.lot := NEW.batch_id;
    ELSE
        NEW.lot := (SELECT lot FROM runs WHERE id = NEW.parent_id);
        IF NEW.lot <> '00000000-0000-0000-0000-000000000000' THEN
            NEW.turn := 0;
        END IF;
    END IF;
    RETURN NEW;
END $$;
-- Before `take_a_turn`, whose name comes later: who has a turn already takes none.
CREATE TRIGGER join_a_lot BEFORE INSERT ON runs FOR EACH ROW
    WHEN (NEW.batch_id IS NOT NULL OR NEW.parent_id IS NOT NULL) EXECUTE FUNCTION join_a_lot();

UPDATE runs
SET lot = batch_above(id), turn = 0
WHERE parent_id IS NOT NULL AND status NOT IN ('finished', 'failed', 'cancelled') AND batch_above(id) IS NOT NULL;
