/**
 * The way into the simulated table, as a `PreparingSink`.
 * Imports: clickhouse/insert, clickhouse/verify, errors, model, ports, rxjs.
 */
import { catchError, map, tap, throwError, type Observable } from 'rxjs';
import { afterRefusal } from '../clickhouse/insert/async-insert.js';
import { type KnownNow, RangeDoubt } from '../clickhouse/insert/range-doubt.js';
import { fingerprintOf } from '../clickhouse/insert/settings.js';
import { DEDUP_BUDGET_MS, budgetWithin } from '../clickhouse/insert/token-doubt.js';
import { isSameTable, type TableNow } from '../clickhouse/verify/evidence.js';
import { IngestError } from '../errors.js';
import { bytesOf } from '../model/batch.js';
import type { Records } from '../model/record.js';
import type { TableRecord } from '../model/state.js';
import type { PreparingSink, PreparedInsert, InsertBatch, InsertResult } from '../ports.js';
import type { Killed } from './faults.js';
import { look, type Looked } from './look.js';
import type { SimulatedProcess } from './process.js';
import { queued } from './queued-insert.js';
import { unknownRefusal } from './refusal.js';
import { overlooking, serverOf, settings, unreachable, type Sending, type SinkSurroundings } from './sink-world.js';
import { rowOf, type Row, type SimulatedTable } from './table.js';

export type { Ignored } from './sink-world.js';

/** A batch of more rows waits for no others. */
const MOST_ASYNC_ROWS = 4;

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

/** What is known of one range's attempts, decided as by the sink that ships. */
function attemptsOf(
  { table, nowMs: clock }: Pick<SinkSurroundings, 'table' | 'nowMs'>,
  batch: InsertBatch,
  { ignores }: Sending,
  seen: SeenTable,
) {
  const { intent } = batch;
  const { dedupWindowMs } = table.config;
  const budgetMs =
    table.config.budgetMs ??
    budgetWithin(DEDUP_BUDGET_MS, dedupWindowMs === undefined ? undefined : dedupWindowMs / 1000);
  const attempts = new RangeDoubt(batch);
  const known = (now = seen.now): KnownNow => ({
    budgetMs,
    server: serverOf(table),
    settings,
    table: intent === undefined ? now : overlooking(now, intent, ignores),
  });
  return {
    why: (nowMs: number) => attempts.why(known(), nowMs)?.why,
    trusting: (asked: string | undefined, atMs: number) => {
      const trusts = attempts.trusting(asked, known(), atMs);
      return (now: TableNow) => trusts(known(now), atMs);
    },
    /** The last moment before something is sent. */
    unlessUnasked: (call: () => Observable<InsertResult>): Observable<InsertResult> => {
      if (attempts.mayHaveLanded && intent !== undefined) seen.refresh();
      const why = attempts.lastWord(known(), clock(), seen.now);
      return why === undefined ? call() : throwError(() => new IngestError('KCR_INSERT_RETRIABLE', why));
    },
    noting: <T>(call: Observable<T>): Observable<T> =>
      call.pipe(tap({ error: (error: unknown) => attempts.noteFailure(error) })),
    hasLooked: (atMs: number, now: TableNow): void => {
      if (!isSameTable(seen.now, now)) seen.now = now;
      attempts.noteLook(atMs, now);
    },
  };
}

/** One range on its way, with all that its calls need. */
interface Simulated {
  readonly process: SimulatedProcess;
  readonly world: SinkSurroundings;
  readonly batch: InsertBatch;
  readonly sending: Sending;
  readonly attempts: ReturnType<typeof attemptsOf>;
}

function rangeOf({ assignment: { partition }, afterOffset, lastOffset }: InsertBatch): string {
  return `${partition}:${afterOffset + 1}-${lastOffset}`;
}

function detailOf({ token, records, intent, isOffsetReused }: InsertBatch, ...more: unknown[]): string {
  return JSON.stringify([token, records.map(({ offset }) => offset), intent?.settings, isOffsetReused, ...more]);
}

function asSent({ assignment: { topic, partition }, intent }: InsertBatch, sent: Records): Row[] {
  const isBlank = intent?.written?.columns === '';
  return sent.map((record) =>
    isBlank ? { ...rowOf(topic, partition, record), isBlank } : rowOf(topic, partition, record),
  );
}

/** What an insert does to the table when it arrives. */
function land(
  { world, batch, sending: { blockRows } }: Simulated,
  sent: Records,
  key: string | undefined,
  killed: Killed,
): InsertResult {
  const { table, watch } = world;
  const { topic, partition } = batch.assignment;
  const { family = 'plain' } = table.config;
  if (world.isTableDown()) throw unreachable();
  if (world.isTableRefusing()) throw unknownRefusal(topic, partition);
  if (key !== undefined) {
    watch.blocks(key, sent.length, blockRows);
    watch.landing(key, batch, table.now().id);
  }
  const isTorn = killed === 'torn' && family === 'plain';
  if (isTorn) watch.torn(batch);
  if (killed !== undefined) world.queue.lose();
  const rows = asSent(batch, sent);
  if (key !== undefined && !table.refusesAll(rows)) watch.landed(key, batch);
  table.insert(rows, key, {
    nowMs: world.nowMs(),
    blockRows,
    dieAtBlock: isTorn ? 0 : undefined,
    dieBeforeBlock: killed === 'between' ? 1 : undefined,
  });
  if (killed !== undefined) throw new IngestError('KCR_INSERT_IN_DOUBT', 'the connection broke');
  if (key !== undefined) watch.took(key);
  return { rows: sent.length, bytes: bytesOf(sent) };
}

function send(
  simulated: Simulated,
  port: 'insert' | 'fill',
  sent: Records,
  key: string | undefined,
  what: () => string,
): Observable<InsertResult> {
  const { process, world, batch, sending, attempts } = simulated;
  const { partition } = batch.assignment;
  const detail = (): string => detailOf(batch);
  const effect = (killed: Killed): InsertResult => land(simulated, sent, key, killed);
  const call = { port, partition, token: key, detail, what, effect };
  // A fill goes by itself, as with the sink that ships.
  const isAlone =
    !sending.asyncInserts ||
    port === 'fill' ||
    key === undefined ||
    sending.blockRows !== Infinity ||
    sent.length > MOST_ASYNC_ROWS;
  if (isAlone) return attempts.noting(process.call(call));
  return attempts.noting(queued(process, world, batch, asSent(batch, sent), key, { port, what })).pipe(
    // A process that was frozen meanwhile must not send what nobody was asked about: the last moment again.
    catchError((error: unknown) =>
      afterRefusal(error) === 'ask alone' && !sending.isCredulous
        ? attempts.unlessUnasked(() => attempts.noting(process.call(call)))
        : throwError(() => error),
    ),
  );
}

function readBack({ process, world, batch, sending, attempts }: Simulated, asked: string | undefined) {
  world.watch.inserting('readBack', batch);
  const atMs = world.nowMs();
  const trusts = attempts.trusting(asked, atMs);
  const effect = (): Looked => look(world, batch, { asked, trusts, ignores: sending.ignores });
  const { partition } = batch.assignment;
  return process
    .call<Looked>({
      port: 'readBack',
      partition,
      what: () => rangeOf(batch),
      detail: () => detailOf(batch, asked),
      effect,
    })
    .pipe(
      map(({ now, ...found }) => {
        attempts.hasLooked(atMs, now);
        return found;
      }),
    );
}

function prepareSimulated(
  process: SimulatedProcess,
  world: SinkSurroundings,
  batch: InsertBatch,
  sending: Sending,
  seen: SeenTable,
): PreparedInsert {
  const { table, watch } = world;
  const { records, token } = batch;
  const { family = 'plain' } = table.config;
  const attempts = attemptsOf(world, batch, sending, seen);
  const simulated: Simulated = { process, world, batch, sending, attempts };
  const range = rangeOf(batch);
  const only = (offsets: readonly number[]) => records.filter(({ offset }) => offsets.includes(offset));
  const inPart = (port: 'insert' | 'fill', missing: readonly number[], key: string | undefined) =>
    send(simulated, port, only(missing), key, () => `${range} with ${missing.join(',')}`);
  return {
    readBackWhenInDoubt: token !== undefined && family === 'plain',
    tokenDoubt: (nowMs) => attempts.why(nowMs),
    insert: () =>
      attempts.unlessUnasked(() => {
        watch.inserting('insert', batch);
        return send(simulated, 'insert', records, token, () => range);
      }),
    insertMissing: (missing) =>
      attempts.unlessUnasked(() => {
        watch.inserting('insert in part', batch);
        return inPart('insert', missing, token);
      }),
    readBack: (asked) => readBack(simulated, asked),
    fill: (missing) => {
      watch.filling(batch);
      if (table.views.size > 0)
        throw new IngestError('KCR_READ_BACK', `a fill of ${range} would double rows in the views`);
      const key = token === undefined ? undefined : `${token}:fill1`;
      return attempts.unlessUnasked(() => inPart('fill', missing, key));
    },
    release: () => undefined,
  };
}
