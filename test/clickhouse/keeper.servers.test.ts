// What a replicated table does while its Keeper is killed or frozen in the middle of inserts, and what the sink makes of
// it: nothing lost, nothing doubled, with codes 242 and 319 from a real server.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { type ClickHouseSinkOptions, openClickHouseSink } from '../../src/clickhouse/sink.js';
import { IngestError } from '../../src/errors.js';
import type { PreparingSink, InsertBatch } from '../../src/ports.js';
import { replicationFaultHere } from '../stack/clickhouse.js';
import { command, query } from '../stack/clients.js';
import { type Stack, startStack } from '../stack/stack.js';
import { replicated } from '../support/engines.js';
import { batchOf, intentOf, numbers, outcome, record } from './fixtures.js';

const fault = replicationFaultHere();
if (fault !== undefined) console.log(`skipped, since there are no replicated tables here: ${fault}`);

const TABLE_IS_READ_ONLY = 242;
const UNKNOWN_STATUS_OF_INSERT = 319;
/** More than the server needs to find out what it keeps. */
const SIX_MINUTES_MS = 360_000;

let stack: Stack;
const open: PreparingSink[] = [];

async function openSink(
  table: string,
  options: Partial<ClickHouseSinkOptions> = {},
  now?: () => number,
): Promise<PreparingSink> {
  const sink = await openClickHouseSink(
    { url: stack.clickhouseUrl, routes: [{ topic: 'orders', table }], requestTimeoutMs: 20_000, ...options },
    now,
  );
  open.push(sink);
  return sink;
}

async function sinkFor(
  table: string,
  options: Partial<ClickHouseSinkOptions> = {},
  now?: () => number,
): Promise<PreparingSink> {
  await command(
    stack.clickhouseUrl,
    `CREATE TABLE ${table} (k UInt64, _topic LowCardinality(String), _partition Int32, _offset Int64) ENGINE = ${replicated.engine('PARTITION BY k % 2 ORDER BY k')}`,
  );
  return openSink(table, options, now);
}

const content = async (table: string) => {
  const [row] = await query<{ n: number; u: number }>(
    stack.clickhouseUrl,
    `SELECT count() AS n, uniqExact(_partition, _offset) AS u FROM ${table}`,
  );
  return row!;
};
const ten = (first: number, partition = 0): InsertBatch =>
  batchOf(
    numbers(first, 10).map((offset) => record(offset, { k: offset })),
    { partition },
  );

/** As often as the pipeline would: the same insert until it succeeds. Adds the codes of what failed. */
async function deliver(sink: PreparingSink, batch: InsertBatch, codes: Set<number | string>): Promise<void> {
  for (const preparedInsert = sink.prepare(batch); ; await sleep(50)) {
    try {
      await outcome(preparedInsert.insert());
      return;
    } catch (error) {
      if (!(error instanceof IngestError) || !error.retryable) throw error;
      codes.add(error.fields.serverCode ?? error.code);
    }
  }
}

/** Writers that go on until they are stopped; gives how many batches they have delivered. */
function writers(sink: PreparingSink, codes: Set<number | string>): { stop(): Promise<number> } {
  let isWriting = true;
  let batches = 0;
  const all = numbers(0, 4).map(async (partition) => {
    for (let first = 0; isWriting; first += 10) {
      await deliver(sink, ten(first, partition), codes);
      batches++;
    }
  });
  return {
    stop: async () => {
      isWriting = false;
      await Promise.all(all);
      return batches;
    },
  };
}

/** After a start with Keeper there the server keeps no part of which it does not know. */
async function startAgain(): Promise<void> {
  await stack.clickhouse!.kill();
  await stack.clickhouse!.start();
  await vi.waitFor(
    async () =>
      expect(await query(stack.clickhouseUrl, 'SELECT sum(is_readonly) AS n FROM system.replicas')).toEqual([{ n: 0 }]),
    { timeout: 60_000, interval: 100 },
  );
}

describe.skipIf(fault !== undefined)('a replicated table', () => {
  beforeAll(async () => {
    stack = await startStack({ kafka: false, useEnvironment: false });
  });
  afterEach(async () => {
    for (const sink of open.splice(0)) await outcome(sink.close());
  });
  afterAll(() => stack.stop());

  it('whose ZooKeeper is killed again and again in the middle of inserts has every row once', async () => {
    const sink = await sinkFor('killed');
    const codes = new Set<number | string>();
    const writing = writers(sink, codes);
    // A kill may meet no insert; then there is another one.
    for (let kill = 0; kill < 2 || (!codes.has(TABLE_IS_READ_ONLY) && kill < 30); kill++) {
      await sleep(100 + Math.random() * 200);
      await stack.zookeeper!.kill();
      await sleep(300);
      await stack.zookeeper!.start();
    }
    const batches = await writing.stop();
    console.log(`${batches} batches, failed with ${[...codes].join(', ')}`);
    expect(codes).toContain(TABLE_IS_READ_ONLY);
    await startAgain();
    expect(await content('killed')).toEqual({ n: batches * 10, u: batches * 10 });
  });

  it('whose ZooKeeper is frozen until the client gives up has every row once', async () => {
    const sink = await sinkFor('frozen', { requestTimeoutMs: 1000 });
    const codes = new Set<number | string>();
    await deliver(sink, ten(1000), codes);
    codes.clear();
    stack.zookeeper!.prepare();
    const writing = writers(sink, codes);
    try {
      await vi.waitFor(() => expect(codes).toContain('KCR_INSERT_IN_DOUBT'), { timeout: 30_000, interval: 50 });
    } finally {
      stack.zookeeper!.thaw();
    }
    const batches = await writing.stop();
    await startAgain();
    expect(await content('frozen')).toEqual({ n: (batches + 1) * 10, u: (batches + 1) * 10 });
  });

  describe('that answers 319: it does not know whether it keeps what was written', () => {
    it('has every row once after the retry; the rows it shows beside it are believed by nobody, not even by the next process', async () => {
      let nowMs = Date.now();
      const sink = await sinkFor(
        'unknown',
        { clickhouseSettings: { insert_keeper_fault_injection_probability: 0.2, insert_keeper_max_retries: 0 } },
        () => nowMs,
      );
      const codes = new Set<number | string>();
      let batch = ten(0);
      // Until a part is there twice: that of the attempt and that of the retry.
      for (let first = 0; ; first += 10) {
        batch = ten(first);
        codes.clear();
        await deliver(sink, batch, codes);
        const { n, u } = await content('unknown');
        expect(u).toBe(first + 10);
        if (codes.has(UNKNOWN_STATUS_OF_INSERT) && n > u) break;
        expect(first).toBeLessThan(5000);
      }
      const doubt = 'the token may be forgotten';
      const preparedInsert = (by: PreparingSink) => by.prepare({ ...batch, replay: true, intent: intentOf(by, batch) });
      await expect(outcome(preparedInsert(sink).readBack(doubt))).rejects.toMatchObject({
        code: 'KCR_INSERT_IN_DOUBT',
      });
      // Who comes later was not told of the 319; so was who had given up waiting for the answer.
      const next = await openSink('unknown');
      await expect(outcome(preparedInsert(next).readBack(doubt))).rejects.toMatchObject({
        code: 'KCR_INSERT_IN_DOUBT',
      });
      await startAgain();
      nowMs += SIX_MINUTES_MS;
      for (const by of [sink, next])
        await expect(outcome(preparedInsert(by).readBack(doubt))).resolves.toEqual({ missing: [], doubled: [] });
      const { n, u } = await content('unknown');
      expect(n).toBe(u);
    });
  });
});
