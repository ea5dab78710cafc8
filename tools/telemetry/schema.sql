-- Measurements in PostgreSQL. Loading the same run twice changes nothing.

CREATE SCHEMA IF NOT EXISTS bench;

-- One boot of the suite.
CREATE TABLE IF NOT EXISTS bench.run (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL,
    revision  text NOT NULL,
    kernel    text NOT NULL,
    UNIQUE (at, revision, kernel)
);

-- One measured action of a run, in instructions.
CREATE TABLE IF NOT EXISTS bench.result (
    run       bigint NOT NULL REFERENCES bench.run ON DELETE CASCADE,
    name      text NOT NULL,
    min       bigint NOT NULL,
    q1        bigint NOT NULL,
    median    bigint NOT NULL,
    mean      double precision NOT NULL,
    q3        bigint NOT NULL,
    max       bigint NOT NULL,
    stddev    double precision NOT NULL,
    samples   bigint NOT NULL CHECK (samples > 0),
    PRIMARY KEY (run, name),
    CHECK (min <= q1 AND q1 <= median AND median <= q3 AND q3 <= max)
);

-- Takes one line of `history.jsonl`; true if it was new.
CREATE OR REPLACE FUNCTION bench.load(line jsonb) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    loaded bigint;
BEGIN
    INSERT INTO bench.run (at, revision, kernel)
    VALUES (to_timestamp((line->>'ts')::bigint), line->>'sha', line->>'kernel')
    ON CONFLICT DO NOTHING
    RETURNING id INTO loaded;
    IF loaded IS NULL THEN
        RETURN false;
    END IF;
    INSERT INTO bench.result
    SELECT loaded, key,
           (value->>0)::bigint, (value->>1)::bigint, (value->>2)::bigint,
           (value->>3)::double precision, (value->>4)::bigint, (value->>5)::bigint,
           (value->>6)::double precision, (value->>7)::bigint
    FROM jsonb_each(line)
    WHERE jsonb_typeof(value) = 'array';
    RETURN true;
END
$$;

-- Rows far above their median: what a mean would hide.
CREATE OR REPLACE VIEW bench.outlier AS
SELECT run.at, run.revision, run.kernel, result.name, result.median, result.max
FROM bench.result JOIN bench.run ON run.id = result.run
WHERE result.max > 2 * result.median;
