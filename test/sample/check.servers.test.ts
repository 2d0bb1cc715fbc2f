// What `check` and a start say of records and their table, on real servers; every statement it gives is run.
import { randomUUID } from 'node:crypto';
import kafkajs, { Kafka, logLevel, Partitioners } from 'kafkajs';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Finding } from '../../src/preflight/finding.js';
import { checkConfig } from '../../src/config/config.js';
import { preflight } from '../../src/preflight/preflight.js';
import { commitToEmptyGroup } from '../../src/kafka/group-admin.js';
import { event, events, Place } from '../cli/place.js';
import { program } from '../cli/program.js';
import { produce } from '../stack/clients.js';

const SETTINGS = 'ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 100000';
const provenance = '_topic String, _partition UInt32, _offset UInt64';
const json = (...values: readonly object[]) => values.map((value) => ({ value: JSON.stringify(value) }));

/** What is said of the records, without the words' line breaks. */
async function said(at: Place, options: Parameters<typeof preflight>[1] = {}): Promise<readonly Finding[]> {
  return (await preflight(checkConfig(at.config), options)).filter(({ what }) => what.startsWith('records'));
}

/** Runs the statements of a hint: what stands before the first comma that no statement has. */
async function runHint(at: Place, { todo = '' }: Finding): Promise<void> {
  const statements = todo.split(/; | ?, (?:or|if) /).filter((part) => part.startsWith('ALTER TABLE'));
  expect(statements.length, todo).toBeGreaterThan(0);
  for (const statement of statements) await at.sql(statement);
}

describe('F2: fields and columns that do not meet', () => {
  test('are told both, and with the statements that are given they meet', async () => {
    const at = await Place.make({
      table: `CREATE TABLE {table} (id UInt64, typ String, user_id String, ${provenance}) ${SETTINGS}`,
    });
    await produce(
      at.stack.brokers,
      at.name,
      json(
        { id: 1, type: 'a', user: 'u', extra: { x: [1, null] }, 'odd name': 1.5, maybe: null },
        { id: 2, type: 'b', user: 'v' },
      ),
    );
    const found = await said(at);
    expect(found).toMatchObject([
      {
        level: 'warning',
        detail: expect.stringMatching(
          /has no column for their fields type, user, extra \(in 1 of 2\), odd name \(in 1 of 2\), maybe \(in 1 of 2\): ClickHouse passes over/,
        ) as string,
      },
      {
        level: 'warning',
        detail: expect.stringMatching(/none of 2 has a field for the columns typ, user_id of/) as string,
      },
    ]);
    await runHint(at, found[0]!);
    expect(await said(at)).toMatchObject([
      {
        level: 'ok',
        detail: expect.stringMatching(/2 looked at: their fields and the columns of default\.\w+ fit/) as string,
      },
    ]);
    const running = program(['run', at.file]);
    await running.until(async () => (await at.settled()) === 1, 'everything was settled');
    running.signal('SIGTERM');
    await running.ended;
    expect(await at.rows('SELECT type, user, `odd name` AS odd FROM {table} ORDER BY id')).toEqual([
      { type: 'a', user: 'u', odd: 1.5 },
      { type: 'b', user: 'v', odd: null },
    ]);
  });

  test('a table none of whose columns a record fills is refused by check and by run, an empty topic is not', async () => {
    const at = await Place.make({
      table: `CREATE TABLE {table} (a UInt64, b String DEFAULT 'x', ${provenance}) ${SETTINGS.replace('id', 'a')}`,
    });
    expect(await said(at)).toMatchObject([
      { level: 'ok', detail: expect.stringContaining('there is none yet') as string },
    ]);
    await produce(at.stack.brokers, at.name, events(0, 5));
    const refused = await at.run('check');
    expect(refused).toMatchObject({
      code: 3,
      stdout: expect.stringMatching(
        /REFUSED {2}records of \w+: none of their fields \(id, text\) is one of the columns of default\.\w+ \(a, b\)/,
      ) as string,
    });
    const start = await at.run('run');
    expect(start).toMatchObject({
      code: 3,
      stderr: expect.stringMatching(/KCR_TABLE_UNSUITABLE.*none of their fields/) as string,
    });
    expect(await at.rows('SELECT count() AS n FROM {table}')).toEqual([{ n: 0 }]);
  });

  test('onUnknownField "poison" halts at the record, by its offset; "ignore" takes it', async () => {
    const at = await Place.make({ config: { onUnknownField: 'poison' } });
    await produce(at.stack.brokers, at.name, [event(0), event(1), ...json({ id: 2, text: '', more: 1 }), event(3)]);
    expect(await said(at)).toMatchObject([
      {
        level: 'warning',
        detail: expect.stringMatching(
          /no column for their fields more \(in 1 of 4\): a partition halts at such a record/,
        ) as string,
      },
    ]);
    const halted = await at.run('run');
    expect(halted).toMatchObject({
      code: 4,
      stderr: expect.stringMatching(
        /Unknown field found while parsing JSONEachRow format: more \(topic \w+, partition 0, offset 2,.*onUnknownField/,
      ) as string,
    });
    at.config = { ...at.config, onUnknownField: 'ignore' };
    expect((await said(at))[0]?.detail).toContain('ClickHouse passes over what they say');
  });

  test('values that ClickHouse cannot read are named by their offsets; when none can be read, check refuses', async () => {
    const at = await Place.make();
    await produce(at.stack.brokers, at.name, [event(0), ...json({ id: 'x', text: '' })]);
    expect(await said(at)).toMatchObject([
      {
        level: 'warning',
        detail: expect.stringMatching(
          /cannot read the one at \w+\/0, offset 1 into default\.\w+: .*value of key id/,
        ) as string,
      },
    ]);
    const other = await Place.make();
    await produce(other.stack.brokers, other.name, json({ id: 'x', text: '' }, { id: 'y', text: '' }));
    expect(await said(other)).toMatchObject([{ level: 'refusal', code: 'KCR_POISON' }, { level: 'refusal' }]);
    expect(await said(other, { records: 'start' }), 'the run halts at it and names it').toMatchObject([
      { level: 'warning' },
      { level: 'warning' },
    ]);
  });
});

test('F3: envelopes and frames are named, with what to set, and with that the rows are right', async () => {
  const at = await Place.make();
  await produce(
    at.stack.brokers,
    at.name,
    json({
      schema: { type: 'struct' },
      payload: { before: null, after: { id: 7, text: 'seven' }, source: {}, op: 'c' },
    }),
  );
  const [found] = await said(at);
  expect(found).toMatchObject({
    level: 'refusal',
    code: 'KCR_TABLE_UNSUITABLE',
    detail: expect.stringMatching(/Kafka Connect's envelope.*Debezium's envelope/) as string,
  });
  const source = /transform: (\(record\) => [\w.()]+)/.exec(found?.todo ?? '')?.[1];
  at.config = {
    ...at.config,
    routes: [{ topic: at.name, table: at.name, transform: eval(source ?? '') as () => object }],
  };
  expect(await said(at)).toMatchObject([{ level: 'ok' }]);

  const framed = await Place.make();
  await produce(framed.stack.brokers, framed.name, [
    { value: Buffer.from('00000000010206616263', 'hex') },
    { value: Buffer.from('00000000010206616263', 'hex') },
  ]);
  expect((await framed.run('check')).stdout).toMatch(
    /REFUSED {2}records of \w+: 2 of 2 that were looked at are in the frame of a schema registry, as Confluent's/,
  );
});

test('F4: fields for EPHEMERAL columns are inserted, an EPHEMERAL _offset tells nothing, and fields of columns that are made up are told', async () => {
  const at = await Place.make({
    table: `CREATE TABLE {table} (id UInt64, cents UInt64 EPHEMERAL, eur Float64 DEFAULT cents / 100, day UInt8 MATERIALIZED 1, _topic String, _partition UInt32, _offset UInt64 EPHEMERAL) ${SETTINGS}`,
  });
  await produce(at.stack.brokers, at.name, json({ id: 1, cents: 250, day: 9 }, { id: 2, cents: 100, day: 9 }));
  const findings = await preflight(checkConfig(at.config));
  const offset = findings.find(({ detail }) => detail.includes('_offset is EPHEMERAL'));
  expect(findings.some(({ detail }) => detail === 'a range in doubt can be read back')).toBe(false);
  const day = findings.find(
    ({ what, detail }) => what.startsWith('records') && detail.includes('their field day is a column of'),
  );
  expect(day?.detail).toMatch(/that is MATERIALIZED: ClickHouse passes over the field/);
  await runHint(at, day!);
  await runHint(at, offset!);
  expect(
    (await preflight(checkConfig(at.config))).filter(({ level, what }) => level !== 'ok' && !what.startsWith('memory')),
  ).toEqual([]);
  const running = program(['run', at.file]);
  await running.until(async () => (await at.settled()) === 1, 'everything was settled');
  running.signal('SIGTERM');
  await running.ended;
  expect(await at.rows('SELECT id, eur, day, _offset AS o FROM {table} ORDER BY id')).toEqual([
    { id: 1, eur: 2.5, day: 9, o: 0 },
    { id: 2, eur: 1, day: 9, o: 1 },
  ]);
});

test('F5: an open transaction is named by its producer and since when, by check and state show, and run tells it while it lasts', async () => {
  const at = await Place.make();
  const { brokers } = at.stack;
  await produce(brokers, at.name, [event(0)]);
  const transactionalId = `open-${randomUUID().slice(0, 8)}`;
  const producer = new Kafka({ brokers, logLevel: logLevel.NOTHING }).producer({
    transactionalId,
    idempotent: true,
    maxInFlightRequests: 1,
    transactionTimeout: 600_000,
    createPartitioner: Partitioners.DefaultPartitioner,
  });
  await producer.connect();
  onTestFinished(() => producer.disconnect());
  const transaction = await producer.transaction();
  await transaction.send({ topic: at.name, messages: [event(1)] });
  await produce(brokers, at.name, events(2, 3));
  const all = await preflight(checkConfig(at.config));
  const held = all.find(({ what }) => what === `transactions on ${at.name}/0`);
  expect(held?.detail).toMatch(
    new RegExp(
      `offsets 1-4 cannot be read yet: held back by an open transaction of the producer with the transactional.id ${transactionalId} \\(producer \\d+\\) from offset 1, since 20`,
    ),
  );
  const running = program(['run', at.file]);
  await running.until(async () => (await at.settled()) === 0, 'what can be read was settled');
  await running.until(() => running.stderr.includes('an open transaction holds records back'), 'it was told');
  expect(running.stderr).toMatch(
    new RegExp(
      `"first":1,"last":4,"since":"20[^"]*","producerId":"\\d+","transactionalId":"${transactionalId}","msg":"an open transaction holds records back"`,
    ),
  );
  const shown = await at.run('state show');
  expect(shown.stdout.replaceAll(/\s+/g, ' ')).toMatch(
    /offsets 1-4 cannot be read yet: held back by an open transaction of the producer.*lag 4, of which 4 cannot be read yet/,
  );
  await transaction.commit();
  await running.until(async () => (await at.settled()) === 5, 'the rest was settled');
  running.signal('SIGTERM');
  await running.ended;
});

describe('F6: check says what run will do', () => {
  test('a group that was set back by hand does not decide where a state is', async () => {
    const at = await Place.make();
    await produce(at.stack.brokers, at.name, events(0, 5));
    const running = program(['run', at.file]);
    await running.until(async () => (await at.settled()) === 4, 'everything was settled');
    running.signal('SIGTERM');
    await running.ended;
    const group = { brokers: at.stack.brokers, groupId: at.name, topics: [at.name] };
    await commitToEmptyGroup(group, { topic: at.name, partition: 0, next: 0, metadata: '' });
    const groupSaid = async () =>
      (await preflight(checkConfig(at.config))).filter(({ what }) => what.startsWith('group'));
    expect(await groupSaid()).toMatchObject([
      {
        level: 'warning',
        detail: `the group says 0 for ${at.name}/0, the state says 5: run goes on at 5`,
        todo: expect.stringContaining('state reset') as string,
      },
    ]);
    expect((await at.run('state show')).stdout.replaceAll(/\s+/g, ' ')).toContain(
      'the group says 0, the state says 5: run goes on at 5.',
    );
    await produce(at.stack.brokers, at.name, events(5, 3));
    await commitToEmptyGroup(group, { topic: at.name, partition: 0, next: 8, metadata: '' });
    expect(await groupSaid()).toMatchObject([
      {
        level: 'warning',
        detail: expect.stringMatching(
          /the group says 8 .* the state says 5: it is behind the group, and the partition halts \(KCR_STATE_BEHIND\)/,
        ) as string,
      },
    ]);
  });

  test('members with another assignor: nobody could join them', async () => {
    const at = await Place.make();
    const range = ({ cluster }: { cluster: { findTopicPartitionMetadata(topic: string): readonly unknown[] } }) => ({
      name: 'range',
      version: 1,
      assign: async ({ members, topics }: { members: readonly { memberId: string }[]; topics: readonly string[] }) =>
        members.map(({ memberId }) => ({ memberId, memberAssignment: encode(topics, cluster) })),
      protocol: ({ topics }: { topics: string[] }) => ({ name: 'range', metadata: metadata(topics) }),
    });
    const consumer = new Kafka({ brokers: at.stack.brokers, logLevel: logLevel.NOTHING }).consumer({
      groupId: at.name,
      partitionAssigners: [range],
    });
    onTestFinished(() => consumer.disconnect());
    await consumer.connect();
    await consumer.subscribe({ topic: at.name });
    const joined = new Promise((resolve) => consumer.on('consumer.group_join', resolve));
    await consumer.run({ eachMessage: async () => undefined });
    await joined;
    const found = (await preflight(checkConfig(at.config))).find(({ what }) => what === `group ${at.name}`);
    expect(found).toMatchObject({
      level: 'refusal',
      detail: expect.stringMatching(
        /deal out partitions by "range", and this program knows "RoundRobinAssigner" only: run could not join it/,
      ) as string,
    });
    expect((await at.run('run')).code).toBe(3);
  });
});

function encode(
  topics: readonly string[],
  cluster: { findTopicPartitionMetadata(topic: string): readonly unknown[] },
): Buffer {
  const assignment = Object.fromEntries(
    topics.map((topic) => [topic, cluster.findTopicPartitionMetadata(topic).map((_, partition) => partition)]),
  );
  return kafkajs.AssignerProtocol.MemberAssignment.encode({ version: 0, assignment, userData: Buffer.alloc(0) });
}

function metadata(topics: string[]): Buffer {
  return kafkajs.AssignerProtocol.MemberMetadata.encode({ version: 1, topics, userData: Buffer.alloc(0) });
}
