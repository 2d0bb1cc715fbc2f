// Servers that accept and say no more, from each moment of the start on: nothing outside keeps the program from ending.
import { randomUUID } from 'node:crypto';
import { describe, expect, onTestFinished, test } from 'vitest';
import { command, createTopic, produce } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { silentAfter, type SilencedServer } from '../support/silent-after.js';
import { configFile, program, runConfig } from './program.js';

/** Far below what the servers' own limits come to (118 s of ClickHouse), far above what a busy machine needs. */
const SOON_MS = 15_000;
const drainTimeoutMs = 2_000;

interface Silenced {
  readonly kafka: SilencedServer;
  readonly clickhouse: SilencedServer;
  readonly keeper: SilencedServer;
}

/** A topic and a table on the real servers, reached through proxies that stop after so many answers each. */
async function place(answers: {
  readonly kafka?: number;
  readonly clickhouse?: number;
  readonly keeper?: number;
}): Promise<Silenced & { readonly config: object }> {
  const name = `silent_${randomUUID().slice(0, 8)}`;
  const { brokers, clickhouseUrl, keeperConnect } = sharedStack();
  await createTopic(brokers, name, { partitions: 2 });
  await command(
    clickhouseUrl,
    `CREATE TABLE ${name} (id UInt64, _topic String, _partition UInt32, _offset UInt64) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000`,
  );
  await produce(
    brokers,
    name,
    Array.from({ length: 50 }, (_, id) => JSON.stringify({ id })),
  );
  const [kafka, clickhouse, keeper] = await Promise.all([
    // The broker gives its own address to whoever asks: only the first connections go this way, those of the start.
    silentAfter(brokers[0]!, answers.kafka),
    silentAfter(new URL(clickhouseUrl).host, answers.clickhouse),
    silentAfter(keeperConnect, answers.keeper),
  ]);
  for (const server of [kafka, clickhouse, keeper]) onTestFinished(() => server.stop());
  const config = {
    kafka: { brokers: [kafka.address], groupId: name, fromBeginning: true, drainTimeoutMs },
    clickhouse: { url: `http://${clickhouse.address}` },
    state: { store: 'keeper', connect: keeper.address },
    delivery: 'exactly-once',
    routes: [{ topic: name, table: name }],
    batch: { maxWaitMs: 20 },
  };
  return { kafka, clickhouse, keeper, config };
}

const first = (count: number, every = 1) => Array.from({ length: count }, (_, i) => i * every);

describe('G5: SIGTERM is obeyed at every moment of the start', () => {
  const moments = [
    ...first(6).map((answers) => ['kafka', answers] as const),
    ...first(16).map((answers) => ['clickhouse', answers] as const),
    ...first(8).map((answers) => ['keeper', answers] as const),
  ];
  test.each(moments)('%s says no more after %i answers', async (server, answers) => {
    const at = await place({ [server]: answers });
    const running = runConfig(at.config);
    // The moment itself, or a start that was through before it came to that.
    await running.until(() => at[server].isSilenced || running.stderr.includes('"claimed"'), 'the server was silent');
    const fromMs = performance.now();
    running.signal('SIGTERM');
    const { code } = await running.ended;
    expect(performance.now() - fromMs).toBeLessThan(SOON_MS);
    // 7: a partition was assigned, and what was under way of it is in doubt. Before that there is nothing to drain.
    expect(running.stderr.includes('"assigned"') ? [0, 7] : [0]).toContain(code);
  });
});

test.each(['kafka', 'clickhouse', 'keeper'] as const)(
  'G5: drain --timeout 3 ends about then, whichever server is silent: %s',
  async (server) => {
    const { config } = await place({ [server]: 0 });
    const fromMs = performance.now();
    const { code, stderr } = await program(['drain', configFile(config), '--timeout', '3']).ended;
    expect(performance.now() - fromMs).toBeLessThan(SOON_MS);
    expect({ code, stderr }).toEqual({ code: 7, stderr: expect.stringContaining('KCR_DRAIN_TIMEOUT') as string });
  },
);

test.each(['clickhouse', 'keeper'] as const)(
  'G6: a drain with a server away ends below half a minute by default: %s',
  async (server) => {
    const at = await place({});
    const { drainTimeoutMs: _short, ...kafka } = (at.config as { kafka: { drainTimeoutMs: number } }).kafka;
    const running = runConfig({ ...at.config, kafka }, {}, ['--log-level', 'debug']);
    await running.until(() => running.stderr.includes('"delivered"'), 'it ran');
    at[server].silence();
    // Something to hold the drain up: rows that cannot be inserted, settled or committed.
    const { topic } = (at.config as { routes: { topic: string }[] }).routes[0] as { topic: string };
    await produce(
      sharedStack().brokers,
      topic,
      Array.from({ length: 50 }, (_, id) => JSON.stringify({ id })),
    );
    await running.until(() => at[server].isSilenced, 'something waits for the server');
    const fromMs = performance.now();
    running.signal('SIGTERM');
    const { code } = await running.ended;
    expect(performance.now() - fromMs).toBeLessThan(29_000);
    expect([0, 7]).toContain(code);
  },
);
