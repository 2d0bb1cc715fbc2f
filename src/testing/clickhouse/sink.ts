/**
 * The sink that ships, over the wire of a simulated process, seen by the watcher.
 * Imports: clickhouse, overlay, ports, rxjs, testing.
 */
import { defer, from, Subscription } from 'rxjs';
import type { ClickHouseSinkOptions } from '../../clickhouse/options.js';
import { openSinkOver, type Every } from '../../clickhouse/sink.js';
import type { PreparingSink, InsertBatch } from '../../ports.js';
import { overlay } from '../../overlay.js';
import type { SimulatedProcess } from '../process.js';
import type { SimulatedTable } from '../table.js';
import type { InvariantChecker } from '../invariant-checker.js';
import { identityOf, TABLE } from './questions.js';
import type { ServerWatch, SimulatedClickHouse } from './server.js';
import { SimulatedWire, type Tampering } from './wire.js';

/** Which batch a token belongs to: what a server sees names no batch. */
export class Tokens implements ServerWatch {
  readonly #batches = new Map<string, InsertBatch>();

  constructor(
    private readonly table: SimulatedTable,
    private readonly watch: InvariantChecker,
  ) {}

  remember(batch: InsertBatch): void {
    if (batch.token !== undefined) this.#batches.set(batch.token, batch);
  }

  /** Of the token as it is sent, with what the sink adds to it. */
  batchOf(sent: string): InsertBatch | undefined {
    for (let end = sent.length; end > 0; end = sent.lastIndexOf(':', end - 1)) {
      const batch = this.#batches.get(sent.slice(0, end));
      if (batch !== undefined) return batch;
    }
    return undefined;
  }

  arrived(token: string, rows: number, blockRows: number): void {
    const batch = this.batchOf(token);
    if (batch === undefined) return;
    this.watch.blocks(token, rows, blockRows);
    this.watch.landing(token, batch, identityOf(this.table));
  }

  landed(token: string): void {
    const batch = this.batchOf(token);
    if (batch !== undefined) this.watch.landed(token, batch);
  }

  took(token: string): void {
    const own = this.batchOf(token)?.token;
    if (own !== undefined && !token.startsWith(`${own}:fill1`)) this.watch.took(own);
  }

  torn(token: string): void {
    const batch = this.batchOf(token);
    if (batch !== undefined) this.watch.torn(batch);
  }
}

export interface ShippedConfig {
  readonly options?: Partial<ClickHouseSinkOptions>;
  readonly timeoutMs: number;
  readonly tampering?: Tampering | undefined;
  readonly topic: string;
}

/** Opens the sink that ships in a simulated process. Never settles where the process dies meanwhile. */
export async function openShippedSink(
  process: SimulatedProcess,
  server: SimulatedClickHouse,
  tokens: Tokens,
  watch: InvariantChecker,
  { options = {}, timeoutMs, tampering, topic }: ShippedConfig,
): Promise<PreparingSink> {
  const wire = new SimulatedWire(process, server, {
    timeoutMs,
    tampering,
    partitionOf: (token) => tokens.batchOf(token)?.assignment.partition,
  });
  const sink = await openSinkOver(
    wire,
    { url: wire.address, routes: [{ topic, table: TABLE }], ...options },
    () => process.scheduler.now(),
    rarely(process),
  );
  return overlay(sink, {
    prepare: (batch) => {
      tokens.remember(batch);
      const preparedInsert = sink.prepare(identified(batch));
      return overlay(preparedInsert, {
        insert: () => defer(() => (watch.inserting('insert', batch), from(preparedInsert.insert()))),
        readBack: (asked) => defer(() => (watch.inserting('readBack', batch), from(preparedInsert.readBack(asked)))),
        insertMissing: (missing) =>
          defer(() => (watch.inserting('insert in part', batch), from(preparedInsert.insertMissing(missing)))),
        fill: (missing) => defer(() => (watch.filling(batch), from(preparedInsert.fill(missing)))),
      });
    },
  });
}

/** Its values say which records they are, so that the verdict over the table rests on nothing that the sink adds. */
function identified(batch: InsertBatch): InsertBatch {
  const { partition } = batch.assignment;
  const records = batch.records.map((record) => ({
    ...record,
    value: Buffer.from(JSON.stringify({ id: record.timestampMs, p: partition, o: record.offset })),
  }));
  return { ...batch, records };
}

const MOST_TICKS = 4;

/**
 * A second of a simulated world is worth minutes of a real one, and a day of it not thousands of looks: they come
 * sooner, then no more.
 */
function rarely(process: SimulatedProcess): Every {
  return (everyMs, run) => {
    const ticking = new Subscription();
    let ticks = 0;
    const next = (): void => {
      const ms = (everyMs / 40) * 2 ** ticks;
      ticks += 1;
      if (ticks > MOST_TICKS) return;
      ticking.add(process.later(() => (run(), next()), ms));
    };
    next();
    return () => ticking.unsubscribe();
  };
}
