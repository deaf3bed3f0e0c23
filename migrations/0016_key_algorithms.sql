-- A key signs with one algorithm; every key of before is for RS256.
ALTER TABLE signing_key
    ADD COLUMN algorithm text NOT NULL DEFAULT 'RS256' CHECK (algorithm IN ('RS256', 'ES256'));
ALTER TABLE signing_key ALTER COLUMN algorithm DROP DEFAULT;
