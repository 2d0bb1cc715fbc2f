CREATE TABLE IF NOT EXISTS default.flights
(
    date DateTime64(3),
    delay Int16,
    distance Int16,
    origin String,
    destination String,
    _topic LowCardinality(String),
    _partition UInt32,
    _offset UInt64
)
ENGINE = MergeTree
ORDER BY (origin, date)
SETTINGS non_replicated_deduplication_window = 10000;
