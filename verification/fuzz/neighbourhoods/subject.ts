// The shipped way of a batch into a table: its range recorded, inserted, records at fault left out.
import { NEVER, firstValueFrom, from, of, toArray, type Observable } from 'rxjs';
import { insertDeduped } from '../../../operators/insert-deduped.js';
import { partitionOf } from '../../../operators/internal/partition.js';
import { reconcileWithState } from '../../../operators/reconcile-with-state.js';
import { openClickHouseSink } from '../../../src/clickhouse/sink.js';
import { IngestError } from '../../../src/errors.js';
import { Ledger } from '../../../src/ledger.js';
import type { Assignment, Batch, KafkaRecord } from '../../../src/model/record.js';
import type { PreparingSink, PreparedInsert, InsertBatch } from '../../../src/ports.js';
import type { BufferedBatch } from '../../../src/stages.js';
import { memoryStore } from '../../../src/state/memory.js';
import type { FuzzRecord } from './records.js';

export interface Ingested {
  /** Offsets that were left out. */
  readonly excluded: readonly number[];
  /** Why the partition stopped; undefined: it did not. */
  readonly error: { readonly code: string; readonly detail: string } | undefined;
}

const retry = { minDelayMs: 20, maxDelayMs: 500, maxAttempts: 8, jitter: 0 } as const;
const source = {
  commit: () => of(undefined),
  cluster: () => of('fuzz'),
  log: () => of({ start: 0, end: Number.MAX_SAFE_INTEGER }),
  seek: () => of(undefined),
};

export function openSink(
  url: string,
  routes: readonly { readonly topic: string; readonly table: string }[],
): Promise<PreparingSink> {
  return openClickHouseSink({ url, routes, maxInFlight: 12 });
}

export async function ingest(
  sink: PreparingSink,
  topic: string,
  partition: number,
  batches: readonly (readonly FuzzRecord[])[],
): Promise<Ingested> {
  const first = batches[0]?.[0]?.offset ?? 0;
  const assignment: Assignment = { topic, partition, assignmentId: 1, generation: 1, startOffset: first };
  const ledger = new Ledger(memoryStore(), source, { group: 'fuzz', owner: 'fuzz', maxPending: 16 });
  const excluded: number[] = [];
  const delivered$ = from(batchesOf(assignment, batches)).pipe(
    reconcileWithState(partitionOf(source, assignment, NEVER), ledger, sink),
    insertDeduped(sink, {
      onPoison: 'exclude',
      retry,
      onEvent: (event) => {
        if (event.kind === 'excluded' && event.record !== undefined) excluded.push(event.record.offset);
      },
    }),
    toArray(),
  );
  return { error: await errorOf(delivered$), excluded };
}

function batchesOf(assignment: Assignment, batches: readonly (readonly FuzzRecord[])[]): BufferedBatch[] {
  let afterOffset = assignment.startOffset - 1;
  return batches.map((records) => {
    const batch: Batch = {
      assignment,
      afterOffset,
      lastOffset: records.at(-1)?.offset ?? afterOffset,
      records: records.map(({ offset, timestampMs, key, value, headers }): KafkaRecord => ({
        offset,
        timestampMs,
        key,
        value,
        headers,
      })),
      bytes: records.reduce((sum, { value, key }) => sum + value.length + (key?.length ?? 0), 0),
    };
    afterOffset = batch.lastOffset;
    return batch as BufferedBatch;
  });
}

async function errorOf(delivered$: Observable<unknown>): Promise<Ingested['error']> {
  try {
    await firstValueFrom(delivered$);
    return undefined;
  } catch (thrown) {
    if (!(thrown instanceof IngestError)) return { code: 'no IngestError', detail: String(thrown) };
    return { code: `${thrown.code}, server code ${String(thrown.fields.serverCode)}`, detail: thrown.detail };
  }
}

/** Broken on purpose: of two records at fault the next one is blamed. */
export function blamesTheNext(sink: PreparingSink): PreparingSink {
  return {
    describe: (topic) => sink.describe(topic),
    close: () => sink.close(),
    prepare: (batch: InsertBatch): PreparedInsert => {
      try {
        return sink.prepare(batch);
      } catch (thrown) {
        if (!(thrown instanceof IngestError)) throw thrown;
        const index = batch.records.map(({ offset }) => offset).indexOf(thrown.fields.offset ?? -1);
        throw new IngestError(thrown.code, thrown.detail, {
          ...thrown.fields,
          offset: batch.records.at(index + 1)?.offset ?? thrown.fields.offset,
        });
      }
    },
  };
}
