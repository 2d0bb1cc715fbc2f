/**
 * Room: the way into the simulated table, as a `BatchSink`. The ports, the table and what is pure of ClickHouse's
 * adapter may enter.
 */
import { catchError, map, throwError, type Observable } from 'rxjs';
import { afterRefusal } from '../clickhouse/coalescing.js';
import { fingerprintOf, parseFingerprint, sameRun, type ServerIdentity } from '../clickhouse/settings.js';
import { DEDUP_BUDGET_MS, budgetWithin, tokenDoubt } from '../clickhouse/token-doubt.js';
import { IngestError } from '../errors.js';
import { bytesOf } from '../model/batch.js';
import type { Records } from '../model/record.js';
import type { BatchSink, FrozenInsert, InsertBatch, InsertResult, ReadBack } from '../ports.js';
import type { PortName } from './faults.js';
import type { SimulatedProcess } from './process.js';
import type { InsertQueue } from './queue.js';
import { rowOf, type SimulatedTable } from './table.js';
import type { Watch } from './watch.js';

export interface SinkSurroundings {
  readonly table: SimulatedTable;
  readonly watch: Watch;
  nowMs(): number;
  isTableDown(): boolean;
  /** A request with this token was sent and has not taken effect yet. */
  isRunning(token: string): boolean;
  readonly queue: InsertQueue;
}

/** How the inserts of a process are sent. */
export interface Sending {
  /** Rows of a block that the table makes of them. */
  readonly blockRows: number;
  /** They wait for others. */
  readonly coalesces: boolean;
  /** What several were refused for together is taken for what is wrong with each. */
  readonly isCredulous: boolean;
}

/** A batch of more rows waits for no others. */
const MOST_COALESCED_ROWS = 4;

const settings = 'pinned';
/** Looked up when it is asked for. */
const serverOf = (table: SimulatedTable): ServerIdentity => ({
  version: 'simulated',
  get startedMs() {
    return table.startedMs;
  },
});

export function simulatedSink(process: SimulatedProcess, world: SinkSurroundings, sending: Sending): BatchSink {
  return {
    freeze: (batch) => frozen(process, world, batch, sending),
    describe: () => ({ tables: ['simulated'], settings: fingerprintOf(serverOf(world.table), settings) }),
    close: () => Promise.resolve(),
  };
}

function frozen(process: SimulatedProcess, world: SinkSurroundings, batch: InsertBatch, sending: Sending): FrozenInsert {
  const { table, watch } = world;
  const { blockRows } = sending;
  const { assignment: { topic, partition }, afterOffset, lastOffset, records, token, intent } = batch;
  const { provenance = true, family = 'plain', dedupWindowMs } = table.config;
  const budgetMs = table.config.budgetMs ?? budgetWithin(DEDUP_BUDGET_MS, dedupWindowMs === undefined ? undefined : dedupWindowMs / 1000);
  let lookedMs = -Infinity;
  const doubt = (nowMs: number) => (intent === undefined || token === undefined ? undefined : tokenDoubt(intent, { budgetMs, server: serverOf(table), settings }, nowMs));
  // As the sink that ships: the last moment before something is sent.
  const unlessUnasked = (call: () => Observable<InsertResult>): Observable<InsertResult> => {
    const nowMs = world.nowMs();
    const why = doubt(nowMs);
    if (why === undefined || nowMs - lookedMs <= budgetMs) return call();
    return throwError(() => new IngestError('KCR_INSERT_RETRIABLE', `not sent before the table was asked: ${why}`));
  };
  const range = `${partition}:${afterOffset + 1}-${lastOffset}`;
  const detail = (...more: unknown[]) => JSON.stringify([token, records.map(({ offset }) => offset), intent?.settings, batch.isAnew, ...more]);
  const insert = (sent: Records, key: string | undefined, isServerKilled: boolean): InsertResult => {
    if (world.isTableDown()) throw unreachable();
    if (key !== undefined) watch.blocks(key, sent.length, blockRows);
    const isTorn = isServerKilled && family === 'plain';
    if (isTorn) watch.torn(batch);
    if (isServerKilled) world.queue.lose();
    table.insert(sent.map((record) => rowOf(topic, partition, record)), key, { nowMs: world.nowMs(), blockRows, dieAtBlock: isTorn ? 0 : undefined });
    if (isServerKilled) throw new IngestError('KCR_INSERT_IN_DOUBT', 'the connection broke');
    return { rows: sent.length, bytes: bytesOf(sent) };
  };
  const send = (port: PortName, sent: Records, key: string | undefined, what: () => string): Observable<InsertResult> => {
    const call = { port, partition, token: key, detail, what, effect: (isServerKilled: boolean) => insert(sent, key, isServerKilled) };
    if (!sending.coalesces || key === undefined || blockRows !== Infinity || sent.length > MOST_COALESCED_ROWS) return process.call(call);
    return coalesced(process, world, batch, sent, key, { port, what }).pipe(
      // A process that was frozen meanwhile must not send what nobody was asked about: the last moment again.
      catchError((error: unknown) => (afterRefusal(error) === 'ask alone' && !sending.isCredulous ? unlessUnasked(() => process.call(call)) : throwError(() => error))),
    );
  };
  return {
    readBackWhenInDoubt: token !== undefined && family === 'plain',
    tokenDoubt: doubt,
    insert: () => {
      return unlessUnasked(() => {
        watch.inserting('insert', batch);
        return send('insert', records, token, () => range);
      });
    },
    readBack: (why) => {
      watch.inserting('readBack', batch);
      lookedMs = world.nowMs();
      return process.call({ port: 'readBack', partition, what: () => range, detail: () => detail(why), effect: () => (provenance && batch.isAnew !== true ? readBack(world, batch) : clearDoubt(world, batch, why)) });
    },
    fill: (missing) => {
      watch.asked('fill', batch.assignment);
      if (table.views.size > 0) throw new IngestError('KCR_READ_BACK', `a fill of ${range} would double rows in the views`);
      const wanted = new Set(missing);
      const key = token === undefined ? undefined : `${token}:fill1`;
      return unlessUnasked(() =>
        send('fill', records.filter(({ offset }) => wanted.has(offset)), key, () => `${range} with ${missing.join(',')}`),
      );
    },
    release: () => undefined,
  };
}

/** Waits in the server's queue. Refused with others, it is told of a record that may be nobody's fault, as by the server. */
function coalesced(process: SimulatedProcess, world: SinkSurroundings, batch: InsertBatch, sent: Records, token: string, { port, what }: { readonly port: PortName; readonly what: () => string }): Observable<InsertResult> {
  const { assignment: { topic, partition } } = batch;
  const bytes = bytesOf(sent);
  return process
    .call<{ readonly refusedRow: number | undefined }>({
      port, partition, token, what: () => `${what()} with others`,
      effect: () => ({ refusedRow: undefined }),
      queue: (killed, done) => {
        if (world.isTableDown()) return done({ error: unreachable() });
        world.watch.blocks(token, sent.length, Infinity);
        world.queue.push({ batch, token, killed, done, rows: sent.map((record) => rowOf(topic, partition, record)) });
      },
    })
    .pipe(
      map(({ refusedRow }) => {
        if (refusedRow === undefined) return { rows: sent.length, bytes };
        const offset = sent.at(refusedRow - 1)?.offset ?? sent.at(0)?.offset;
        throw new IngestError('KCR_POISON', 'a row of those that were written together is refused', { topic, partition, offset, serverCode: 469 });
      }),
    );
}

function readBack(world: SinkSurroundings, { assignment: { topic, partition }, afterOffset, lastOffset, records, token }: InsertBatch): ReadBack {
  if (world.isTableDown()) throw unreachable();
  if (token !== undefined && world.isRunning(token)) throw new IngestError('KCR_INSERT_IN_DOUBT', 'an earlier attempt of this insert is still running', { topic, partition });
  const found = world.table.count(topic, partition, afterOffset + 1, lastOffset);
  const expected = new Map<number, number>();
  for (const { offset } of records) expected.set(offset, (expected.get(offset) ?? 0) + 1);
  const missing: number[] = [];
  const doubled: number[] = [];
  for (const [offset, rows] of expected) {
    const there = found.get(offset) ?? 0;
    if (there === 0) missing.push(offset);
    else if (there < rows) throw new IngestError('KCR_READ_BACK', `of one record ${there} of ${rows} rows are in the table`, { topic, partition, offset });
    if (there > rows) doubled.push(offset);
  }
  return { missing, doubled };
}

/** As the sink that ships, where a range cannot be read back: only a server that died can have lost what it answered for. */
function clearDoubt(world: SinkSurroundings, { intent, assignment: { topic, partition } }: InsertBatch, why: string | undefined): ReadBack {
  if (world.isTableDown()) throw unreachable();
  const isSameRun = sameRun(intent === undefined ? undefined : parseFingerprint(intent.settings), serverOf(world.table));
  if (why === undefined && isSameRun) return { missing: [], doubled: [] };
  throw new IngestError('KCR_READ_BACK', 'whether the range is in the table cannot be verified', { topic, partition });
}

function unreachable(): IngestError {
  return new IngestError('KCR_CLICKHOUSE_UNREACHABLE', 'the server is down');
}
