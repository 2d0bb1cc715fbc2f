// Room: for each invariant a pipeline that breaks just that one: ports that lie, and stages exchanged for broken ones.
// Nothing of it ships. A simulation that does not find one of them is blind.
import {
  EMPTY,
  Observable,
  Subject,
  catchError,
  concatMap,
  defer,
  delay,
  filter,
  from,
  ignoreElements,
  last,
  map,
  merge,
  of,
  throwError,
  type MonoTypeOperatorFunction,
  type ObservableInput,
} from 'rxjs';
import { bufferCountOrTime, commit, insertDeduped, partitionOf, reconcileWithState } from '../../operators/index.js';
import { exactlyOnce, type ExactlyOnceConfig } from '../../src/pipeline/exactly-once.js';
import { IngestError, hasCode } from '../../src/errors.js';
import { Ledger } from '../../src/ledger.js';
import type { Chunk } from '../../src/model/record.js';
import { dedupToken } from '../../src/model/token.js';
import { lastKnownOffset, type PartitionState } from '../../src/model/state.js';
import type {
  PreparingSink,
  Claim,
  Fetched,
  PreparedInsert,
  GroupSource,
  InsertBatch,
  InsertResult,
  Partition,
  SourceEvent,
  StateStore,
} from '../../src/ports.js';
import type { RecordedBatch } from '../../src/stages.js';
import type { Ignored, Invariant, Process } from '../../src/testing/index.js';
import { overlay } from '../../src/overlay.js';
import { configOf, withoutTombstones, type Compose } from './play.js';

export interface Sabotage {
  /** What is broken, in a sentence. */
  readonly means: string;
  readonly compose: Compose;
  /** The invariant that is broken. @default of the sabotage's name */
  readonly breaks?: Invariant;
  readonly isUnpinned?: boolean;
  readonly isTrusting?: boolean;
  readonly isForgetful?: boolean;
  readonly isCredulous?: boolean;
  readonly ignores?: Ignored;
}

/** What a sabotage exchanges; the rest is as it ships. */
interface Exchanged {
  readonly source?: GroupSource;
  readonly store?: StateStore;
  readonly sink?: PreparingSink;
  readonly transform?: MonoTypeOperatorFunction<RecordedBatch>;
}

function exchanging(exchange: (process: Process) => Exchanged): Compose {
  return (process, plan, scenario, dice) => {
    const { source = process.source, store = process.store, sink = process.sink, transform } = exchange(process);
    const config: ExactlyOnceConfig = {
      ...configOf(process, plan, scenario, dice),
      ...(transform === undefined ? {} : { transform: () => (batches) => transform(withoutTombstones(batches)) }),
    };
    return exactlyOnce(source, sink, store, config);
  };
}

/** Answers before it is done: the write goes out later, and nobody looks at its reply. */
function answersEarly({ store, scheduler }: Process): StateStore {
  const real = new Map<string, Observable<Claim>>();
  return {
    ...store,
    write: (claim, state) => {
      const before = real.get(claim.owner) ?? of(claim);
      const written = before.pipe(
        last(),
        delay(6, scheduler),
        concatMap((stored) => store.write(stored, state)),
        catchError(() => EMPTY),
        keep(),
      );
      real.set(claim.owner, written);
      return of({ ...claim, state });
    },
  };
}

/** Of ranges that are recorded in parts only. */
function recutsEarly(process: Process): StateStore {
  const { store } = process;
  const early = answersEarly(process);
  const isRecut = ({ pending }: PartitionState, after: PartitionState) =>
    after.pending.some(({ first, last }) =>
      pending.some((whole) => first >= whole.first && last <= whole.last && last - first < whole.last - whole.first),
    );
  let isEarly = false;
  return {
    ...store,
    write: (claim, state) =>
      (isEarly ||= isRecut(claim.state, state)) ? early.write(claim, state) : store.write(claim, state),
  };
}

/** Each failed insert told otherwise. */
function retelling(retold: (error: IngestError) => IngestError): (process: Process) => Exchanged {
  return ({ sink }) => ({
    sink: withFrozen(sink, (frozen) => ({
      insert: () =>
        from(frozen.insert()).pipe(
          catchError((error: unknown) => throwError(() => (error instanceof IngestError ? retold(error) : error))),
        ),
    })),
  });
}

/** Tells that a range which is to be recorded in parts is not in the table, without a look. */
function cutsBlindly(frozen: PreparedInsert, { records }: InsertBatch): Partial<PreparedInsert> {
  const missing = [...records].map(({ offset }) => offset);
  return {
    readBack: (why) => (why === 'a record of it is refused now' ? of({ missing, doubled: [] }) : frozen.readBack(why)),
  };
}

const answered = (error: IngestError): IngestError =>
  error.code === 'KCR_INSERT_IN_DOUBT'
    ? new IngestError(error.code, error.message, {
        ...error.fields,
        serverCode: error.fields.serverCode ?? 9999,
        divisible: 'perhaps',
      })
    : error;

const blamed = (error: IngestError): IngestError =>
  error.fields.divisible === 'perhaps'
    ? new IngestError('KCR_POISON', error.message, { ...error.fields, divisible: 'surely' })
    : error;

/** Runs at once, and gives its values to whoever comes later. */
function keep<T>(): MonoTypeOperatorFunction<T> {
  return (source) => {
    const values: T[] = [];
    const waiting = new Set<() => void>();
    let isDone = false;
    source.subscribe({
      next: (value) => values.push(value),
      complete: () => ((isDone = true), waiting.forEach((wake) => wake())),
    });
    return new Observable<T>((subscriber) => {
      const give = () => (values.forEach((value) => subscriber.next(value)), subscriber.complete());
      if (isDone) give();
      else waiting.add(give);
      return () => waiting.delete(give);
    });
  };
}

/** Each frozen insert changed. */
function withFrozen(
  sink: PreparingSink,
  change: (frozen: PreparedInsert, batch: InsertBatch) => Partial<PreparedInsert>,
): PreparingSink {
  // Methods and getters stay those of the sink.
  return overlay(sink, {
    prepare: (batch) => {
      const frozen = sink.prepare(batch);
      return overlay(frozen, change(frozen, batch));
    },
  });
}

const tokenFromReceived: MonoTypeOperatorFunction<RecordedBatch> = map((batch) => {
  const { token, intent, records, assignment } = batch;
  if (token === undefined || intent === undefined || records.length === 0) return batch;
  const received = { ...intent, first: records.at(0)!.offset, last: records.at(-1)!.offset };
  return {
    ...batch,
    token: dedupToken({
      cluster: 'simulated',
      group: 'g',
      topic: assignment.topic,
      topicId: assignment.topicId,
      incarnation: 0,
      partition: assignment.partition,
      intent: received,
    }),
  };
});

/** Forgets at the claim what was in doubt, as if it had been settled. */
function forgetsDoubt(store: StateStore): StateStore {
  return {
    ...store,
    claim: (key, owner) =>
      from(store.claim(key, owner)).pipe(
        map((claim) => ({ ...claim, state: { ...claim.state, settled: lastKnownOffset(claim.state), pending: [] } })),
      ),
  };
}

/** Writes on whatever version the store has: by claiming once more just before. */
function writesBlindly(store: StateStore): StateStore {
  return {
    ...store,
    write: (claim, state) =>
      from(store.claim(claim.key, claim.owner)).pipe(concatMap((now) => store.write(now, state))),
  };
}

/** Stores that a partition was started again with the first range behind it only. */
function forgetsRestarts(store: StateStore): StateStore {
  return {
    ...store,
    write: (claim, state) =>
      state.isOffsetReused === true && state.pending.length === 0 && claim.state.isOffsetReused !== true
        ? of({ ...claim, state })
        : store.write(claim, state),
  };
}

/** Emits success before the answer was read. */
function doesNotWait(frozen: PreparedInsert, { records }: InsertBatch): Partial<PreparedInsert> {
  return {
    insert: () => {
      from(frozen.insert()).subscribe({ error: () => undefined });
      return of({ rows: records.length, bytes: 0 });
    },
  };
}

/** Every seventh chunk is dropped, and the next one says that it covers its offsets too. */
function dropsChunks(source: GroupSource): GroupSource {
  let count = 0;
  const dropped = new Map<number, number>();
  const events = source.events.pipe(
    map((event): SourceEvent | undefined => {
      if (event.kind !== 'fetched') return event;
      const { assignmentId } = event.assignment;
      if (++count % 7 === 0) return void dropped.set(assignmentId, event.chunk.afterOffset);
      const afterOffset = dropped.get(assignmentId);
      dropped.delete(assignmentId);
      return afterOffset === undefined
        ? event
        : ({
            ...event,
            chunk: { ...event.chunk, afterOffset: Math.min(afterOffset, event.chunk.afterOffset) },
          } satisfies Fetched);
    }),
    filter((event) => event !== undefined),
  );
  return { ...source, events };
}

/** The stages over a groupByPartition that goes on with an assignment that was lost. */
function keepingTheLost(
  process: Process,
  { batch = {}, retry = {}, maxPending = 2, onPoison = 'halt' }: ExactlyOnceConfig,
): Observable<unknown> {
  const { source, sink, store, scheduler } = process;
  const ledger = new Ledger(store, source, {
    group: 'g',
    owner: process.name,
    maxPending,
    onReset: 'restart',
    retry,
    scheduler,
  });
  const stages = (partition: Partition): Observable<unknown> =>
    partition.chunks.pipe(
      bufferCountOrTime({ ...batch, scheduler }),
      reconcileWithState(partition, ledger, sink, { onGap: 'continue', scheduler }),
      withoutTombstones,
      insertDeduped(sink, { concurrency: maxPending, onPoison, retry, scheduler }),
      commit(partition, ledger),
    );
  return new Observable<unknown>((subscriber) => {
    const open = new Map<number, Subject<Chunk>>();
    const running = source.events.subscribe((event) => {
      const { assignment } = event;
      const chunks = open.get(assignment.assignmentId);
      if (event.kind === 'assigned') {
        const begun = new Subject<Chunk>();
        open.set(assignment.assignmentId, begun);
        running.add(
          stages(partitionOf(source, assignment, begun)).subscribe({ error: () => source.reassign(assignment) }),
        );
      }
      if (event.kind === 'fetched') chunks?.next(event.chunk);
      if (event.kind !== 'revoked') return;
      chunks?.complete();
      event.release();
    });
    subscriber.add(running);
  });
}

/** Inserts the rest without the record at fault, under the token of the whole, and tells nobody. */
function leavesOutSilently(sink: PreparingSink): PreparingSink {
  const insert = (batch: InsertBatch): ObservableInput<{ readonly rows: number; readonly bytes: number }> =>
    from(sink.prepare(batch).insert()).pipe(
      catchError((error: unknown) => {
        if (!hasCode(error, 'KCR_POISON')) return throwError(() => error);
        const records = batch.records.filter(({ offset }) => offset !== error.fields.offset);
        return records.length === 0 ? of({ rows: 0, bytes: 0 }) : insert({ ...batch, records });
      }),
    );
  return withFrozen(sink, (_frozen, batch) => ({ insert: () => insert(batch) }));
}

/** Fills again and again, each time under another token, until it sees what it filled. */
function fillsOn(frozen: PreparedInsert, batch: InsertBatch, sink: PreparingSink): Partial<PreparedInsert> {
  const fill = (missing: readonly number[], round: number): Observable<InsertResult> => {
    const again = round === 1 ? frozen : sink.prepare({ ...batch, token: `${batch.token}:round${round}` });
    return from(again.fill(missing)).pipe(
      last(),
      concatMap((filled) =>
        from(frozen.readBack()).pipe(
          concatMap((found) => (found.missing.length > 0 && round < 5 ? fill(found.missing, round + 1) : of(filled))),
          catchError(() => of(filled)),
        ),
      ),
    );
  };
  return { fill: (missing) => fill(missing, 1) };
}

/**
 * Each breaks the invariant of its name; the others what stands beside them: a token that may be forgotten is not relied
 * on (`expiry`), a server keeps the tokens of inserts that it writes together (`together`), and what it refuses them for
 * is not blamed on each (`blame`). A look minds which table it is (`table`), a fill that is not seen is not made again
 * (`fills`), the token names the group (`group`), and a restart is stored before it is told (`restart`). A range in doubt is fetched to its end though it be more than there is room for (`room`). A
 * range is recorded in parts only after a look (`look`) and when every attempt was answered (`answered`), the parts are stored
 * first (`parts`), and a record is blamed for what nobody knows only beside others that are taken (`others`).
 */
export const sabotages: Readonly<
  Record<
    | Invariant
    | 'expiry'
    | 'together'
    | 'blame'
    | 'room'
    | 'table'
    | 'fills'
    | 'group'
    | 'restart'
    | 'look'
    | 'answered'
    | 'parts'
    | 'others',
    Sabotage
  >
> = {
  I1: {
    means: 'the insert is sent before its intent is stored',
    compose: exchanging((process) => ({ store: answersEarly(process) })),
  },
  I2: {
    means: 'the token is made from the records that were received',
    compose: exchanging(() => ({ transform: tokenFromReceived })),
  },
  I3: {
    means: 'what is in doubt at the claim is taken for settled',
    compose: exchanging(({ store }) => ({ store: forgetsDoubt(store) })),
  },
  I4: {
    means: 'writes are not compare-and-set',
    compose: exchanging(({ store }) => ({ store: writesBlindly(store) })),
  },
  I5: {
    means: 'settled before the insert was answered',
    compose: exchanging(({ sink }) => ({ sink: withFrozen(sink, doesNotWait) })),
  },
  I6: {
    means: 'committed before it is settled',
    compose: exchanging(({ source }) => ({
      transform: concatMap((batch) =>
        merge(
          of(batch),
          defer(() => from(source.commit(batch.assignment, batch.lastOffset + 1))).pipe(
            ignoreElements(),
            catchError(() => EMPTY),
          ),
        ),
      ),
    })),
  },
  I7: {
    means: 'a chunk is dropped, and the next one covers for it',
    compose: exchanging(({ source }) => ({ source: dropsChunks(source) })),
  },
  I8: {
    means: 'block settings are not pinned: another process cuts a batch into other blocks',
    compose: exchanging(() => ({})),
    isUnpinned: true,
  },
  I9: {
    means: 'work of a lost assignment goes on',
    compose: (process, plan, scenario, dice) => keepingTheLost(process, configOf(process, plan, scenario, dice)),
  },
  I10: {
    means: 'the token does not name the topic’s id and incarnation',
    compose: exchanging(() => ({
      transform: map((batch) =>
        batch.token === undefined ? batch : { ...batch, token: batch.token.replace(/@[^:]*:\d+:/, ':0:') },
      ),
    })),
  },
  I11: {
    means: 'a range is not read back after an ambiguous failure',
    compose: exchanging(({ sink }) => ({ sink: withFrozen(sink, () => ({ readBackWhenInDoubt: false })) })),
  },
  I12: {
    means: 'a poison record is left out without being recorded',
    compose: exchanging(({ sink }) => ({ sink: leavesOutSilently(sink) })),
  },
  I15: {
    means: 'a look concludes from columns that the attempts did not write, or that were emptied since',
    compose: exchanging(() => ({})),
    ignores: 'columns',
  },
  I16: {
    means: 'what is missing goes out as a fill at once, while an attempt under the range’s own token is on its way',
    compose: exchanging(({ sink }) => ({
      sink: withFrozen(sink, (frozen) => ({ insertMissing: (missing) => frozen.fill(missing) })),
    })),
  },
  restart: {
    means: 'a restart of a log that was truncated is told, and not stored',
    compose: exchanging(({ store }) => ({ store: forgetsRestarts(store) })),
  },
  table: {
    means: 'a look concludes from another table than the attempts wrote to',
    breaks: 'I15',
    compose: exchanging(() => ({})),
    ignores: 'table',
  },
  fills: {
    means: 'a fill that is not seen is made again and again',
    compose: exchanging(({ sink }) => ({ sink: withFrozen(sink, (frozen, batch) => fillsOn(frozen, batch, sink)) })),
  },
  group: {
    means: 'the token does not name the group',
    compose: exchanging(() => ({
      transform: map((batch) =>
        batch.token === undefined
          ? batch
          : { ...batch, token: batch.token.replace(/^kcr2:simulated:[^:]*:/, 'kcr2:simulated::') },
      ),
    })),
  },
  expiry: {
    means: 'a token is relied on although the window may have forgotten it',
    compose: exchanging(() => ({})),
    isTrusting: true,
  },
  together: {
    means: 'the server forgets the tokens of inserts that it writes together, as old ones do',
    compose: exchanging(() => ({})),
    isForgetful: true,
  },
  blame: {
    means: 'a record is blamed for what several inserts were refused for together',
    compose: exchanging(() => ({})),
    isCredulous: true,
  },
  look: {
    means: 'a range is recorded in parts without a look whether rows of it are in the table',
    breaks: 'I16',
    compose: exchanging(({ sink }) => ({ sink: withFrozen(sink, cutsBlindly) })),
  },
  answered: {
    means: 'an attempt whose answer was lost is taken for one that was refused',
    breaks: 'I16',
    compose: exchanging(retelling(answered)),
  },
  parts: {
    means: 'a part of a range is sent before it is recorded',
    breaks: 'I1',
    compose: exchanging((process) => ({ store: recutsEarly(process) })),
  },
  others: { means: 'a record is blamed for a refusal that passes', compose: exchanging(retelling(blamed)) },
  room: {
    means: 'the source is not told what is in doubt, and has no room for all of it',
    compose: exchanging(({ source }) => ({ source: { ...source, claimed: () => undefined } })),
  },
};
