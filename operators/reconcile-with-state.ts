/**
 * Stage 4 of 6: reconcileWithState. Batches meet what the state store knows of them.
 * Imports: events, ledger, model, operators/internal, ports, rxjs, stages.
 */
import {
  EMPTY,
  Observable,
  Subject,
  asyncScheduler,
  concat,
  concatMap,
  defer,
  endWith,
  from,
  identity,
  ignoreElements,
  last,
  map,
  of,
  shareReplay,
  takeUntil,
  tap,
  throwError,
  type OperatorFunction,
  type SchedulerLike,
} from 'rxjs';
import { ignoreEvents, type OnEvent } from '../src/events.js';
import type { Ledger, PartitionLedger } from '../src/ledger.js';
import { beginProgress, reconcile, type Decision } from '../src/model/reconcile.js';
import type { Batch } from '../src/model/record.js';
import { resumeOffset, type Intent } from '../src/model/state.js';
import type { IntentTarget, Partition } from '../src/ports.js';
import type { BufferedBatch, RecordedBatch } from '../src/stages.js';
import { concatMapJoined, type JoinLimits } from './internal/concat-map-joined.js';
import { describeOf, type ReconcileSink } from './internal/preparing.js';
import { checkTransformVersion, gapError, leftOut, otherTransform } from './internal/reconcile-errors.js';
import { unbroken } from './internal/unbroken.js';

export type { ReconcileSink } from './internal/preparing.js';

/** What is done about gaps, and how many ranges may be in doubt. */
export interface ReconcileConfig {
  /**
   * Offsets that should come next but are not in the log any more (retention, truncation): `halt` the partition, or
   * `continue` behind them. @default 'halt'
   */
  readonly onGap?: 'halt' | 'continue';
  /**
   * Batches that wait (for the claim, or since `maxPending` ranges are in doubt) become one within these limits: while
   * inserts take long there are larger ones, not more. @default the limits by which `bufferCountOrTime` cut them
   */
  readonly joinUpTo?: JoinLimits;
  /**
   * Names what stands between this stage and the insert; another name for each change of the rows it makes. It is
   * recorded with each range, and a range in doubt that was recorded under another name halts: made again, its rows
   * would be others. At most 100 characters. @default none: it is never changed while something is in doubt
   */
  readonly transformVersion?: string | undefined;
  /** Let only ranges pass that are in doubt, then complete: for a drain before an upgrade. @default false */
  readonly onlyInDoubt?: boolean;
  readonly onEvent?: OnEvent;
  /** Its clock says when a range was recorded. @default asyncScheduler */
  readonly scheduler?: SchedulerLike;
}

/** What all of them need. */
interface Stage {
  readonly partition: Partition;
  readonly ledger: Ledger;
  readonly sink: ReconcileSink;
  readonly onEvent: OnEvent;
}

/**
 * Claims the partition's state, then lets each batch pass once its range is recorded as an intent. Ranges that were in
 * doubt come first, exactly as they were recorded, with their recorded token; what is settled passes without records,
 * only to be committed.
 *
 * In plain words: nothing goes on to the insert before it is written down, and what was written down by a process that
 * died is done again just so.
 *
 * ```
 * stored:  settled 9, in doubt 10-14
 * source:  -a-----b--------|     a: offsets 8-11, b: 12-19
 *          reconcileWithState(partition, ledger, sink)
 *          -s-----(ri)-----|     s: skip 8-9, r: replay 10-14 (held until 14 came), i: insert 15-19
 * ```
 *
 * What waits goes as one, within the limits of `bufferCountOrTime` or those of `joinUpTo`:
 *
 * ```
 * claim:   --------k
 * source:  -a--b--c----|        a: offsets 10-14, b: 15-19, c: 20-24
 *          reconcileWithState(partition, ledger, sink, { joinUpTo: { count: 100, bytes: 1_000_000 } })
 *          --------(AB)|        A: insert 10-14, B: insert 15-24
 * ```
 *
 * The state is claimed as soon as the stage is subscribed to, and the source is sent to where the state resumes, unless
 * it begins there: the state, not the group's committed offset, says where to go on. That the partition halts is noted
 * in its state, for people who look at it.
 *
 * @throws `KCR_CONFIG` at once for a `transformVersion` that is empty or too long. Into the stream: `KCR_TRANSFORM` for
 * a range in doubt that was recorded under another `transformVersion`, and for a batch that one of your operators
 * dropped,
 * `KCR_FENCED` when another owner has claimed the partition since, `KCR_OFFSET_GAP` under
 * `onGap: 'halt'`, `KCR_STATE_INVALID`, `KCR_STORE`.
 */
export function reconcileWithState(
  partition: Partition,
  ledger: Ledger,
  sink: ReconcileSink,
  config: ReconcileConfig = {},
): OperatorFunction<BufferedBatch, RecordedBatch> {
  checkTransformVersion(config.transformVersion);
  const stage: Stage = { partition, ledger, sink, onEvent: config.onEvent ?? ignoreEvents };
  return (batches) =>
    new Observable<RecordedBatch>((subscriber) => {
      const resolved = new Subject<void>();
      partition.onHalt(({ assignment, error }, heals) => ledger.halt(assignment, error.code, heals));
      const stage$ = openAndSeek(stage).pipe(
        map(({ opened, sought }) => decider(opened, sought, stage, { ...config, onResolved: () => resolved.next() })),
        shareReplay({ bufferSize: 1, refCount: true }),
      );
      const passing = batches
        .pipe(
          unbroken(),
          concatMapJoined((batch) => stage$.pipe(concatMap((decide) => decide(batch))), config.joinUpTo),
          // A partition that is revoked before its claim came must not be released before the claim is done.
          (passing$) => concat(passing$, stage$.pipe(ignoreElements())),
          config.onlyInDoubt === true ? takeUntil(resolved) : identity,
        )
        .subscribe(subscriber);
      const claimed = stage$.subscribe({ error: (error: unknown) => subscriber.error(error) });
      return () => {
        claimed.unsubscribe();
        passing.unsubscribe();
      };
    });
}

/** Claims, then seeks if the state says where to go on. */
function openAndSeek({
  ledger,
  partition,
  onEvent,
}: Stage): Observable<{ readonly opened: PartitionLedger; readonly sought: boolean }> {
  const { assignment } = partition;
  return ledger.open(assignment).pipe(
    concatMap((opened) => {
      const offset = resumeOffset(opened.state);
      const claimed = () => partition.claimed(opened.state.pending.at(-1)?.last);
      // Chunks that came before the claim stay valid when the source is where the state resumes.
      if (offset === undefined || offset === assignment.startOffset)
        return of({ opened, sought: false }).pipe(tap(claimed));
      onEvent({ kind: 'resumed', assignment, committed: assignment.startOffset, resume: offset });
      return defer(() => from(partition.seek(offset))).pipe(
        ignoreElements(),
        endWith({ opened, sought: true }),
        tap(claimed),
      );
    }),
    last(),
  );
}

/** The stage proper: turns one batch into what may be inserted, once that is recorded. */
function decider(
  opened: PartitionLedger,
  sought: boolean,
  { sink, partition: { assignment }, onEvent }: Stage,
  {
    onGap = 'halt',
    transformVersion,
    onResolved,
    scheduler = asyncScheduler,
  }: ReconcileConfig & { readonly onResolved: () => void },
): (batch: Batch) => Observable<RecordedBatch> {
  let progress = beginProgress(opened.state, sought);
  let inDoubt = opened.state.pending.length;
  if (inDoubt === 0) onResolved();
  const pass = (decision: Decision): Observable<RecordedBatch> => {
    switch (decision.kind) {
      case 'skip': {
        const { afterOffset, lastOffset } = decision.batch;
        onEvent({ kind: 'skipped', assignment, first: afterOffset + 1, last: lastOffset });
        return of({ ...recordedBy(opened, decision.batch), records: [], bytes: 0 });
      }
      case 'replay':
        // Of a range that names none there is no telling: the option may be new.
        if (decision.intent.transformVersion !== undefined && decision.intent.transformVersion !== transformVersion)
          return throwError(() => otherTransform(assignment, decision.intent, transformVersion));
        inDoubt -= 1;
        for (const offset of decision.intent.excluded) onEvent(leftOut(assignment, offset, decision.excluded));
        return concat(
          of(withIntent(opened, decision.batch, decision.intent, true)),
          defer(() => (inDoubt === 0 ? (onResolved(), EMPTY) : EMPTY)),
        );
      case 'insert': {
        const about = {
          ...describeOf(sink, assignment.topic),
          ...(transformVersion === undefined ? {} : { transformVersion }),
        };
        const intent = intentOf(decision.batch, about, scheduler.now());
        return opened.intend(intent).pipe(map((stored) => withIntent(opened, decision.batch, stored, false)));
      }
      case 'gap':
        if (onGap === 'continue') return EMPTY;
        onEvent({ kind: 'gap', assignment, expected: decision.expected, found: decision.found });
        return throwError(() => gapError(assignment, decision));
    }
  };
  const tellGaps = (decisions: readonly Decision[]): void => {
    for (const gap of decisions)
      if (gap.kind === 'gap') onEvent({ kind: 'gap', assignment, expected: gap.expected, found: gap.found });
  };
  return (batch) => {
    const reconciled = reconcile(progress, batch);
    progress = reconciled.progress;
    const { decisions } = reconciled;
    const passing$ = from(decisions).pipe(concatMap(pass));
    if (onGap === 'halt') return passing$;
    // That a gap is passed over is told once the range over it is recorded; of what is in doubt it is already.
    if (decisions.some(({ kind }) => kind === 'insert'))
      return passing$.pipe(
        tap(({ intent, replay }) => (intent === undefined || replay ? undefined : tellGaps(decisions))),
      );
    tellGaps(decisions);
    return passing$;
  };
}

function withIntent(opened: PartitionLedger, batch: Batch, intent: Intent, replay: boolean): RecordedBatch {
  const { isOffsetReused } = opened.state;
  return {
    ...recordedBy(opened, batch),
    intent,
    token: opened.token(intent),
    replay,
    ...(isOffsetReused === true ? { isOffsetReused } : {}),
  };
}

/** Without an intent: nothing of it is to be inserted. */
function recordedBy(
  ledger: PartitionLedger,
  { assignment, afterOffset, lastOffset, records, bytes }: Batch,
): RecordedBatch {
  const made = {
    assignment,
    afterOffset,
    lastOffset,
    records,
    bytes,
    intent: undefined,
    token: undefined,
    replay: false,
    ledger,
  };
  return made as unknown as RecordedBatch;
}

function intentOf(batch: Batch, target: IntentTarget & Pick<Intent, 'transformVersion'>, atMs: number): Intent {
  const { afterOffset, lastOffset, records } = batch;
  return {
    first: afterOffset + 1,
    last: lastOffset,
    rows: records.length,
    atMs,
    ...target,
    excluded: [],
    tokenForm: 2,
  };
}

/** It is part of every state: a partition's state is short of space. */
