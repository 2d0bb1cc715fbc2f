// What people do about a pipeline, on real servers: look, drain, verify, reset.
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { produce } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { httpProxy } from '../support/http-proxy.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { event, events, Place } from './place.js';
import { configFile, program } from './program.js';

interface Shown {
  readonly partitions: readonly { readonly halted?: { readonly atMs: number } | null }[];
  readonly totals: { readonly halted?: number };
}

interface Compared {
  readonly clean: boolean;
  readonly partitions: readonly object[];
}

const none = { count: 0, first: [] };

describe('a process that was killed in the middle of an insert', () => {
  test('leaves a range that state show tells, that drain resolves and takes nothing new, and that verify finds exactly once', async () => {
    // Inserts are held on their way, and their connections cut: what was sent stays in doubt for as long as that lasts.
    const proxy = await httpProxy(sharedStack().clickhouseUrl);
    onTestFinished(() => proxy.stop());
    proxy.holds = ({ isInsert }) => isInsert;
    const at = await Place.make({ partitions: 2, config: { clickhouse: { url: proxy.url } } });
    const { brokers } = at.stack;
    await produce(brokers, at.name, events(0, 10));
    expect((await at.run('state show')).stdout).toMatch(
      /no state .* 10 +10 +– +–\n[^]*2 partitions \(2 without a state\), nothing in doubt, lag 10/,
    );

    const running = program(['run', at.file, '--log-level', 'debug']);
    await running.until(() => running.stderr.includes('stateWritten'), 'the insert was under way');
    running.signal('SIGKILL');
    await running.ended;
    await produce(brokers, at.name, events(10, 5));
    const killed = await at.json<Shown>('state show');
    expect(killed).toMatchObject({
      exit: 0,
      totals: { partitions: 2, inDoubt: 1, lag: 15 },
      partitions: [
        {
          settled: null,
          inDoubt: [{ first: 0, last: 9, rows: 10, tables: [`default.${at.name}`] }],
          owner: expect.any(String) as string,
        },
        { settled: null, inDoubt: [] },
      ],
    });

    const late = await at.run('drain', '--timeout', '15');
    expect(late.stdout).toMatch(/0-9 is STILL IN DOUBT[^]*Time was up/);
    expect(late.code).toBe(7);
    proxy.holds = () => false;
    const drained = await at.run('drain');
    expect(drained.stdout).toContain(`${at.name}/0: 0-9 was in doubt and is settled (10 rows sent`);
    expect(drained.stdout).toMatch(/2 partitions of 2 looked after[^]*Nothing is in doubt\.\n$/);
    expect(drained.code).toBe(0);

    expect(await proxy.release()).not.toEqual([]);
    expect(await at.settled()).toBe(9);
    expect(await at.rows('SELECT count() AS n, uniqExact(id) AS ids FROM {table}')).toEqual([{ n: 10, ids: 10 }]);
    const verified = await at.run('verify');
    expect(verified.stdout).toMatch(
      /0-9 +10 +0 +0 +0\n[^]*nothing is settled[^]*every one is in the table exactly once/,
    );
    expect(verified.code).toBe(0);
  });
});

describe('verify and reset', () => {
  test('what was done to the table by hand is found; a reset says what it means, fences what runs, and does it', async () => {
    // Nobody's session runs out: who joins again claims again, and there is nothing to fence.
    const at = await Place.make({ sessionTimeoutMs: 60_000 });
    const { brokers } = at.stack;
    await produce(brokers, at.name, events(0, 10)); // 0-9
    await produce(brokers, at.name, events(100, 3), { transactional: 'abort' }); // 10-12, and 13 is its marker
    await produce(brokers, at.name, events(20, 6), { transactional: 'commit' }); // 14-19, and 20 is its marker
    const running = program(['run', at.file]);
    await running.until(async () => (await at.settled()) === 20, 'everything was settled');
    expect(await at.verified()).toMatchObject({
      partitions: [
        {
          range: { first: 0, last: 20 },
          records: 16,
          missing: none,
          doubled: none,
          unexpected: none,
          beyond: undefined,
        },
      ],
    });

    await at.sql(`ALTER TABLE {table} DELETE WHERE _offset IN (0, 5, 17) SETTINGS mutations_sync = 1`);
    await at.sql(
      `INSERT INTO {table} VALUES (3, '', '${at.name}', 0, 3), (4, '', '${at.name}', 0, 4), (9, '', '${at.name}', 0, 11), (9, '', '${at.name}', 0, 99), (9, '', 'other', 0, 6)`,
    );
    const differs = await at.json<Compared>('verify', '--from-offset', '0', '--show', '1');
    expect(differs).toMatchObject({
      exit: 5,
      clean: false,
      partitions: [
        {
          missing: { count: 3, first: [0] },
          doubled: { count: 2, first: [3] },
          unexpected: { count: 1, first: [11] },
          beyond: 99,
        },
      ],
    });
    const dry = await at.run('state reset', '--to-offset', '15');
    expect(dry.stdout).toMatch(
      /settled 20 → goes on at offset 15, incarnation 0 → 1\n {2}TWICE: offsets 15-20 \(6\)[^]*has a member[^]*Nothing was changed/,
    );
    expect(await at.settled()).toBe(20);
    expect((await at.run('state reset', '--to-offset', '15', '--apply')).code).toBe(0);
    // Its next write fails; then it claims again, and goes on where it was told to.
    await produce(brokers, at.name, [event(30)]);
    await running.until(async () => (await at.settled()) === 21, 'it was settled again');
    running.signal('SIGTERM');
    expect((await running.ended).code).toBe(0);
    expect(running.stderr).toContain('fenced');
    expect(
      await at.rows('SELECT _offset AS o, count() AS n FROM {table} WHERE o BETWEEN 14 AND 21 GROUP BY o ORDER BY o'),
    ).toEqual(
      [
        [14, 1],
        [15, 2],
        [16, 2],
        [17, 1],
        [18, 2],
        [19, 2],
        [21, 1],
      ].map(([o, n]) => ({ o, n })),
    );
  });

  test('a transform is applied to know how many rows a record has; without provenance columns the statement that adds them is told', async () => {
    const at = await Place.make();
    const text = `export default { ...${JSON.stringify(at.config)}, routes: [{ topic: '${at.name}', table: '${at.name}', transform: (record) => {
      const row = JSON.parse(String(record.value)); return row.id % 2 ? null : row.id % 4 ? row : [row, row]; } }] };`;
    const file = configFile(text, 'config.mjs');
    await produce(at.stack.brokers, at.name, events(0, 20));
    const running = program(['run', file]);
    await running.until(async () => (await at.settled()) === 19, 'everything was settled');
    running.signal('SIGTERM');
    await running.ended;
    expect(await at.rows('SELECT count() AS n FROM {table}')).toEqual([{ n: 15 }]);
    const verified = await program(['verify', file]).ended;
    expect(verified).toMatchObject({ code: 0, stdout: expect.stringMatching(/0-19 +10 +0 +0 +0\n/) as string });
    // As if there were none: ten records seem to be missing, five to be there twice.
    expect(await at.verified()).toMatchObject({
      partitions: [{ missing: { count: 10 }, doubled: { count: 5 }, unexpected: none }],
    });

    await at.sql('ALTER TABLE {table} DROP COLUMN _offset');
    const refused = await at.run('verify');
    expect(refused.code).toBe(3);
    expect(refused.stderr).toMatch(
      /KCR_TABLE_UNSUITABLE.*no column _offset.*ALTER TABLE default\.\w+ ADD COLUMN _offset Int64/,
    );
  });
});

test('a command that is refused ends, though Kafka is slow and a connection to it was under way: nobody waits for a process that says it is done', async () => {
  const at = await Place.make({
    table:
      'CREATE TABLE {table} (id UInt64) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000',
  });
  const kafka = await TcpProxy.start({ to: at.stack.brokers[0]! });
  onTestFinished(() => kafka.stop());
  kafka.delay(300);
  const running = program([
    'verify',
    configFile({ ...at.config, kafka: { brokers: [kafka.address], groupId: at.name } }),
  ]);
  const ended = await Promise.race([running.ended, sleep(60_000, 'still running', { ref: false })]);
  expect(ended).toMatchObject({ code: 3, stderr: expect.stringContaining('KCR_TABLE_UNSUITABLE') as string });
});

test('a state that is kept beside the committed offsets is reset while the group is empty, and only then', async () => {
  const at = await Place.make({ config: { state: { store: 'kafka' } } });
  await produce(at.stack.brokers, at.name, events(0, 10));
  const running = program(['run', at.file]);
  await running.until(async () => (await at.settled()) === 9, 'everything was settled');
  const refused = await at.run('state reset', '--to-offset', '4', '--apply');
  expect(refused).toMatchObject({
    code: 5,
    stderr: expect.stringMatching(/KCR_KAFKA: The group \w+ has members.*stop every process of the group/) as string,
  });
  expect(await at.settled()).toBe(9);
  running.signal('SIGTERM');
  await running.ended;
  expect(await at.json('state reset', '--to-offset', '4', '--apply')).toMatchObject({
    exit: 0,
    applied: true,
    partitions: [{ to: 4, settledBefore: 9, twice: { first: 4, last: 9 } }],
  });
  expect(await at.settled()).toBe(3);
  const again = program(['run', at.file]);
  await again.until(async () => (await at.settled()) === 9, 'it was settled again');
  again.signal('SIGTERM');
  expect((await again.ended).code).toBe(0);
  expect(await at.rows('SELECT count() AS n, countIf(_offset >= 4) AS twice FROM {table}')).toEqual([
    { n: 16, twice: 12 },
  ]);
});

test('a partition that halted is seen in its state with why, since when, and who must act, until it goes on: else it stands unseen once the log is gone', async () => {
  const at = await Place.make({ partitions: 2 });
  await produce(at.stack.brokers, at.name, [
    ...events(0, 5),
    { value: '{"id":"no number"}', partition: 0 },
    ...events(10, 5, 1),
  ]);
  const beforeMs = Date.now();
  const running = program(['run', at.file]);
  await running.until(async () => (await at.settled(1)) === 4, 'the other partition went on');
  await running.until(async () => (await at.json<Shown>('state show')).totals.halted === 1, 'the halt was stored');
  running.signal('SIGTERM');
  expect((await running.ended).code).toBe(4);
  const shown = await at.json<Shown>('state show');
  expect(shown).toMatchObject({
    partitions: [
      { halted: { code: 'KCR_POISON', heals: false, atMs: expect.any(Number) as number } },
      { settled: 4, halted: null },
    ],
  });
  expect(shown.partitions[0]?.halted?.atMs).toBeGreaterThanOrEqual(beforeMs);
  expect((await at.run('state show')).stdout.replace(/\s+/gu, ' ')).toContain(`${at.name}/0: HALTED since`);

  // Nothing has changed, so it stands since then; behind the record it goes on.
  const again = program(['run', at.file]);
  await again.until(() => again.stderr.includes('partition halted'), 'it halted again');
  again.signal('SIGTERM');
  expect((await again.ended).code).toBe(4);
  expect((await at.json<Shown>('state show')).partitions[0]?.halted).toMatchObject({
    atMs: shown.partitions[0]?.halted?.atMs,
  });
  expect((await at.run('state reset', '--to-offset', '6', '--partition', '0', '--apply')).code).toBe(0);
  expect((await at.json<Shown>('state show')).totals).toMatchObject({ halted: 0 });
});
