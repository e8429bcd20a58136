-- Tables of the chaos test. Every row has a tag that names the write it is from; `audit` (not replicated)
-- keeps every committed change of this node with the row as it was written, and between which two readings of
-- mmrepl's clock its version was taken: lo < ts <= hi. Triggers fire in the order of their names: aa_, mmrepl_, zz_.
CREATE TABLE acct (id int PRIMARY KEY, u int UNIQUE, part int, grp int, v int, tag text NOT NULL);
CREATE UNIQUE INDEX acct_part ON acct (part) WHERE grp = 1;
CREATE TABLE users (name text PRIMARY KEY, email text, bio text, tag text NOT NULL);
CREATE UNIQUE INDEX users_email ON users (lower(email));
CREATE TABLE comp (a int, b numeric, c text, tag text NOT NULL, PRIMARY KEY (a, b));
CREATE TABLE parent (id int PRIMARY KEY, name text, tag text NOT NULL);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE, tag text NOT NULL);
CREATE TABLE bucket (id int PRIMARY KEY, v text, tag text NOT NULL);
CREATE TABLE sess (id bigserial PRIMARY KEY, uid text NOT NULL, octets numeric, tag text NOT NULL);
CREATE UNIQUE INDEX sess_uid ON sess (uid);
CREATE TABLE seat (id int PRIMARY KEY, pos int UNIQUE DEFERRABLE INITIALLY DEFERRED, alt int UNIQUE DEFERRABLE, tag text NOT NULL);
CREATE TABLE room (id int PRIMARY KEY, span int4range, tag text NOT NULL, EXCLUDE USING gist (span WITH &&));

CREATE TABLE audit (seq bigserial PRIMARY KEY, lo int8, hi int8, tbl text, op "char", key text, row jsonb);

CREATE FUNCTION audit_mark() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('chaos.lo', (SELECT clock FROM mmrepl._database_state())::text, false);
    RETURN NULL;
END $$;

CREATE FUNCTION audit_note(tbl text, op "char", key text, new jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.audit (lo, hi, tbl, op, key, row)
        SELECT current_setting('chaos.lo')::int8, s.clock, $1, $2, $3, $4 FROM mmrepl._database_state() AS s;
END $$;

CREATE FUNCTION audit_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM public.audit_note(TG_TABLE_NAME, 'T', NULL, NULL);
    RETURN NULL;
END $$;

DO $do$
DECLARE
    t record;
BEGIN
    FOR t IN SELECT * FROM (VALUES ('acct', '%1$s.id::text'), ('users', '%1$s.name'),
            ('comp', '%1$s.a || ''|'' || trim_scale(%1$s.b)'), ('parent', '%1$s.id::text'), ('child', '%1$s.id::text'),
            ('bucket', '%1$s.id::text'), ('sess', '%1$s.uid'), ('seat', '%1$s.id::text'), ('room', '%1$s.id::text')) AS v (name, key)
    LOOP
        EXECUTE format($f$
CREATE FUNCTION audit_%1$s() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD *= NEW THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND %2$s <> %3$s THEN
        PERFORM public.audit_note('%1$s', 'D', %2$s, NULL);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM public.audit_note('%1$s', 'W', %3$s, to_jsonb(NEW));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER aa_mark AFTER INSERT OR UPDATE OR DELETE ON %1$s FOR EACH ROW EXECUTE FUNCTION audit_mark();
CREATE TRIGGER aa_mark_truncate AFTER TRUNCATE ON %1$s EXECUTE FUNCTION audit_mark();
CREATE TRIGGER zz_audit AFTER INSERT OR UPDATE OR DELETE ON %1$s FOR EACH ROW EXECUTE FUNCTION audit_%1$s();
CREATE TRIGGER zz_audit_truncate AFTER TRUNCATE ON %1$s EXECUTE FUNCTION audit_truncate();
$f$, t.name, format(t.key, 'OLD'), format(t.key, 'NEW'));
    END LOOP;
END $do$;
