-- Runs that were decided and have not gone on yet: the inbox counts them among very many that have never started.
CREATE INDEX runs_resuming ON runs (id) WHERE status = 'queued' AND segment > 0;
