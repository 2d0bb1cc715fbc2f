/**
 * Room: the way into the simulated table, as a `PreparingSink`. The ports, the table and what is pure of ClickHouse's
 * adapter may enter.
 */
import { catchError, map, tap, throwError, type Observable } from 'rxjs';
import { afterRefusal } from '../clickhouse/insert/async-insert.js';
import { allOffsets, compareRows } from '../clickhouse/verify/compare-rows.js';
import {
  evidenceOf,
  isSameTable,
  withoutEvidence,
  witnessRange,
  WITNESSES,
  type Evidence,
  type TableDoubt,
  type TableNow,
} from '../clickhouse/verify/evidence.js';
import { fingerprintOf, parseFingerprint, sameRun, type ServerIdentity } from '../clickhouse/insert/settings.js';
import { DEDUP_BUDGET_MS, budgetWithin, sendingDoubt } from '../clickhouse/insert/token-doubt.js';
import { hasCode, IngestError } from '../errors.js';
import { bytesOf } from '../model/batch.js';
import type { Records } from '../model/record.js';
import type { Intent, TableRecord } from '../model/state.js';
import type { PreparingSink, PreparedInsert, InsertBatch, InsertResult, ReadBack } from '../ports.js';
import type { Killed, PortName } from './faults.js';
import type { SimulatedProcess } from './process.js';
import type { InsertQueue } from './queue.js';
import { unknownRefusal } from './refusal.js';
import { rowOf, type Row, type SimulatedTable } from './table.js';
import type { InvariantChecker } from './invariant-checker.js';

export interface SinkSurroundings {
  readonly table: SimulatedTable;
  readonly watch: InvariantChecker;
  nowMs(): number;
  isTableDown(): boolean;
  /** Whatever is inserted is refused, by a code that nobody knows. */
  isTableRefusing(): boolean;
  /** A request with this token was sent and has not taken effect yet. */
  isRunning(token: string): boolean;
  readonly queue: InsertQueue;
}

/** What a broken sink does not mind when it looks: which columns were written, or which table it is. */
export type Ignored = 'columns' | 'table';

/** How the inserts of a process are sent. */
export interface Sending {
  /** Rows of a block that the table makes of them. */
  readonly blockRows: number;
  /** They wait for others. */
  readonly asyncInserts: boolean;
  /** What several were refused for together is taken for what is wrong with each. */
  readonly isCredulous: boolean;
  readonly ignores: Ignored | undefined;
}

/** A batch of more rows waits for no others. */
const MOST_ASYNC_ROWS = 4;

const settings = 'pinned';
/** Looked up when it is asked for. */
const serverOf = (table: SimulatedTable): ServerIdentity => ({
  version: 'simulated',
  get startedMs() {
    return table.startedMs;
  },
});

/** What a process saw of the table last, as the sink that ships does. */
class SeenTable {
  readonly #table: SimulatedTable;
  now: TableNow;

  constructor(table: SimulatedTable) {
    this.#table = table;
    this.now = table.now();
  }

  refresh(): void {
    const now = this.#table.now();
    if (!isSameTable(this.now, now)) this.now = now;
  }

  get record(): TableRecord {
    const { family: _, keepsTokens: __, forgotMs: ___, ...record } = this.now;
    return record;
  }
}

export function simulatedSink(process: SimulatedProcess, world: SinkSurroundings, sending: Sending): PreparingSink {
  const seen = new SeenTable(world.table);
  return {
    prepare: (batch) => prepareSimulated(process, world, batch, sending, seen),
    describe: () => ({
      tables: ['simulated'],
      settings: fingerprintOf(serverOf(world.table), settings),
      written: seen.record,
    }),
    close: () => Promise.resolve(),
  };
}

/** A look and what the table was then. */
interface Looked extends ReadBack {
  readonly now: TableNow;
}

/** What is known of one range's attempts, and what must be asked before the next one. */
function attemptsOf(
  { table, nowMs: clock }: Pick<SinkSurroundings, 'table' | 'nowMs'>,
  { intent, token, replay }: InsertBatch,
  { ignores }: Sending,
  seen: SeenTable,
) {
  const { dedupWindowMs } = table.config;
  const budgetMs =
    table.config.budgetMs ??
    budgetWithin(DEDUP_BUDGET_MS, dedupWindowMs === undefined ? undefined : dedupWindowMs / 1000);
  let mayHaveLanded = replay;
  let looked: { readonly atMs: number; readonly now: TableNow } | undefined;
  const doubt = (nowMs: number, now = seen.now): TableDoubt | undefined =>
    intent === undefined || token === undefined
      ? undefined
      : sendingDoubt(
          intent,
          { budgetMs, server: serverOf(table), settings },
          nowMs,
          mayHaveLanded ? overlooking(now, intent, ignores) : undefined,
        );
  return {
    doubt,
    /** As the sink that ships: the last moment before something is sent. */
    unlessUnasked: (call: () => Observable<InsertResult>): Observable<InsertResult> => {
      if (mayHaveLanded && intent !== undefined) seen.refresh();
      const nowMs = clock();
      const why = doubt(nowMs)?.why;
      if (
        why === undefined ||
        (looked !== undefined && nowMs - looked.atMs <= budgetMs && isSameTable(looked.now, seen.now))
      )
        return call();
      return throwError(() => new IngestError('KCR_INSERT_RETRIABLE', `not sent before the table was asked: ${why}`));
    },
    noting: <T>(call: Observable<T>): Observable<T> =>
      call.pipe(
        tap({
          error: (error: unknown) =>
            void (mayHaveLanded ||=
              hasCode(error, 'KCR_INSERT_IN_DOUBT') ||
              (error instanceof IngestError && error.fields.mayHaveLanded === true)),
        }),
      ),
    hasLooked: (atMs: number, now: TableNow): void => {
      if (!isSameTable(seen.now, now)) seen.now = now;
      looked = { atMs, now };
    },
  };
}

function prepareSimulated(
  process: SimulatedProcess,
  world: SinkSurroundings,
  batch: InsertBatch,
  sending: Sending,
  seen: SeenTable,
): PreparedInsert {
  const { table, watch } = world;
  const { blockRows } = sending;
  const {
    assignment: { topic, partition },
    afterOffset,
    lastOffset,
    records,
    token,
    intent,
  } = batch;
  const { family = 'plain' } = table.config;
  const { doubt, unlessUnasked, noting, hasLooked } = attemptsOf(world, batch, sending, seen);
  const asSent = (sent: Records): Row[] => {
    const isBlank = intent?.written?.columns === '';
    return sent.map((record) =>
      isBlank ? { ...rowOf(topic, partition, record), isBlank } : rowOf(topic, partition, record),
    );
  };
  const range = `${partition}:${afterOffset + 1}-${lastOffset}`;
  const only = (offsets: readonly number[]) => records.filter(({ offset }) => offsets.includes(offset));
  const detail = (...more: unknown[]) =>
    JSON.stringify([token, records.map(({ offset }) => offset), intent?.settings, batch.isOffsetReused, ...more]);
  const insert = (sent: Records, key: string | undefined, killed: Killed): InsertResult => {
    if (world.isTableDown()) throw unreachable();
    if (world.isTableRefusing()) throw unknownRefusal(topic, partition);
    if (key !== undefined) {
      watch.blocks(key, sent.length, blockRows);
      watch.landing(key, batch, table.now().id);
    }
    const isTorn = killed === 'torn' && family === 'plain';
    if (isTorn) watch.torn(batch);
    if (killed !== undefined) world.queue.lose();
    if (key !== undefined && !table.refusesAll(asSent(sent))) watch.landed(key, batch);
    table.insert(asSent(sent), key, {
      nowMs: world.nowMs(),
      blockRows,
      dieAtBlock: isTorn ? 0 : undefined,
      dieBeforeBlock: killed === 'between' ? 1 : undefined,
    });
    if (killed !== undefined) throw new IngestError('KCR_INSERT_IN_DOUBT', 'the connection broke');
    if (key !== undefined) watch.took(key);
    return { rows: sent.length, bytes: bytesOf(sent) };
  };
  const send = (
    port: 'insert' | 'fill',
    sent: Records,
    key: string | undefined,
    what: () => string,
  ): Observable<InsertResult> => {
    const call = { port, partition, token: key, detail, what, effect: (killed: Killed) => insert(sent, key, killed) };
    // A fill goes by itself, as with the sink that ships.
    const isAlone =
      !sending.asyncInserts ||
      port === 'fill' ||
      key === undefined ||
      blockRows !== Infinity ||
      sent.length > MOST_ASYNC_ROWS;
    if (isAlone) return noting(process.call(call));
    return noting(coalesced(process, world, batch, asSent(sent), key, { port, what })).pipe(
      // A process that was frozen meanwhile must not send what nobody was asked about: the last moment again.
      catchError((error: unknown) =>
        afterRefusal(error) === 'ask alone' && !sending.isCredulous
          ? unlessUnasked(() => noting(process.call(call)))
          : throwError(() => error),
      ),
    );
  };
  return {
    readBackWhenInDoubt: token !== undefined && family === 'plain',
    tokenDoubt: (nowMs) => doubt(nowMs)?.why,
    insert: () =>
      unlessUnasked(() => {
        watch.inserting('insert', batch);
        return send('insert', records, token, () => range);
      }),
    insertMissing: (missing) =>
      unlessUnasked(() => {
        watch.inserting('insert in part', batch);
        return send('insert', only(missing), token, () => `${range} with ${missing.join(',')}`);
      }),
    readBack: (asked) => {
      watch.inserting('readBack', batch);
      const atMs = world.nowMs();
      const isAboutToken = doubt(atMs)?.why === asked;
      const trusts = (now: TableNow) => isAboutToken && doubt(atMs, now)?.mayTrust !== false;
      const effect = (): Looked => look(world, batch, { asked, trusts, ignores: sending.ignores });
      return process
        .call<Looked>({ port: 'readBack', partition, what: () => range, detail: () => detail(asked), effect })
        .pipe(
          map(({ now, ...found }) => {
            hasLooked(atMs, now);
            return found;
          }),
        );
    },
    fill: (missing) => {
      watch.filling(batch);
      if (table.views.size > 0)
        throw new IngestError('KCR_READ_BACK', `a fill of ${range} would double rows in the views`);
      const key = token === undefined ? undefined : `${token}:fill1`;
      return unlessUnasked(() => send('fill', only(missing), key, () => `${range} with ${missing.join(',')}`));
    },
    release: () => undefined,
  };
}

/** The table as one takes it for that does not mind which it is. */
function overlooking(now: TableNow, { written }: Pick<Intent, 'written'>, ignores: Ignored | undefined): TableNow {
  return ignores === 'table' && written?.id !== undefined ? { ...now, id: written.id } : now;
}

function look(
  world: SinkSurroundings,
  batch: InsertBatch,
  {
    asked,
    trusts,
    ignores,
  }: {
    readonly asked: string | undefined;
    readonly trusts: (now: TableNow) => boolean;
    readonly ignores: Ignored | undefined;
  },
): Looked {
  const {
    assignment: { topic, partition },
    afterOffset,
    lastOffset,
    records,
    token,
    intent,
  } = batch;
  const { table } = world;
  if (world.isTableDown()) throw unreachable();
  const now = table.now();
  const evidence = evidenceFor(batch, now, ignores);
  const halt = (why: string): never => {
    throw new IngestError('KCR_READ_BACK', `whether the range is in the table cannot be verified: ${why}`, {
      topic,
      partition,
    });
  };
  const unproven = (why: string): Looked => {
    const isSameRun =
      asked === undefined &&
      sameRun(intent === undefined ? undefined : parseFingerprint(intent.settings), serverOf(table));
    switch (withoutEvidence(asked === undefined ? 'after' : 'before', { mayTrust: trusts(now), isSameRun })) {
      case 'settle':
        return { missing: [], doubled: [], now };
      case 'send':
        return { missing: allOffsets(records), doubled: [], isUnproven: true, now };
      case 'halt':
        return halt(why);
    }
  };
  if (evidence.kind === 'elsewhere') return halt(evidence.why);
  if (evidence.kind === 'none') return unproven(evidence.why);
  if (token !== undefined && world.isRunning(token))
    throw new IngestError('KCR_INSERT_IN_DOUBT', 'an earlier attempt of this insert is still running', {
      topic,
      partition,
    });
  const { missing, doubled, partial } = compareRows(
    records,
    table.count(topic, partition, afterOffset + 1, lastOffset),
  );
  if (partial !== undefined)
    return halt(`of offset ${partial.offset} ${partial.rows} of ${partial.expected} rows are there`);
  const older = intent === undefined ? undefined : witnessRange(intent);
  const isWitnessed = () =>
    older !== undefined && table.count(topic, partition, older.first, older.last).size >= WITNESSES;
  if (missing.length > 0 && evidence.kind === 'witness' && !isWitnessed()) return unproven(evidence.why);
  return { missing, doubled, now };
}

function evidenceFor({ isOffsetReused, intent }: InsertBatch, now: TableNow, ignores: Ignored | undefined): Evidence {
  if (isOffsetReused === true) return { kind: 'none', why: 'the partition was begun anew' };
  if (ignores === 'columns' && now.columns !== '') return { kind: 'full' };
  return evidenceOf(intent, intent === undefined ? now : overlooking(now, intent, ignores));
}

/** Waits in the server's queue. Refused with others, it is told of a record that may be nobody's fault, as by the server. */
function coalesced(
  process: SimulatedProcess,
  world: SinkSurroundings,
  batch: InsertBatch,
  sent: readonly Row[],
  token: string,
  { port, what }: { readonly port: PortName; readonly what: () => string },
): Observable<InsertResult> {
  const {
    assignment: { topic, partition },
    records,
  } = batch;
  const bytes = bytesOf(records);
  return process
    .call<{ readonly refusedRow: number | undefined }>({
      port,
      partition,
      token,
      what: () => `${what()} with others`,
      effect: () => ({ refusedRow: undefined }),
      queue: (killed, done) => {
        if (world.isTableDown()) return done({ error: unreachable() });
        if (world.isTableRefusing()) return done({ error: unknownRefusal(topic, partition) });
        world.watch.blocks(token, sent.length, Infinity);
        world.watch.landing(token, batch, world.table.now().id);
        const noted: typeof done = (outcome) => {
          if (!('error' in outcome) && outcome.value.refusedRow === undefined) world.watch.took(token);
          done(outcome);
        };
        world.queue.push({
          batch,
          token,
          killed,
          done: noted,
          landed: () => world.watch.landed(token, batch),
          rows: sent,
        });
      },
    })
    .pipe(
      map(({ refusedRow }) => {
        if (refusedRow === undefined) return { rows: sent.length, bytes };
        const offset = sent.at(refusedRow - 1)?.offset ?? sent.at(0)?.offset;
        throw new IngestError('KCR_POISON', 'a row of those that were written together is refused', {
          topic,
          partition,
          offset,
          serverCode: 469,
        });
      }),
    );
}

function unreachable(): IngestError {
  return new IngestError('KCR_CLICKHOUSE_UNREACHABLE', 'the server is down');
}
