// A topic that is not what it was, and offsets that were moved, on the real broker with the whole pipeline: nothing is
// lost, doubled or passed over without a word.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { IngestConfig } from '../../src/config/config.js';
import type { IngestEvent, Outcome } from '../../src/events.js';
import { ingest } from '../../src/pipeline/ingest.js';
import { command, createTopic, produce, query, withAdmin } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';

const stack = () => sharedStack();

interface Place {
  readonly name: string;
  readonly config: IngestConfig;
}

async function place(): Promise<Place> {
  const name = `reset_${randomUUID().slice(0, 8)}`;
  const { brokers, clickhouseUrl, keeperConnect } = stack();
  await createTopic(brokers, name);
  await command(
    clickhouseUrl,
    `CREATE TABLE ${name} (life String, id UInt64, _partition UInt32, _offset UInt64)
     ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 10000`,
  );
  return {
    name,
    config: {
      kafka: { brokers, groupId: name, fromBeginning: true, sessionTimeoutMs: 2000, heartbeatIntervalMs: 300 },
      clickhouse: { url: clickhouseUrl },
      state: { store: 'keeper', connect: keeperConnect },
      delivery: 'exactly-once',
      routes: [{ topic: name, table: name }],
      batch: { count: 100, maxWaitMs: 50 },
    },
  };
}

const records = (life: string, count: number) => Array.from({ length: count }, (_, id) => JSON.stringify({ life, id }));

/** Rows of each life of the topic, and how many of them are distinct. */
async function rows({ name }: Place): Promise<Record<string, [rows: number, distinct: number]>> {
  const found = await query<{ life: string; n: number; u: number }>(
    stack().clickhouseUrl,
    `SELECT life, count() AS n, uniqExact(id) AS u FROM ${name} GROUP BY life`,
  );
  return Object.fromEntries(found.map(({ life, n, u }) => [life, [n, u]]));
}

interface Running {
  readonly outcomes: Outcome[];
  readonly events: IngestEvent[];
  until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void>;
  drain(): Promise<void>;
}

function start(config: IngestConfig): Running {
  const stopping = new AbortController();
  const [outcomes, events]: [Outcome[], IngestEvent[]] = [[], []];
  let failure: unknown;
  const over = new Promise<void>((resolve) => {
    ingest(config, { signal: stopping.signal, onEvent: (event) => events.push(event) }).subscribe({
      next: (outcome) => outcomes.push(outcome),
      complete: resolve,
      error: (error: unknown) => resolve(void (failure = error)),
    });
  });
  const drain = (): Promise<void> => (stopping.abort(), over);
  onTestFinished(drain);
  return {
    outcomes,
    events,
    until: async (what, isSo) => {
      const endMs = performance.now() + 120_000;
      while (!(await isSo())) {
        if (failure !== undefined || performance.now() > endMs)
          throw new Error(`in vain until ${what}`, { cause: failure ?? outcomes.at(-1) });
        await sleep(50);
      }
    },
    drain,
  };
}

async function recreate({ name }: Place): Promise<void> {
  await withAdmin(stack().brokers, async (admin) => {
    await admin.deleteTopics({ topics: [name] });
    for (let i = 0; i < 100 && (await admin.listTopics()).includes(name); i++) await sleep(50);
  });
  await createTopic(stack().brokers, name);
}

const haltsOf = ({ outcomes }: Running): string[] =>
  outcomes.flatMap((outcome) => (outcome.kind === 'halted' ? [outcome.error.message] : []));

async function ingestAll(at: Place, life: string, count: number): Promise<void> {
  await produce(stack().brokers, at.name, records(life, count));
  const running = start(at.config);
  await running.until('the rows were there', async () => (await rows(at))[life]?.[0] === count);
  await running.drain();
}

describe('a topic that was deleted and recreated while nobody looked, and has grown past the old offset', () => {
  test('halts its partition and says so, instead of dropping the rows below the old offset', async () => {
    const at = await place();
    await ingestAll(at, 'first', 300);
    await recreate(at);
    await produce(stack().brokers, at.name, records('second', 500));
    const running = start(at.config);
    await running.until('it halted', () => haltsOf(running).length > 0);
    expect(haltsOf(running)[0]).toMatch(/The topic was deleted and recreated: .* set onReset to "restart"/);
    expect(await rows(at)).toEqual({ first: [300, 300] });
  });

  test('is read from its beginning under `restart`, and no row is eaten by the tokens of the old one', async () => {
    const at = await place();
    await ingestAll(at, 'first', 300);
    await recreate(at);
    await produce(stack().brokers, at.name, records('second', 500));
    const running = start({ ...at.config, onReset: 'restart' });
    await running.until('the new rows were there', async () => (await rows(at))['second']?.[0] === 500);
    await running.drain();
    expect(await rows(at)).toEqual({ first: [300, 300], second: [500, 500] });
    expect(running.events).toContainEqual(
      expect.objectContaining({ kind: 'restarted', reason: 'recreated', settled: 299, startOffset: 0 }),
    );
  });
});

test('a topic that is recreated under a running process is read from its beginning under `restart`', async () => {
  const at = await place();
  await produce(stack().brokers, at.name, records('first', 300));
  const running = start({ ...at.config, onReset: 'restart' });
  await running.until('the rows were there', async () => (await rows(at))['first']?.[0] === 300);
  await recreate(at);
  await produce(stack().brokers, at.name, records('second', 500));
  await running.until('the new rows were there', async () => (await rows(at))['second']?.[0] === 500);
  await running.drain();
  expect(await rows(at)).toEqual({ first: [300, 300], second: [500, 500] });
});

describe('the group’s offsets were moved by an administrator', () => {
  async function moved(offset: number): Promise<{ readonly at: Place; readonly move: (to: number) => Promise<void> }> {
    const at = await place();
    await ingestAll(at, 'first', 300);
    await produce(stack().brokers, at.name, records('more', 200));
    const move = (to: number) =>
      withAdmin(
        stack().brokers,
        async (admin) =>
          void (await admin.setOffsets({
            groupId: at.name,
            topic: at.name,
            partitions: [{ partition: 0, offset: `${to}` }],
          })),
      );
    await move(offset);
    return { at, move };
  }

  async function goesOn(at: Place): Promise<Running> {
    const running = start(at.config);
    await running.until('the rest was there', async () => (await rows(at))['more']?.[0] === 200);
    await running.drain();
    expect(await rows(at)).toEqual({ first: [300, 300], more: [200, 200] });
    return running;
  }

  test('back: the state decides, nothing is doubled or passed over, and it is told', async () => {
    const { at } = await moved(0);
    const { events } = await goesOn(at);
    expect(events).toContainEqual(expect.objectContaining({ kind: 'resumed', committed: 0, resume: 300 }));
  });

  test('J9: forward: the partition halts before anything is inserted and says how to go on, which brings every row once', async () => {
    const { at, move } = await moved(450);
    const halted = start(at.config);
    await halted.until('it halted', () => halted.outcomes.some(({ kind }) => kind === 'halted'));
    await halted.drain();
    expect(halted.outcomes).toMatchObject([
      {
        kind: 'halted',
        error: { code: 'KCR_STATE_BEHIND', fields: { topic: at.name, partition: 0, first: 300, last: 449 } },
      },
    ]);
    expect(halted.outcomes).toMatchObject([
      { error: { fields: { hint: expect.stringContaining('set its offset to 300') as string } } },
    ]);
    expect(await rows(at)).toEqual({ first: [300, 300] });
    await move(300);
    await goesOn(at);
  });
});
