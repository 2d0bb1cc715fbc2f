// Taking over from clickhouse-kafka-connect: its table in its very shape, on real servers.
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { commitToEmptyGroup } from '../../src/kafka/group-admin.js';
import { committedOffsets, kafkaClient, produce, withAdmin } from '../stack/clients.js';
import { Place } from './place.js';
import { program } from './program.js';

const withoutProvenance =
  'CREATE TABLE {table} (id UInt64, text String) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000';
const row = (partition: number, offset: number) =>
  JSON.stringify({ id: partition * 1000 + offset, text: `event ${offset}` });
const offsets = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, i) => first + i);

/** What the connector does: the statements are its own (KeeperStateProvider, QueryIdentifier of version 1.3). */
class Connector {
  readonly group: string;

  constructor(readonly at: Place) {
    this.group = `connect-${at.name}`;
  }

  async begin(): Promise<void> {
    await this.at.sql(
      `CREATE TABLE IF NOT EXISTS \`{table}_state\` (\`key\` String, minOffset BIGINT, maxOffset BIGINT, state String) ENGINE=KeeperMap('/kafka-connect-{table}') PRIMARY KEY \`key\`;`,
    );
  }

  async state(
    partition: number,
    first: number,
    last: number,
    state: 'BEFORE_PROCESSING' | 'AFTER_PROCESSING' | 'NONE',
    topic = this.at.name,
  ): Promise<void> {
    await this.at.sql(
      `INSERT INTO \`{table}_state\` SETTINGS wait_for_async_insert=1 VALUES ('${topic}-${partition}', ${first}, ${last}, '${state}');`,
    );
  }

  async insert(partition: number, first: number, last: number): Promise<void> {
    const token = `${this.at.name}-${partition}-${first}-${last}`;
    const data = offsets(first, last)
      .map((offset) => row(partition, offset))
      .join('\n');
    await this.at.sql('INSERT INTO {table} FORMAT JSONEachRow', {
      data,
      settings: { insert_deduplication_token: token },
    });
  }

  /** Of partitions 0, 1 and 2: all is done; a range landed, and the connector was killed before it wrote AFTER; one did not. */
  async stopInThreeStates(): Promise<void> {
    await this.insert(0, 0, 19);
    await this.state(0, 0, 19, 'AFTER_PROCESSING');
    await this.insert(1, 0, 9);
    await this.insert(1, 10, 19);
    await this.state(1, 10, 19, 'BEFORE_PROCESSING');
    await this.insert(2, 0, 9);
    await this.state(2, 10, 19, 'BEFORE_PROCESSING');
  }

  import(...options: readonly string[]) {
    return this.at.run('state import-connect', '--connect-table', `${this.at.name}_state`, ...options);
  }
}

/** Rows by partition, and how many records they are of. */
const tally = (at: Place) =>
  at.rows<{ p: number; n: number; ids: number }>(
    'SELECT intDiv(id, 1000) AS p, count() AS n, uniqExact(id) AS ids FROM {table} GROUP BY p ORDER BY p',
  );

test('every state of it becomes ours, and of no record there is a row too many or too few afterwards', async () => {
  const at = await Place.make({ partitions: 6, table: withoutProvenance });
  const { brokers } = at.stack;
  const connector = new Connector(at);
  await connector.begin();
  const produced = [0, 1, 2, 3, 5].flatMap((partition) =>
    offsets(0, 29).map((offset) => ({ partition, value: row(partition, offset) })),
  );
  // In partition 5 the connector was stuck at a record that cannot be inserted.
  await produce(
    brokers,
    at.name,
    produced.map((message) => (message.value.includes('"id":5012') ? { ...message, value: 'nonsense' } : message)),
  );
  await connector.stopInThreeStates();
  await connector.state(3, 0, 0, 'NONE');
  await connector.insert(5, 0, 9);
  await connector.state(5, 10, 19, 'BEFORE_PROCESSING');
  await connector.state(0, 0, 99, 'AFTER_PROCESSING', 'another-topic');

  const unknown = await connector.import('--apply');
  expect(unknown.stdout).toMatch(
    /3 +NONE +REFUSED: the connector has inserted nothing of it[^]*Whether the connector still runs was not looked at[^]*nothing was changed/,
  );
  expect(unknown.code).toBe(5);
  const consumer = kafkaClient(brokers).consumer({ groupId: connector.group });
  await consumer.connect();
  await consumer.subscribe({ topic: at.name });
  const joined = new Promise((resolve) => consumer.on('consumer.group_join', resolve));
  await consumer.run({ autoCommit: false, eachBatch: async () => sleep(0) });
  await joined;
  const alive = await connector.import('--connect-group', connector.group, '--apply');
  expect(alive).toMatchObject({
    code: 5,
    stderr: expect.stringMatching(/KCR_KAFKA: The connector still runs: its group connect-\w+ has a member/) as string,
  });
  await consumer.stop();
  await consumer.disconnect();
  await withAdmin(brokers, (admin) =>
    admin.setOffsets({ groupId: connector.group, topic: at.name, partitions: [{ partition: 3, offset: '7' }] }),
  );

  const dry = await connector.import('--connect-group', connector.group);
  expect(dry.stdout).toMatch(/0 +AFTER_PROCESSING +0-19 +settled up to 19; goes on at 20\n/);
  expect(dry.stdout).toContain(`token ${at.name}-1-10-19`);
  expect(dry.stdout).toMatch(
    /3 +NONE +goes on at offset 7, which[^]*4 +no row +goes on at offset 0: the log holds nothing\n/,
  );
  expect(dry.stdout).toMatch(/no route has the topic: another-topic\/0[^]*Nothing was changed\. Add --apply/);
  expect(dry.code).toBe(0);
  expect(await at.settled()).toBeUndefined();
  expect((await connector.import('--connect-group', connector.group, '--apply')).code).toBe(0);
  expect(await at.settled(1)).toBe(9);

  // The range with the bad record halts, the others are resolved.
  const drained = await at.run('drain');
  expect(drained.stdout).toMatch(/\/1: 10-19 was in doubt and is settled/);
  expect(drained.stdout).toMatch(/\/2: 10-19 was in doubt and is settled/);
  expect(drained.stdout).toMatch(/\/5: HALTED: KCR_POISON[^]*\/5: 10-19 is STILL IN DOUBT/);
  expect(drained.code).toBe(4);
  const skip = await at.run('state reset', '--partition', '5', '--to-offset', '13', '--apply');
  expect(skip.stdout).toMatch(/PERHAPS LOST: offsets 10-12 \(3\)[^]*PERHAPS TWICE: offsets 13-19 \(7\)[^]*Done\./);

  const running = program(['run', at.file]);
  await running.until(async () => (await tally(at)).reduce((sum, { n }) => sum + n, 0) >= 140, 'everything was there');
  running.signal('SIGTERM');
  expect((await running.ended).code).toBe(0);
  expect(await tally(at)).toEqual(
    [
      [0, 30],
      [1, 30],
      [2, 30],
      [3, 23],
      [5, 27],
    ].map(([p, n]) => ({ p, n, ids: n })),
  );
});

test('where the table has provenance columns it is asked, unless the connector has not filled them', async () => {
  const at = await Place.make({ partitions: 2 });
  const connector = new Connector(at);
  await connector.begin();
  await produce(
    at.stack.brokers,
    at.name,
    [0, 1].flatMap((partition) => offsets(0, 19).map((offset) => ({ partition, value: row(partition, offset) }))),
  );
  for (const [partition, filled] of [
    [0, true],
    [1, false],
  ] as const) {
    for (const first of [0, 10]) {
      const values = offsets(first, first + 9).map(
        (offset) =>
          `(${partition * 1000 + offset}, '', '${filled ? at.name : ''}', ${filled ? partition : 0}, ${filled ? offset : 0})`,
      );
      await at.sql(
        `INSERT INTO {table} SETTINGS insert_deduplication_token = '${at.name}-${partition}-${first}-${first + 9}' VALUES ${values.join(', ')}`,
      );
    }
    await connector.state(partition, 10, 19, 'BEFORE_PROCESSING');
  }
  const { code, stdout } = await connector.import('--connect-group', connector.group, '--apply');
  expect(stdout).toMatch(/0 +BEFORE_PROCESSING +10-19 +10-19 was in doubt, and the table has all of it/);
  expect(stdout).toMatch(/1 +BEFORE_PROCESSING +10-19 +REFUSED: 10-19 is in doubt, and the connector did not fill/);
  expect(code).toBe(5);
  expect(await at.settled()).toBeUndefined();
});

test('what is imported beside the committed offsets is where a run goes on, not where the group had been', async () => {
  const at = await Place.make({ partitions: 4, table: withoutProvenance, config: { state: { store: 'kafka' } } });
  const { brokers } = at.stack;
  const connector = new Connector(at);
  await connector.begin();
  await produce(
    brokers,
    at.name,
    [0, 1, 2, 3].flatMap((partition) => offsets(0, 29).map((offset) => ({ partition, value: row(partition, offset) }))),
  );
  await connector.stopInThreeStates();
  await connector.insert(3, 0, 6);
  await connector.state(3, 0, 0, 'NONE');
  await commitToEmptyGroup(
    { brokers, groupId: connector.group, topics: [at.name] },
    { topic: at.name, partition: 3, next: 7, metadata: '' },
  );

  const imported = await connector.import('--connect-group', connector.group, '--apply', '--json');
  expect(JSON.parse(imported.stdout)).toMatchObject({
    applied: true,
    partitions: [{ settled: 19 }, { settled: 9, inDoubt: [{ first: 10, last: 19 }] }, { settled: 9 }, { settled: 6 }],
  });
  expect(imported.code).toBe(0);
  expect(await committedOffsets(brokers, at.name, at.name)).toEqual(['20', '10', '10', '7']);

  const running = program(['run', at.file]);
  await running.until(async () => (await tally(at)).every(({ ids }) => ids === 30), 'every record was there');
  running.signal('SIGTERM');
  expect((await running.ended).code).toBe(0);
  expect(await tally(at)).toEqual([0, 1, 2, 3].map((p) => ({ p, n: 30, ids: 30 })));
  expect(running.stderr.match(/range that was in doubt is settled/g)).toHaveLength(2);
  expect(await Promise.all([0, 1, 2, 3].map((partition) => at.settled(partition)))).toEqual([29, 29, 29, 29]);
});
