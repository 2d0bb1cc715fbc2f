/**
 * Stage 5 of 6: insertDeduped. Batches go into the table, each exactly once.
 * Imports: errors, events, ledger, model, operators/internal, ports, retry, rxjs, stages.
 */
import {
  asyncScheduler,
  catchError,
  map,
  of,
  tap,
  throwError,
  type Observable,
  type OperatorFunction,
  type SchedulerLike,
} from 'rxjs';
import { IngestError, asIngestError, hasCode } from '../src/errors.js';
import { ignoreEvents, type Delivered, type OnEvent } from '../src/events.js';
import type { PartitionLedger } from '../src/ledger.js';
import { bytesOf, indexAfter } from '../src/model/batch.js';
import { cursorOver } from '../src/model/packed-records.js';
import type { Batch } from '../src/model/record.js';
import type { InsertBatch } from '../src/ports.js';
import type { RetryConfig } from '../src/retry.js';
import type { Cut, InsertableBatch, InsertedFrom } from '../src/stages.js';
import { countAbandoned } from './internal/count-abandoned.js';
import { rangeOf, type Part, type Stage } from './internal/batch-attempt.js';
import { insertAll } from './internal/insert-all.js';
import { mapInOrder } from './internal/map-in-order.js';
import { preparing, type InsertSink } from './internal/preparing.js';
import { unbroken } from './internal/unbroken.js';

export type { InsertSink } from './internal/preparing.js';

/** How many inserts of a partition are under way, how they are retried, and what is done about a refused record. */
export interface InsertConfig {
  /** Batches of one partition that may be under way at once; results come out in order. @default 2 */
  readonly concurrency?: number;
  readonly retry?: RetryConfig;
  /**
   * A record that the table cannot take: `halt` the partition, or `exclude` the record from its batch, which is told in
   * the event `excluded`. At most a hundred of one batch, and not most of it: then the table is wrong, or the topic.
   * @default 'halt'
   */
  readonly onPoison?: 'halt' | 'exclude';
  /**
   * A record without a value that came as far as here: `halt` the partition, or `skip` it. It makes no row, so the
   * batch and its token are the same without it: nothing is recorded, any number may be skipped, and the event
   * `tombstones` counts them. @default as `onPoison` says: 'skip' for 'exclude'
   */
  readonly onTombstone?: 'halt' | 'skip' | undefined;
  readonly onEvent?: OnEvent;
  /** @default asyncScheduler */
  readonly scheduler?: SchedulerLike;
}

/**
 * Inserts each batch and emits it as delivered, in order, once the server's answer was read to its end. A failed
 * attempt is made again with the same bytes and the same token. After an ambiguous one (the connection broke, the
 * server was restarted), and for every replay, a table whose server can forget the rows but not the token is read back
 * and filled with exactly what is missing. A range whose token the server may have forgotten is looked for before it is
 * sent: what is there already is not sent again.
 *
 * What was done with a batch before decides the rest. Of a recorded one whatever is changed about its range is recorded
 * first. Of a committed one an attempt that may have landed is not made again: the batch is abandoned, and its rows are
 * counted in the event `abandoned`. Any other is sent again, which may double rows that no token protects.
 *
 * In plain words: asks again until the server says yes, with a name on the parcel so that it is taken in only once.
 *
 * ```
 * source:    -b---c------|
 * insert b:   --d  --k           d = in doubt; after a wait the same bytes again; k = answered
 * insert c:       --k            is under way meanwhile, and waits for its turn
 *            insertDeduped(sink, { retry: { minDelayMs: 3, jitter: 0 } })
 *            --------(BC)|
 * ```
 *
 * A batch that is refused for a record which nobody names is inserted in parts until the record is found: each part is
 * recorded as a range of its own first, and is delivered as one. The others of the batch are in the table then.
 *
 * A batch without records passes at once, in its turn. So does an error of the source, when what is under way before
 * it is delivered; only `KCR_FENCED` drops that at once.
 *
 * @throws Into the stream: `KCR_POISON` with the record's offset, `KCR_SCHEMA`, `KCR_INSERT_FATAL`, `KCR_READ_BACK`;
 * `KCR_TRANSFORM` where one of your operators dropped a batch or changed its range.
 * Nothing of the failed batch was settled.
 */
export function insertDeduped<B extends InsertableBatch>(
  sink: InsertSink,
  config: InsertConfig = {},
): OperatorFunction<B, InsertedFrom<B>> {
  const {
    concurrency = 2,
    retry = {},
    onPoison = 'halt',
    onTombstone = onPoison === 'exclude' ? 'skip' : 'halt',
    onEvent = ignoreEvents,
    scheduler = asyncScheduler,
  } = config;
  if (!Number.isInteger(concurrency) || concurrency < 1) {
    throw new IngestError('KCR_CONFIG', `Expected \`concurrency\` to be a positive integer, got ${concurrency}`);
  }
  const shared = { sink: preparing(sink), onPoison, retry, scheduler };
  // A former owner stops at once; behind any other error what is under way is finished.
  const isUrgent = (error: unknown) => hasCode(error, 'KCR_FENCED');
  const insert = (telling: OnEvent) =>
    mapInOrder(
      (given: Given) => {
        const { ledger, isCommitted, batch } = unpacked(given);
        const stage: Stage = { ...shared, onEvent: telling, ledger, whenInDoubt: isCommitted ? 'abandon' : 'retry' };
        const kind = isCommitted ? 'delivered' : 'inserted';
        return deliver(onTombstone === 'skip' ? withoutTombstones(batch, telling) : batch, stage).pipe(
          map((delivered) => ({ ...delivered, kind })),
        );
      },
      concurrency,
      isUrgent,
    );
  return (batches) =>
    batches.pipe(unbroken<Given>(), countAbandoned(insert, onEvent)) as unknown as Observable<InsertedFrom<B>>;
}

/** Any of the three, as it comes. */
interface Given extends Batch, Partial<Omit<InsertBatch, keyof Batch>> {
  readonly cut?: Cut;
  readonly ledger?: PartitionLedger;
  readonly isCommitted?: true;
}

/** What goes to the sink, and what the stage itself needs to know. */
function unpacked({ cut: _, ledger, isCommitted, ...batch }: Given): {
  readonly batch: InsertBatch;
  readonly ledger: PartitionLedger | undefined;
  readonly isCommitted: boolean;
} {
  return {
    batch: { intent: undefined, token: undefined, replay: false, ...batch },
    ledger,
    isCommitted: isCommitted === true,
  };
}

/** Of a batch that was committed before its insert. */
function lost(error: IngestError, batch: InsertBatch): IngestError {
  const range = rangeOf(batch);
  return new IngestError(
    error.code,
    `${error.reason}; the ${batch.records.length} records of the offsets ${range} are lost to the table: ` +
      'at-most-once had committed them before the insert',
    {
      ...error.fields,
      hint: error.fields.hint ?? `ingest ${range} by a group of its own, or choose at-least-once`,
      cause: error,
    },
  );
}

function withoutTombstones(batch: InsertBatch, onEvent: OnEvent): InsertBatch {
  const { assignment, afterOffset, lastOffset, replay } = batch;
  let count = 0;
  for (const cursor = cursorOver(batch.records); cursor.next();) if (cursor.valueLength < 0) count += 1;
  if (count === 0) return batch;
  onEvent({ kind: 'tombstones', assignment, first: afterOffset + 1, last: lastOffset, records: count, replay });
  const records = batch.records.filter(({ value }) => value !== null);
  return { ...batch, records, bytes: bytesOf(records) };
}

function deliver(batch: InsertBatch, stage: Stage): Observable<Delivered> {
  const { assignment, afterOffset, lastOffset, replay } = batch;
  let upTo = afterOffset;
  const abandoned = (error: IngestError): Part => {
    const { records } = batch;
    const rest = { ...batch, afterOffset: upTo, records: records.slice(indexAfter(records, upTo)) };
    stage.onEvent({
      kind: 'abandoned',
      assignment,
      first: upTo + 1,
      last: lastOffset,
      rows: rest.records.length,
      error,
    });
    return { batch: rest, result: { rows: 0, bytes: 0 } };
  };
  return insertAll(batch, stage).pipe(
    catchError((thrown: unknown) => {
      if (stage.whenInDoubt !== 'abandon') return throwError(() => thrown);
      const error = asIngestError(thrown, 'KCR_INTERNAL', 'an insert failed');
      const part = abandoned(error);
      return hasCode(error, 'KCR_INSERT_IN_DOUBT') ? of(part) : throwError(() => lost(error, part.batch));
    }),
    tap((part) => (upTo = part.batch.lastOffset)),
    map((part): Delivered => ({
      kind: 'delivered',
      assignment,
      afterOffset: part.batch.afterOffset,
      lastOffset: part.batch.lastOffset,
      ...part.result,
      replay,
    })),
  );
}
