// An export of a table with provenance columns, ingested again: its own fields go under other names.
import { parseExact, type Transform } from 'kafka-clickhouse-rx/operators';

export const renameFields: Transform = ({ value }) => {
  const { _topic, _partition, _offset, ...rest } = parseExact(value) ?? {};
  return { ...rest, old_topic: _topic, old_partition: _partition, old_offset: _offset };
};
