-- The tables of crashmover, version 1, for PostgreSQL 12 or later.
-- May be run again: tables stay as they are, functions and views are replaced.

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

-- Return the document in a part if it is a JSON object on which every operator and cast works, and
-- else NULL: one crash must not make a query over many fail.  So a cast to jsonb is tried,
-- which reads every escape and number.  If an escape or a character is refused, the document is tried
-- again with U+FFFD in its place, or ? where the database's encoding is not UTF8.  Such are \u0000,
-- half of a surrogate pair, and characters that the encoding lacks.
CREATE OR REPLACE FUNCTION @schema@.crash_json(data bytea) RETURNS json
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    is_utf8 CONSTANT boolean := getdatabaseencoding() = 'UTF8';
    -- E'' strings, as a session may have standard_conforming_strings=off.
    instead CONSTANT text := CASE WHEN is_utf8 THEN E'\\ufffd' ELSE '?' END;
    headroom CONSTANT integer := 5000;
    large CONSTANT text := '[0-9][eE][-+]?[0-9]{3}';
    strings CONSTANT text := E'"(?:[^"\\\\]|\\\\.)*"';
    is_second_try boolean := false;
    document text;
BEGIN
    LOOP
        BEGIN
            IF is_utf8 OR NOT is_second_try THEN
                document := convert_from(data, 'UTF8');
            ELSE
                -- Each byte beyond ASCII is a backslash and three digits here, a backslash is two.
                document := regexp_replace(
                    encode(data, 'escape'), E'\\\\3[0-7]{2}(\\\\2[0-7]{2})+', instead, 'g'
                );
                document := replace(document, E'\\\\', E'\\');
            END IF;
            IF is_second_try THEN
                -- With the escaped backslashes out of the way, every \u begins an escape.
                document := replace(document, E'\\\\', E'\\u005c');
                IF is_utf8 THEN
                    document := replace(document, E'\\u0000', instead);
                    document := regexp_replace(
                        document, E'\\\\u[dD][89abAB]..(?!\\\\u[dD][c-fC-F]..)', instead, 'g'
                    );
                    document := regexp_replace(
                        document, E'(?<!\\\\u[dD][89abAB]..)\\\\u[dD][c-fC-F]..', instead, 'g'
                    );
                ELSE
                    document := regexp_replace(
                        document, E'\\\\u(0000|(?!00[0-7])[0-9a-fA-F]{4})', instead, 'g'
                    );
                END IF;
            END IF;
            -- A number like 1e131071 is short here, and long in the text of a jsonb.
            IF document ~ large AND regexp_replace(document, strings, '', 'g') ~ large THEN
                RETURN NULL;
            END IF;
            PERFORM document::jsonb;
            -- Other operators need more of the stack for each level than this cast.
            IF octet_length(document)
                - octet_length(replace(replace(document, '[', ''), '{', '')) > headroom
            THEN
                PERFORM (repeat('[', headroom) || document || repeat(']', headroom))::jsonb;
            END IF;
            RETURN CASE json_typeof(document::json) WHEN 'object' THEN document::json END;
        EXCEPTION
            WHEN untranslatable_character OR invalid_text_representation OR feature_not_supported
            THEN
                IF is_second_try THEN
                    RETURN NULL;
                END IF;
                is_second_try := true;
            WHEN OTHERS THEN
                RETURN NULL;
        END;
    END LOOP;
END
$$;

COMMENT ON FUNCTION @schema@.crash_json(bytea) IS '@views@';

-- A document of more than 32 MiB is NULL: a GiB fails, and as text a jsonb may be much longer.
CREATE OR REPLACE VIEW @schema@.raw_crashes AS
SELECT
    crash_id AS uuid,
    CASE WHEN max(chunk) < 32 THEN @schema@.crash_json(
        string_agg(data, ''::bytea ORDER BY chunk) FILTER (WHERE chunk < 32)
    ) END AS raw_crash,
    date_processed
FROM @schema@.crash_parts
WHERE kind = 'raw_crash'
GROUP BY crash_id, date_processed;

CREATE OR REPLACE VIEW @schema@.processed_crashes AS
SELECT
    crash_id AS uuid,
    CASE WHEN max(chunk) < 32 THEN @schema@.crash_json(
        string_agg(data, ''::bytea ORDER BY chunk) FILTER (WHERE chunk < 32)
    ) END AS processed_crash,
    date_processed
FROM @schema@.crash_parts
WHERE kind = 'processed_crash'
GROUP BY crash_id, date_processed;
