-- The tables of crashmover, version 1, for PostgreSQL 12 or later.
-- May be run again: what is there stays.

SELECT pg_advisory_xact_lock(hashtextextended('crashmover @name@', 0));

DO $$
BEGIN
    -- CREATE SCHEMA IF NOT EXISTS asks for a right that is not needed where it exists.
    IF to_regnamespace('@schema@') IS NULL THEN
        CREATE SCHEMA @schema@;
    END IF;
END
$$;

-- A part is one row, or several of at most a MiB each.  Its bytes are kept as they are: the
-- type jsonb would drop keys and refuse \u0000.
CREATE TABLE IF NOT EXISTS @schema@.crash_parts (
    date_processed timestamptz NOT NULL,         -- the day in the crash id, at midnight UTC
    crash_id uuid NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('raw_crash', 'dump', 'processed_crash')),
    name text COLLATE "C" NOT NULL,              -- of a dump; '' for the other kinds
    chunk integer NOT NULL,                      -- from 0
    data bytea NOT NULL,
    CHECK ((kind = 'dump') = (name <> '')),
    PRIMARY KEY (crash_id, date_processed, kind, name, chunk)
) PARTITION BY RANGE (date_processed);

-- What listings need: one entry for each raw and each processed crash.
CREATE INDEX IF NOT EXISTS crash_parts_by_day ON @schema@.crash_parts
    (kind, date_processed, crash_id) WHERE kind <> 'dump' AND chunk = 0;

-- Compressing minidumps costs much time and gains little.
ALTER TABLE @schema@.crash_parts ALTER COLUMN data SET STORAGE EXTERNAL;

COMMENT ON TABLE @schema@.crash_parts IS 'crashmover schema 1';

-- A week's partition is named by its Monday.  Whoever may run this function gets partitions
-- without the right to create tables.  A table is made first and then attached, so that
-- nobody who reads or saves has to wait.
CREATE OR REPLACE FUNCTION @schema@.make_partition(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
-- In other styles a time has an abbreviation of its zone, which may be another zone's, too: IST.
SET datestyle = 'ISO' SET timezone = 'UTC' AS $$
DECLARE
    monday date := date_trunc('week', day::timestamp)::date;
    partition text := 'crash_parts_' || to_char(monday, 'YYYYMMDD');
    -- The catalog is asked: to_regclass remembers what was there before the wait for the lock.
    found CONSTANT text := 'SELECT oid FROM pg_class WHERE relname = $1 AND relnamespace = $2';
    this_schema oid := to_regnamespace('@schema@');
    partition_id oid;
BEGIN
    -- Also where it is there: whoever has just made it lets go of this lock only when every other
    -- session is told of it, and before that a row may not find it.
    PERFORM pg_advisory_xact_lock(hashtextextended('crashmover @name@', 0));
    EXECUTE found INTO partition_id USING partition, this_schema;
    IF partition_id IS NULL THEN
        EXECUTE format(
            'CREATE TABLE @schema@.%I (LIKE @schema@.crash_parts INCLUDING ALL)', partition
        );
        EXECUTE format(
            'ALTER TABLE @schema@.crash_parts ATTACH PARTITION @schema@.%I FOR VALUES FROM (%L) TO (%L)',
            partition,
            monday::timestamp AT TIME ZONE 'UTC',
            (monday + 7)::timestamp AT TIME ZONE 'UTC'
        );
    ELSIF NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = partition_id) THEN
        RAISE EXCEPTION 'the table @name@.% is there and is not attached: attach it, or drop it',
            partition;
    END IF;
END
$$;

REVOKE ALL ON FUNCTION @schema@.make_partition(date) FROM PUBLIC;

-- What is not JSON, or not UTF-8, is NULL and not an error.
CREATE OR REPLACE FUNCTION @schema@.crash_json(data bytea) RETURNS json
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN convert_from(data, 'UTF8')::json;
EXCEPTION
    WHEN data_exception OR program_limit_exceeded THEN
        RETURN NULL;
END
$$;

CREATE OR REPLACE VIEW @schema@.raw_crashes AS
SELECT
    crash_id AS uuid,
    @schema@.crash_json(string_agg(data, ''::bytea ORDER BY chunk)) AS raw_crash,
    date_processed
FROM @schema@.crash_parts
WHERE kind = 'raw_crash'
GROUP BY crash_id, date_processed;

CREATE OR REPLACE VIEW @schema@.processed_crashes AS
SELECT
    crash_id AS uuid,
    @schema@.crash_json(string_agg(data, ''::bytea ORDER BY chunk)) AS processed_crash,
    date_processed
FROM @schema@.crash_parts
WHERE kind = 'processed_crash'
GROUP BY crash_id, date_processed;
