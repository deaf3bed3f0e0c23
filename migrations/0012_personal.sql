-- Erasable people. A leaf names nobody: in the place of a personal value it has a commitment to it, `~` and the base64url
-- of SHA-256 over a random salt and the value. What opens the commitments is here, for as long as nobody is erased.
-- Records of before this have the values themselves, and stay as they are.
-- Rows leave when somebody is erased, with a record of it.
CREATE TABLE personal (
    commitment text PRIMARY KEY CHECK (commitment ~ '^~[A-Za-z0-9_-]{43}$'),
    salt       bytea NOT NULL CHECK (octet_length(salt) = 32),
    kind       text NOT NULL CHECK (kind IN ('person', 'user', 'email', 'username', 'address', 'text')),
    owner      text NOT NULL,                -- the person that it is of, as principal
    value      text NOT NULL,
    -- The same rule as core's `Personal`.
    CONSTRAINT personal_value_has_an_owner CHECK ((owner = '') = (kind IN ('person', 'user')))
);
-- One value has one commitment: so a person can be asked for. What somebody wrote is nothing to be asked for.
CREATE UNIQUE INDEX personal_by_value ON personal (kind, owner, value) WHERE kind <> 'text';
CREATE INDEX personal_by_owner ON personal (owner) WHERE owner <> '';
CREATE INDEX personal_user_by_name ON personal (lower(value)) WHERE kind = 'user';

-- To read a value for a key share lock wants a right to update; nobody updates.
CREATE TRIGGER personal_is_never_changed BEFORE UPDATE OR TRUNCATE ON personal
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT, INSERT, DELETE, UPDATE (commitment) ON personal TO cortex_server;
-- Who disabled somebody may be erased too.
GRANT UPDATE (disabled_by) ON disabled_person TO cortex_server;

-- A principal, a text or an account as readers are shown it. Where the value was erased, they are told so; of a
-- principal the commitment follows, so that it can be told from others. The same as core's `Place::open`.
CREATE FUNCTION opened_principal(principal text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN principal ~ '^(person:[^:]+|operator):~[A-Za-z0-9_-]{43}$'
                THEN COALESCE((SELECT p.value FROM personal p WHERE p.commitment = right(principal, 44)),
                              left(principal, -44) || 'erased' || right(principal, 44))
                ELSE principal END
$$;
CREATE FUNCTION opened_text(words text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN words ~ '^~[A-Za-z0-9_-]{43}$'
                THEN COALESCE((SELECT p.value FROM personal p WHERE p.commitment = words), 'erased')
                ELSE words END
$$;
-- What tells two accounts of one person: what is erased stays a commitment, which is like nobody's name.
CREATE FUNCTION opened_account(account jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT account || COALESCE((SELECT jsonb_object_agg(name.key, p.value)
                                FROM jsonb_each_text(account) name JOIN personal p ON p.commitment = name.value
                                WHERE name.key IN ('email', 'username')), '{}')
$$;
