-- A bit of everything that a database of PostgreSQL can have, with names that need quotes.
CREATE EXTENSION hstore;
CREATE EXTENSION pg_trgm;
CREATE EXTENSION citext;
CREATE SCHEMA "Odd ""Schema"" %/@";
COMMENT ON SCHEMA "Odd ""Schema"" %/@" IS 'a ''comment'' with ü';
CREATE TYPE mood AS ENUM ('glad', 'sad; DROP TABLE orders', 'sö la la');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE TYPE pair AS (one integer, two text);
CREATE SEQUENCE invoice START 1000 INCREMENT 7 CYCLE MAXVALUE 50000;
CREATE TABLE orders (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number bigint DEFAULT nextval('invoice') UNIQUE,
    what text NOT NULL,
    photo bytea,
    feeling mood,
    amount positive,
    price numeric(12, 2),
    tags hstore,
    email citext,
    extra jsonb,
    several text[],
    two pair,
    ratio double precision,
    at timestamptz,
    doubled numeric GENERATED ALWAYS AS (price * 2) STORED,
    CHECK (price IS NULL OR price > -1000)
);
INSERT INTO orders (what, photo, feeling, amount, price, tags, email, extra, several, two, ratio, at)
VALUES
    ('tea; with mìlk', '\x00ff1f8b0a0d5c', 'glad', 1, 3.50, 'a=>"b"', 'A@example.com', '{"a": [1, null]}',
     ARRAY['x', NULL, '', '"'], (1, 'zwei'), 'NaN', '2026-01-01 00:00:00+00'),
    ('', '', 'sö la la', 2, -1, NULL, '', 'null', '{}', (NULL, NULL), '-Infinity', 'infinity'),
    (E'line\nline\ttab\\.', decode(repeat('00', 100000), 'hex'), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0.1, NULL),
    (E'\\.', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO orders (what, price) SELECT md5(i::text), i FROM generate_series(1, 2000) AS i;
CREATE INDEX ON orders USING gin (what gin_trgm_ops);
CREATE UNIQUE INDEX "odd index" ON orders (lower(what), id) WHERE price > 0;
CREATE TABLE "-t pg_class --; ""x"" %s" ("select" integer REFERENCES orders (id), "ü /@" text);
INSERT INTO "-t pg_class --; ""x"" %s" VALUES (1, NULL), (2, ''), (NULL, '''"');
CREATE TABLE "Odd ""Schema"" %/@"."table" (LIKE orders INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES);
CREATE TABLE empty_table ();
CREATE UNLOGGED TABLE cache (key text PRIMARY KEY, value text);
INSERT INTO cache VALUES ('a', 'b');
CREATE TABLE measures (at date NOT NULL, value integer) PARTITION BY RANGE (at);
CREATE TABLE measures_2025 PARTITION OF measures FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE measures_rest PARTITION OF measures DEFAULT;
INSERT INTO measures VALUES ('2025-05-05', 1), ('2026-05-05', 2);
CREATE TABLE log (at timestamptz DEFAULT '2026-01-01', what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO log (what) VALUES (TG_OP || ' ''' || TG_TABLE_NAME);
    RETURN NEW;
END
$$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE ON measures_rest FOR EACH ROW EXECUTE FUNCTION note();
INSERT INTO measures VALUES ('2027-05-05', 3);
CREATE PROCEDURE clear() LANGUAGE sql AS 'DELETE FROM log';
CREATE AGGREGATE product (numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = 1);
CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq);
CREATE CAST (integer AS mood) WITH INOUT;
CREATE VIEW cheap AS SELECT id, what FROM orders WHERE price < 5 WITH CHECK OPTION;
CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS n, sum(price) AS total FROM orders;
CREATE MATERIALIZED VIEW not_filled AS SELECT 1 AS one WITH NO DATA;
CREATE RULE no_delete AS ON DELETE TO log WHERE OLD.what = 'kept' DO INSTEAD NOTHING;
ALTER TABLE log ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON log FOR SELECT USING (what IS NOT NULL);
CREATE STATISTICS together (dependencies) ON id, price FROM orders;
CREATE TEXT SEARCH CONFIGURATION plain (COPY = simple);
CREATE PUBLICATION everything FOR ALL TABLES;
CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER watched ON ddl_command_end EXECUTE FUNCTION watch();
SELECT lo_create(4242);
SELECT lo_from_bytea(4243, decode(repeat('00ff', 50000), 'hex'));
COMMENT ON LARGE OBJECT 4243 IS 'a large one';
SELECT nextval('invoice'), nextval('invoice');
