/**
 * What can be said against a batch before anything of it is sent. Pure.
 * Imports: clickhouse/schema, clickhouse/verify, errors, events, kernel, model, ports.
 */
import { IngestError } from '../../errors.js';
import type { OnEvent } from '../../events.js';
import type { InsertBatch } from '../../ports.js';
import {
  checkValues,
  FaultKind,
  faultText,
  type IndexedFault,
  type ProvenanceName,
  type ReservedNames,
  reservedNames,
} from '../../kernel/index.js';
import { cursorOver } from '../../model/packed-records.js';
import type { KafkaRecord, Records } from '../../model/record.js';
import { LAST_TIME_MS, type Provenance } from './encode.js';
import { batchLimits, type BlockLimits, fitOf, oversized, type Sent } from './block-limits.js';
import { type Where, whereOf } from '../verify/look-errors.js';
import type { Table, TableName } from '../schema/table.js';

/**
 * Throws for a range that was recorded for another table: whether it is there would be asked, and filled, at the wrong
 * place.
 */
export function checkTable(
  { assignment: { topic, partition }, intent }: InsertBatch,
  { database, table }: TableName,
): void {
  const now = `${database}.${table}`;
  const recorded = intent?.tables ?? [];
  if (intent === undefined || recorded.length === 0 || recorded.every((name) => name === now)) return;
  throw new IngestError(
    'KCR_READ_BACK',
    `the range in doubt was recorded for the table ${recorded.join(', ')}, but the route of its topic names ${now} now`,
    {
      topic,
      partition,
      first: intent.first,
      last: intent.last,
      table: now,
      hint:
        `go back to the route with ${recorded.join(', ')}, let everything in doubt be resolved ` +
        '("kafka-clickhouse-rx drain"), then change it; or look the range up by hand and set what ' +
        'is settled with "kafka-clickhouse-rx state reset"',
    },
  );
}

/**
 * What a value may not have on its first level: the provenance columns that are spliced into it. Which of two equal
 * fields ClickHouse takes depends on its version, its settings and the other columns, so it never gets to choose.
 */
export function reservedBy({ topic, partition, offset, timestamp, key, headers }: Provenance): ReservedNames {
  const spliced: readonly (readonly [ProvenanceName, boolean])[] = [
    ['_topic', topic],
    ['_partition', partition],
    ['_offset', offset],
    ['_timestamp', timestamp !== undefined],
    ['_key', key !== undefined],
    ['_headers', headers !== undefined],
  ];
  return reservedNames(spliced.filter(([, isSpliced]) => isSpliced).map(([name]) => name));
}

/**
 * Throws for the first record that is not one row of its own, or whose rows are more than one block; and for a batch
 * that is more than one, with where to cut it. `sent`: by what the sink tells whether an earlier process may have sent
 * it.
 */
export function checkRecords(
  batch: InsertBatch,
  into: Pick<Table, 'database' | 'table' | 'provenance'>,
  sent: Sent,
  limits: BlockLimits = batchLimits,
): void {
  const { records } = batch;
  const { bytes, fault } = checkValues(cursorOver(records), reservedBy(into.provenance));
  const { first, last, ...where } = whereOf(batch, into);
  if (fault !== undefined) throw poisoned(records.at(fault.index), fault, where);
  if (records.length > limits.rows || bytes > limits.bytes)
    throw tooLarge(batch, bytes, { sent, limits, where: { ...where, first, last } });
}

/** A batch of records as they are read is never as large: a transform has made several rows of each. */
function tooLarge(
  batch: InsertBatch,
  bytes: number,
  { sent, limits, where }: { readonly sent: Sent; readonly limits: BlockLimits; readonly where: Where },
): IngestError {
  const { records } = batch;
  const { first: _first, last: _last, ...whereOfRecord } = where;
  const fit = fitOf(records, limits);
  const most = `at most ${limits.rows} rows and ${limits.bytes} bytes, which is half a block of ClickHouse`;
  if (fit.kind === 'record') {
    return new IngestError(
      'KCR_POISON',
      `the ${fit.rows} rows of one record, of ${fit.bytes} bytes, are more than one insert may have: ${most}`,
      {
        ...whereOfRecord,
        offset: fit.offset,
        hint: 'let the transform make fewer rows of such a record, or none; or produce it in parts',
      },
    );
  }
  return new IngestError(
    'KCR_CONFIG',
    `a batch of ${records.length} rows and ${bytes} bytes is more than one insert may have: ${most}`,
    {
      ...where,
      oversized: oversized(batch, fit.cuts, sent),
      hint: 'give insertDeduped the ledger that recorded the range: it is then recorded again in parts that fit',
    },
  );
}

/**
 * Tells how many records have a time that no DateTime64 can hold, as of a producer that counts in micro- or
 * nanoseconds; -1 is Kafka's word for none.
 */
export function tellOfTimes(
  { assignment, afterOffset, lastOffset }: InsertBatch,
  sent: Records,
  onEvent: OnEvent,
): void {
  let records = 0;
  for (const cursor = cursorOver(sent); cursor.next();)
    if (cursor.timestampMs > LAST_TIME_MS || cursor.timestampMs < -1) records += 1;
  if (records > 0) onEvent({ kind: 'timesOutside', assignment, first: afterOffset + 1, last: lastOffset, records });
}

function poisoned(
  record: KafkaRecord | undefined,
  fault: IndexedFault,
  where: Omit<Where, 'first' | 'last'>,
): IngestError {
  return new IngestError('KCR_POISON', `the value ${faultText(fault, record?.value ?? new Uint8Array(0))}`, {
    ...where,
    offset: record?.offset,
    hint:
      fault.kind === FaultKind.ReservedName
        ? 'a transform can rename the field, or take it out; or drop the column, if it is not to tell where a row ' +
          'comes from'
        : 'a transform can drop such records or turn them into one JSON object each',
  });
}
