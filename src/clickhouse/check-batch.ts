/**
 * Room: what can be said against a batch before anything of it is sent. Pure.
 */
import { IngestError } from '../errors.js';
import type { InsertBatch } from '../ports.js';
import { cursorOver } from '../model/packed-records.js';
import { BackslashSearch, objectFault } from './json-object.js';
import { BLOCK_BYTES, BLOCK_ROWS } from './settings.js';
import type { TableName } from './tables.js';

/** A batch is one block of the server: half of the block's limits leaves room for what a row grows to in memory. */
const MAX_BATCH_ROWS = BLOCK_ROWS / 2;
const MAX_BATCH_BYTES = BLOCK_BYTES / 2;

/** Throws for a range that was recorded for another table: whether it is there would be asked, and filled, at the wrong place. */
export function checkTable({ assignment: { topic, partition }, intent }: InsertBatch, { database, table }: TableName): void {
  const now = `${database}.${table}`;
  const recorded = intent?.tables ?? [];
  if (intent === undefined || recorded.length === 0 || recorded.every((name) => name === now)) return;
  throw new IngestError('KCR_READ_BACK', `the range in doubt was recorded for the table ${recorded.join(', ')}, but the route of its topic names ${now} now`, {
    topic,
    partition,
    first: intent.first,
    last: intent.last,
    hint: `go back to the route with ${recorded.join(', ')}, let everything in doubt be resolved ("kafka-clickhouse-rx drain"), then change it; or look the range up by hand and set what is settled with "kafka-clickhouse-rx state reset"`,
  });
}

/** Throws for the first record that is not one JSON object, and for a batch that would be more than one block. */
export function checkRecords({ assignment: { topic, partition }, afterOffset, lastOffset, records }: InsertBatch): void {
  const search = new BackslashSearch();
  let bytes = 0;
  for (const cursor = cursorOver(records); cursor.next(); ) {
    const { offset, data, valueStart, valueLength } = cursor;
    const fault = valueLength < 0 ? 'is a tombstone: the message has no value' : objectFault(data, valueStart, valueStart + valueLength, search);
    if (fault !== undefined) {
      throw new IngestError('KCR_POISON', `the value ${fault}`, {
        topic,
        partition,
        offset,
        hint: 'a transform can drop such records or turn them into one JSON object each',
      });
    }
    bytes += valueLength;
  }
  if (records.length > MAX_BATCH_ROWS || bytes > MAX_BATCH_BYTES) {
    throw new IngestError('KCR_CONFIG', `a batch of ${records.length} rows and ${bytes} bytes is more than one block of ClickHouse may be`, {
      topic,
      partition,
      first: afterOffset + 1,
      last: lastOffset,
      hint: `make batches smaller than ${MAX_BATCH_ROWS} rows and ${MAX_BATCH_BYTES} bytes`,
    });
  }
}
