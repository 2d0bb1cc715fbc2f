/**
 * Not one of the six: transformRows. One's own code between the stages, a record at a time.
 * Imports: errors, events, model, rxjs.
 */
import { map, type OperatorFunction } from 'rxjs';
import { IngestError } from '../../src/errors.js';
import { ignoreEvents, type OnEvent } from '../../src/events.js';
import { bytesOf } from '../../src/model/batch.js';
import { stringifyExact } from '../../src/model/exact-json.js';
import type { Batch, KafkaRecord } from '../../src/model/record.js';

/**
 * What has such a tag is a Map, a Set, a promise, a buffer: JSON would make {} of it. What can be iterated is a list.
 */
interface NoRow {
  readonly [Symbol.toStringTag]?: never;
  readonly [Symbol.iterator]?: never;
}

/**
 * A row as an object (it becomes JSON; bigints and `ExactNumber`s keep all their digits), or as the bytes of one JSON
 * object.
 */
export type Row = (object & NoRow) | Uint8Array;

/** None (`null`, `undefined`, `[]`), one or several rows of one record. */
export type Transform = (
  record: KafkaRecord,
  assignment: Batch['assignment'],
) => Row | readonly Row[] | null | undefined;

/** Who is told of records that the transform left out. */
export interface TransformConfig {
  readonly onEvent?: OnEvent;
}

/**
 * Makes rows of records: custom transforms before the insert. Offsets stay with what comes of a record, so ranges,
 * tokens and provenance are not touched.
 *
 * In plain words: `map`, `filter` and `flatMap` over the records inside a batch.
 *
 * ```
 * source:  -a---|     a: offsets 1, 2 and 3, a record each
 *          transformRows(r => r.offset === 2 ? null : { twice: 2 * r.offset })
 *          -A---|     A: the same range, two rows: {"twice":2} and {"twice":6}
 * ```
 *
 * A replay transforms the records again, so the same record must give rows for the same ClickHouse partitions each
 * time: do not use the clock or a random number for a column of PARTITION BY. Records that give no row are counted in
 * the event `filtered`.
 *
 * @throws Into the stream: `KCR_TRANSFORM` with the record's topic, partition and offset when `transform` throws or
 * gives what is not a row.
 */
export function transformRows<B extends Batch>(
  transform: Transform,
  config: TransformConfig = {},
): OperatorFunction<B, B> {
  const { onEvent = ignoreEvents } = config;
  return map((batch) => {
    const records: KafkaRecord[] = [];
    let filtered = 0;
    for (const record of batch.records) {
      const made = rowsOfRecord(transform, record, batch.assignment);
      if (made.length === 0) filtered += 1;
      // Not as arguments, of which a call takes about a hundred thousand.
      for (const row of made) records.push(row);
    }
    if (filtered > 0) onEvent({ kind: 'filtered', assignment: batch.assignment, records: filtered });
    return { ...batch, records, bytes: bytesOf(records) };
  });
}

/** The rows of one record, each as a record with the row for its value. @throws `KCR_TRANSFORM` */
export function rowsOfRecord(
  transform: Transform,
  record: KafkaRecord,
  assignment: Batch['assignment'],
): readonly KafkaRecord[] {
  return rowsOf(transform, record, assignment).map((row) => ({
    ...record,
    value: bytesOfRow(row, record, assignment),
  }));
}

function rowsOf(transform: Transform, record: KafkaRecord, assignment: Batch['assignment']): readonly Row[] {
  try {
    const made = transform(record, assignment);
    if (made === null || made === undefined) return [];
    return isRows(made) ? made : [made];
  } catch (thrown) {
    throw failed(
      `The transform threw ${thrown instanceof Error ? thrown.message : String(thrown)}`,
      record,
      assignment,
      thrown,
    );
  }
}

function isRows(made: Row | readonly Row[]): made is readonly Row[] {
  return Array.isArray(made);
}

function bytesOfRow(row: Row, record: KafkaRecord, assignment: Batch['assignment']): Buffer {
  if (row instanceof Uint8Array)
    return Buffer.isBuffer(row) ? row : Buffer.from(row.buffer, row.byteOffset, row.byteLength);
  const kind = kindOf(row);
  if (kind === 'a promise') {
    throw failed(
      'The transform gave a promise, and rows are made at once: transformBatches and transformThrough wait',
      record,
      assignment,
    );
  }
  if (kind !== 'object') {
    throw failed(`The transform gave ${kind} as a row, expected an object or a Uint8Array`, record, assignment);
  }
  const json = jsonOf(row, record, assignment);
  if (json?.startsWith('{') !== true) {
    throw failed(`The row becomes ${json?.slice(0, 60)}, expected a JSON object`, record, assignment);
  }
  return Buffer.from(json);
}

/** Of what JSON would make something else than a row: what it is. */
function kindOf(row: unknown): string {
  if (row === null || typeof row !== 'object') return row === null ? 'null' : typeof row;
  if (Array.isArray(row)) return 'an array';
  if ('then' in row && typeof row.then === 'function') return 'a promise';
  // [object Map], [object Date]: whatever is no plain object and no instance of a class of one's own.
  const tag = Object.prototype.toString.call(row).slice(8, -1);
  return tag === 'Object' ? 'object' : `${/^[AEIO]/.test(tag) ? 'an' : 'a'} ${tag}`;
}

function jsonOf(row: Row, record: KafkaRecord, assignment: Batch['assignment']): string | undefined {
  try {
    return stringifyExact(row);
  } catch (thrown) {
    throw failed(`The row cannot become JSON: ${String(thrown)}`, record, assignment, thrown);
  }
}

function failed(
  what: string,
  record: KafkaRecord,
  { topic, partition }: Batch['assignment'],
  cause?: unknown,
): IngestError {
  return new IngestError('KCR_TRANSFORM', what, {
    topic,
    partition,
    offset: record.offset,
    cause,
    hint: 'mend the transform and start again; the partition goes on at this record',
  });
}
