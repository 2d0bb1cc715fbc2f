/**
 * A plain Observable of records as a source: one partition, without a broker. Imports: errors, model, ports, rxjs.
 */
import {
  Observable,
  concat,
  defer,
  from,
  ignoreElements,
  map,
  of,
  skipWhile,
  throwError,
  timer,
  type ObservableInput,
  type SchedulerLike,
  type Subscriber,
  type Subscription,
} from 'rxjs';
import { IngestError, asIngestError } from './errors.js';
import { bytesOf } from './model/batch.js';
import type { Assignment, KafkaRecord } from './model/record.js';
import type { GroupSource, SeekableSource, SourceEvent } from './ports.js';

/** A record of one's own: what is not given is filled in. */
export interface PlainRecord extends Partial<Omit<KafkaRecord, 'value'>> {
  readonly value: Uint8Array | string | null;
  /** @default one more than that of the record before it */
  readonly offset?: number;
}

/** What an Observable of records stands for: one partition of one topic. */
export interface FromRecordsConfig {
  readonly topic: string;
  /** @default 0 */
  readonly partition?: number;
  /**
   * Names the place the records come from, as Kafka's cluster id does: a part of every token and state key. @default
   * 'records'
   */
  readonly cluster?: string;
  /** Where it begins while nothing was committed. @default 0 */
  readonly startOffset?: number;
  /** Keeps how far it has got. @default it is forgotten with the process */
  readonly commit?: (nextOffset: number) => ObservableInput<void>;
  /** For the wait before a partition that has halted begins again. @default asyncScheduler */
  readonly scheduler?: SchedulerLike;
}

/** Before a partition begins again, where nobody says when. */
const REASSIGN_MS = 1_000;

/**
 * One partition out of an Observable of records. It goes back (after a halt, and to where a state says) by subscribing
 * again: give a function that begins at an offset, or a cold Observable, of which what is before that is skipped.
 *
 * ```
 * records:  -a-b-|           offsets 0 and 1
 *           fromRecords(records, { topic: 'clicks' }).events
 *           (Aa)… -b-R|      A: assigned at once; R: revoked, completes when that is released
 * ```
 *
 * There is no back-pressure in it: records that come faster than they are inserted are kept in memory.
 */
export function fromRecords(
  records: Observable<PlainRecord> | ((fromOffset: number) => Observable<PlainRecord>),
  config: FromRecordsConfig,
): SeekableSource & Required<Pick<GroupSource, 'halt' | 'reassign' | 'drain'>> {
  const { topic, partition = 0, cluster = 'records', startOffset = 0, commit } = config;
  let committed: number | undefined;
  let assignmentIds = 0;
  let current: Reading | undefined;

  const isCurrent = ({ assignmentId }: Assignment): boolean => current?.assignment.assignmentId === assignmentId;
  const assignmentAt = (): Assignment => ({
    topic,
    partition,
    assignmentId: ++assignmentIds,
    generation: 1,
    startOffset: committed ?? startOffset,
    committed,
  });
  const only = (assignment: Assignment, act: (reading: Reading) => Observable<void>): Observable<void> =>
    defer(() =>
      current !== undefined && isCurrent(assignment)
        ? act(current)
        : throwError(() => new IngestError('KCR_FENCED', 'The partition is not ours any more', { topic, partition })),
    );
  const begin = (subscriber: Subscriber<SourceEvent>): void => {
    current = new Reading(assignmentAt(), beginningAt(records), subscriber);
    current.begin();
  };

  return {
    events: new Observable<SourceEvent>((subscriber) => {
      begin(subscriber);
      return () => {
        current?.stop();
        current = undefined;
      };
    }),
    cluster: () => of(cluster),
    log: () => of({ start: 0, end: Number.MAX_SAFE_INTEGER }),
    seek: (assignment, offset) => only(assignment, (reading) => (reading.read(offset), of(undefined))),
    commit: (assignment, nextOffset) =>
      only(assignment, () =>
        concat(
          commit === undefined ? of() : from(commit(nextOffset)).pipe(ignoreElements()),
          defer(() => ((committed = nextOffset), of(undefined))),
        ),
      ),
    halt: (assignment) => (isCurrent(assignment) ? current?.stop() : undefined),
    reassign: (assignment, afterMs = REASSIGN_MS) => {
      if (!isCurrent(assignment)) return;
      const { subscriber } = current!;
      current!.stop();
      current = undefined;
      subscriber.next({ kind: 'lost', assignment });
      subscriber.add(
        timer(afterMs, config.scheduler).subscribe({
          next: () => begin(subscriber),
          error: (error: unknown) => subscriber.error(error),
        }),
      );
    },
    drain: () => current?.finish(),
  };
}

type At = (offset: number) => Observable<PlainRecord & { readonly offset: number }>;

/** Records from an offset on, each with its own. */
function beginningAt(records: Observable<PlainRecord> | ((fromOffset: number) => Observable<PlainRecord>)): At {
  const counted = (begin: number) => {
    let next = begin;
    return map((record: PlainRecord) => {
      const { offset = next } = record;
      next = offset + 1;
      return { ...record, offset };
    });
  };
  if (typeof records === 'function') return (offset) => defer(() => records(offset).pipe(counted(offset)));
  return (offset) =>
    defer(() =>
      records.pipe(
        counted(0),
        skipWhile((record) => record.offset < offset),
      ),
    );
}

/** One assignment, and what is read of it. */
class Reading {
  #reading: Subscription | undefined;
  #afterOffset = -1;
  #isOver = false;

  constructor(
    readonly assignment: Assignment,
    private readonly at: At,
    readonly subscriber: Subscriber<SourceEvent>,
  ) {}

  begin(): void {
    this.subscriber.next({ kind: 'assigned', assignment: this.assignment });
    // Whoever has the assignment may have sought already.
    if (this.#reading === undefined && !this.#isOver) this.read(this.assignment.startOffset);
  }

  read(offset: number): void {
    this.#reading?.unsubscribe();
    this.#afterOffset = offset - 1;
    const reading = this.at(offset).subscribe({
      next: (record) => this.#deliver(record),
      error: (thrown: unknown) =>
        this.subscriber.error(
          asIngestError(thrown, 'KCR_KAFKA', 'The records ended with an error', {
            topic: this.assignment.topic,
            partition: this.assignment.partition,
          }),
        ),
      complete: () => this.finish(),
    });
    this.#reading = reading;
  }

  stop(): void {
    this.#reading?.unsubscribe();
  }

  /** Nothing more comes: what is under way is finished, then the events complete. */
  finish(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.stop();
    this.subscriber.next({ kind: 'revoked', assignment: this.assignment, release: () => this.subscriber.complete() });
  }

  #deliver({
    value,
    offset,
    timestampMs = 0,
    key = null,
    headers = [],
  }: PlainRecord & { readonly offset: number }): void {
    const { assignment } = this;
    if (!Number.isSafeInteger(offset) || offset <= this.#afterOffset) {
      const { topic, partition } = assignment;
      return this.subscriber.error(
        new IngestError('KCR_OFFSET_RANGE', `Expected offsets to ascend, got ${offset} behind ${this.#afterOffset}`, {
          topic,
          partition,
          offset,
        }),
      );
    }
    const bytes =
      value === null
        ? null
        : typeof value === 'string'
          ? Buffer.from(value)
          : Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    const records: KafkaRecord[] = [{ offset, timestampMs, key, value: bytes, headers }];
    const chunk = {
      assignment,
      afterOffset: this.#afterOffset,
      lastOffset: offset,
      records,
      bytes: bytesOf(records),
      highWatermark: offset + 1,
    };
    this.#afterOffset = offset;
    this.subscriber.next({ kind: 'fetched', assignment, chunk });
  }
}
