// Records and batches for the tests of the ClickHouse adapter.
import { from, lastValueFrom, type ObservableInput } from 'rxjs';
import type { KafkaRecord, RecordHeaders } from '../../src/model/record.js';
import type { Intent } from '../../src/model/state.js';
import { dedupToken } from '../../src/model/token.js';
import type { PreparingSink, InsertBatch } from '../../src/ports.js';

export const TIMESTAMP_MS = 1_763_800_200_123;

export interface RecordFields {
  readonly key?: string | Buffer | null;
  readonly headers?: RecordHeaders;
  readonly timestampMs?: number;
}

/** A value that is no string or Buffer is sent as its JSON. */
export function record(
  offset: number,
  value: unknown,
  { key = null, headers = [], timestampMs = TIMESTAMP_MS }: RecordFields = {},
): KafkaRecord {
  const bytes = Buffer.isBuffer(value) ? value : Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
  return { offset, timestampMs, key: typeof key === 'string' ? Buffer.from(key) : key, value: bytes, headers };
}

export interface BatchFields {
  readonly topic?: string;
  readonly partition?: number;
  readonly token?: string | undefined;
  readonly intent?: Intent | undefined;
  readonly replay?: boolean;
}

export function batchOf(records: readonly KafkaRecord[], fields: BatchFields = {}): InsertBatch {
  const { topic = 'orders', partition = 0, replay = false } = fields;
  const first = records[0]?.offset ?? 0;
  const last = records.at(-1)?.offset ?? 0;
  return {
    assignment: { topic, partition, assignmentId: 1, generation: 1, startOffset: 0 },
    afterOffset: first - 1,
    lastOffset: last,
    records,
    bytes: records.reduce((sum, { value }) => sum + (value?.length ?? 0), 0),
    token:
      'token' in fields
        ? fields.token
        : dedupToken({
            cluster: 'test',
            group: 'g',
            topic,
            incarnation: 0,
            partition,
            intent: { first, last, excluded: [] },
          }),
    intent: fields.intent,
    replay,
  };
}

/** The intent as the pipeline would have recorded it before this batch. */
export function intentOf(sink: PreparingSink, batch: InsertBatch): Intent {
  return {
    first: batch.afterOffset + 1,
    last: batch.lastOffset,
    rows: batch.records.length,
    atMs: Date.now(),
    excluded: [],
    ...sink.describe(batch.assignment.topic),
  };
}

export function outcome<T>(input: ObservableInput<T>): Promise<T> {
  return lastValueFrom(from(input));
}

export function numbers(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => first + index);
}
