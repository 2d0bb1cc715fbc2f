/**
 * Room: the way into the simulated table, as a `BatchSink`. The ports, the table and what is pure of ClickHouse's
 * adapter may enter.
 */
import { throwError, type Observable } from 'rxjs';
import { fingerprintOf, parseFingerprint, sameRun, type ServerIdentity } from '../clickhouse/settings.js';
import { DEDUP_BUDGET_MS, budgetWithin, tokenDoubt } from '../clickhouse/token-doubt.js';
import { IngestError } from '../errors.js';
import type { KafkaRecord } from '../model/record.js';
import type { BatchSink, FrozenInsert, InsertBatch, InsertResult, ReadBack } from '../ports.js';
import type { SimulatedProcess } from './process.js';
import { rowOf, type SimulatedTable } from './table.js';
import type { Watch } from './watch.js';

export interface SinkSurroundings {
  readonly table: SimulatedTable;
  readonly watch: Watch;
  nowMs(): number;
  isTableDown(): boolean;
  /** A request with this token was sent and has not taken effect yet. */
  isRunning(token: string): boolean;
}

const settings = 'pinned';
/** Looked up when it is asked for. */
const serverOf = (table: SimulatedTable): ServerIdentity => ({
  version: 'simulated',
  get startedMs() {
    return table.startedMs;
  },
});

export function simulatedSink(process: SimulatedProcess, world: SinkSurroundings, blockRows = Infinity): BatchSink {
  return {
    freeze: (batch) => frozen(process, world, batch, blockRows),
    describe: () => ({ tables: ['simulated'], settings: fingerprintOf(serverOf(world.table), settings) }),
    close: () => Promise.resolve(),
  };
}

function frozen(process: SimulatedProcess, world: SinkSurroundings, batch: InsertBatch, blockRows: number): FrozenInsert {
  const { table, watch } = world;
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
  const insert = (sent: readonly KafkaRecord[], key: string | undefined, isServerKilled: boolean): InsertResult => {
    if (world.isTableDown()) throw unreachable();
    if (key !== undefined) watch.blocks(key, sent.length, blockRows);
    const isTorn = isServerKilled && family === 'plain';
    if (isTorn) watch.torn(batch);
    table.insert(sent.map((record) => rowOf(topic, partition, record)), key, { nowMs: world.nowMs(), blockRows, dieAtBlock: isTorn ? 0 : undefined });
    if (isServerKilled) throw new IngestError('KCR_INSERT_IN_DOUBT', 'the connection broke');
    return { rows: sent.length, bytes: sent.reduce((sum, { value }) => sum + (value?.length ?? 0), 0) };
  };
  return {
    readBackWhenInDoubt: token !== undefined && family === 'plain',
    tokenDoubt: doubt,
    insert: () => {
      return unlessUnasked(() => {
        watch.inserting('insert', batch);
        return process.call({ port: 'insert', partition, token, detail, what: () => range, effect: (isServerKilled) => insert(records, token, isServerKilled) });
      });
    },
    readBack: (why) => {
      watch.inserting('readBack', batch);
      lookedMs = world.nowMs();
      return process.call({ port: 'readBack', partition, what: () => range, detail: () => detail(why), effect: () => (provenance && batch.isAnew !== true ? readBack(world, batch) : clearDoubt(world, batch, why)) });
    },
    fill: (missing, round) => {
      watch.asked('fill', batch.assignment);
      if (table.views.size > 0) throw new IngestError('KCR_READ_BACK', `a fill of ${range} would double rows in the views`);
      const wanted = new Set(missing);
      const key = token === undefined ? undefined : `${token}:fill${round}`;
      return unlessUnasked(() =>
        process.call({
          port: 'fill', partition, token: key, detail, what: () => `${range} with ${missing.join(',')} round ${round}`,
          effect: (isServerKilled) => insert(records.filter(({ offset }) => wanted.has(offset)), key, isServerKilled),
        }),
      );
    },
    release: () => undefined,
  };
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
