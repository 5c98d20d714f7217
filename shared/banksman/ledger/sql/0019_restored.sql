-- After a restore no person revokes the standing grants.
ALTER TABLE grants DROP CONSTRAINT grants_check;
ALTER TABLE grants ADD CONSTRAINT grants_revoked_at_check CHECK (revoked_by IS NULL OR revoked_at IS NOT NULL);
