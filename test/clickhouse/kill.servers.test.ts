// What ClickHouse does when it is killed or frozen in the middle of an insert, and what the sink makes of it.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { openClickHouseSink } from '../../src/clickhouse/sink.js';
import { hasCode, IngestError } from '../../src/errors.js';
import type { PreparingSink, InsertBatch } from '../../src/ports.js';
import { command, query } from '../stack/clients.js';
import type { ServerProcess } from '../stack/process.js';
import { type Stack, startStack } from '../stack/stack.js';
import { familiesHere, plain } from '../support/engines.js';
import { batchOf, intentOf, numbers, outcome, record } from './fixtures.js';

const families = familiesHere();
let stack: Stack;
let server: ServerProcess;
const open: PreparingSink[] = [];

beforeAll(async () => {
  stack = await startStack({ kafka: false, useEnvironment: false });
  if (stack.clickhouse === undefined) throw new Error('this test kills ClickHouse, so it needs one of its own');
  server = stack.clickhouse;
});
afterEach(async () => {
  for (const sink of open.splice(0)) await outcome(sink.close());
});
afterAll(() => stack.stop());

const COLUMNS = 'k UInt64, pad String, _topic LowCardinality(String), _partition Int32, _offset Int64';

async function sinkFor(table: string, { family = plain, columns = COLUMNS } = {}): Promise<PreparingSink> {
  await command(
    stack.clickhouseUrl,
    `CREATE TABLE ${table} (${columns}) ENGINE = ${family.engine('PARTITION BY k % 2 ORDER BY k')}`,
  );
  return openSink(table);
}

async function openSink(table: string, requestTimeoutMs = 20_000): Promise<PreparingSink> {
  const sink = await openClickHouseSink({
    url: stack.clickhouseUrl,
    routes: [{ topic: 'orders', table }],
    requestTimeoutMs,
  });
  open.push(sink);
  return sink;
}

interface Attempts {
  failed: number;
  inDoubt: number;
  filled: number;
}

/** What the pipeline does: the same insert until it succeeds, and where there was doubt, a look. */
async function deliver(sink: PreparingSink, batch: InsertBatch, seen: Attempts): Promise<void> {
  const preparedInsert = sink.prepare(batch);
  let doubt = false;
  const retried = async <T>(call: () => Promise<T>): Promise<T> => {
    for (;;) {
      try {
        return await call();
      } catch (error) {
        if (!(error instanceof IngestError) || !error.retryable) throw error;
        seen.failed++;
        if (hasCode(error, 'KCR_INSERT_IN_DOUBT')) {
          doubt = true;
          seen.inDoubt++;
        }
        await sleep(50);
      }
    }
  };
  await retried(() => outcome(preparedInsert.insert()));
  if (!doubt || !preparedInsert.readBackWhenInDoubt) return;
  const { missing, doubled } = await retried(() => outcome(preparedInsert.readBack()));
  expect(doubled).toEqual([]);
  if (missing.length === 0) return;
  seen.filled += missing.length;
  await retried(() => outcome(preparedInsert.fill(missing)));
  expect(await retried(() => outcome(preparedInsert.readBack()))).toEqual({ missing: [], doubled: [] });
}

const content = async (table: string) => {
  const [row] = await query<{ n: number; u: number; lost: number }>(
    stack.clickhouseUrl,
    `SELECT count() AS n, uniqExact(_partition, _offset) AS u FROM ${table}`,
  );
  return row;
};

describe('ClickHouse killed in the middle of inserts', () => {
  it.each(families)('after retry, read-back and fill every row is there once, in a $name table', async (family) => {
    const table = `killed_${family.name}`;
    const sink = await sinkFor(table, { family });
    const seen: Attempts = { failed: 0, inDoubt: 0, filled: 0 };
    // The gap between token and part is a plain table's.
    const KILLS = family === plain ? 6 : 3;
    let killing = true;
    let batches = 0;
    const writer = async (partition: number): Promise<void> => {
      for (let first = 0; killing; first += 10) {
        const records = numbers(first, 10).map((offset) => record(offset, { k: offset, pad: 'x'.repeat(20_000) }));
        await deliver(sink, batchOf(records, { partition }), seen);
        batches++;
      }
    };
    const writers = Promise.all(numbers(0, 4).map(writer));
    // On a busy machine a kill may meet no insert at all.
    for (let kill = 0; kill < KILLS || (seen.inDoubt === 0 && kill < 10 * KILLS); kill++) {
      await sleep(150 + Math.random() * 200);
      await server.kill();
      await server.start();
    }
    killing = false;
    await writers;
    console.log(
      `${batches} batches, ${seen.failed} failed attempts, ${seen.inDoubt} in doubt, ${seen.filled} rows filled`,
    );
    expect(seen.failed).toBeGreaterThan(0);
    expect(seen.inDoubt).toBeGreaterThan(0);
    expect(await content(table)).toEqual({ n: batches * 10, u: batches * 10 });
  });

  it('a part that was lost although its token was kept is filled: the repeated insert alone would lose it for good', async () => {
    const sink = await sinkFor('lost_part');
    const batch = batchOf(numbers(0, 10).map((offset) => record(offset, { k: offset })));
    const preparedInsert = sink.prepare(batch);
    await outcome(preparedInsert.insert());
    const [part] = await query<{ path: string }>(
      stack.clickhouseUrl,
      "SELECT path FROM system.parts WHERE table = 'lost_part' AND active AND partition = '1'",
    );
    await server.kill();
    // The state a kill between the token's line in the log and the part's rename leaves behind.
    rmSync(part?.path.startsWith('/') ? part.path : join(server.dataDir, part?.path ?? ''), { recursive: true });
    await server.start();
    await outcome(preparedInsert.insert());
    expect(await content('lost_part')).toMatchObject({ n: 5 });
    const { missing } = await outcome(preparedInsert.readBack());
    expect(missing).toEqual([1, 3, 5, 7, 9]);
    await outcome(preparedInsert.fill(missing));
    await expect(outcome(preparedInsert.readBack())).resolves.toEqual({ missing: [], doubled: [] });
    expect(await content('lost_part')).toMatchObject({ n: 10, u: 10 });
  });

  it('a table without provenance columns is not trusted any more after the restart', async () => {
    const sink = await sinkFor('restarted', { columns: 'k UInt64' });
    const batch = batchOf(numbers(0, 4).map((offset) => record(offset, { k: offset })));
    const preparedInsert = sink.prepare({ ...batch, intent: intentOf(sink, batch) });
    await outcome(preparedInsert.insert());
    await server.kill();
    await server.start();
    await outcome(preparedInsert.insert());
    await expect(outcome(preparedInsert.readBack())).rejects.toMatchObject({
      code: 'KCR_READ_BACK',
      fields: { hint: expect.stringContaining('ALTER TABLE') as string },
    });
  });

  it('while it is down nothing is in doubt', async () => {
    const sink = await sinkFor('down');
    await server.kill();
    await expect(outcome(sink.prepare(batchOf([record(1, { k: 1 })])).insert())).rejects.toMatchObject({
      code: 'KCR_INSERT_RETRIABLE',
    });
    await server.start();
    await outcome(sink.prepare(batchOf([record(1, { k: 1 })])).insert());
    expect(await content('down')).toMatchObject({ n: 1 });
  });
});

it.each(families)(
  'ClickHouse frozen: the insert into a $name table times out, lands when it thaws, and the repeated one changes nothing',
  async (family) => {
    const table = `frozen_${family.name}`;
    await sinkFor(table, { family });
    // The time-out is short for the frozen one's sake: a busy machine may miss it anywhere.
    const inTheEnd = <T>(call: () => Promise<T>): Promise<T> => vi.waitFor(call, { timeout: 60_000, interval: 50 });
    const sink = await inTheEnd(() => openSink(table, 400));
    await inTheEnd(() => outcome(sink.prepare(batchOf([record(0, { k: 0 })])).insert()));
    const preparedInsert = sink.prepare(batchOf(numbers(1, 4).map((offset) => record(offset, { k: offset }))));
    server.prepare();
    try {
      await expect(outcome(preparedInsert.insert())).rejects.toMatchObject({ code: 'KCR_INSERT_IN_DOUBT' });
    } finally {
      server.thaw();
    }
    // While the server is still at the first one it refuses the second.
    await inTheEnd(() => outcome(preparedInsert.insert()));
    expect(await inTheEnd(() => outcome(preparedInsert.readBack()))).toEqual({ missing: [], doubled: [] });
    expect(await content(table)).toMatchObject({ n: 5, u: 5 });
  },
);
