// What verify says of a table, on real servers: never kinder than the truth.
import { expect, test } from 'vitest';
import { outcomeOf } from '../../src/tools/verify.js';
import { produce } from '../stack/clients.js';
import { event, events, Place } from '../cli/place.js';
import { program } from '../cli/program.js';

const none = { count: 0, first: [] };

/** Everything up to `settled` is ingested, and the program has ended. */
async function ingested(at: Place, settled: number, partition = 0): Promise<void> {
  const running = program(['run', at.file]);
  await running.until(async () => (await at.settled(partition)) === settled, 'everything was settled');
  running.signal('SIGTERM');
  expect((await running.ended).code).toBe(0);
}

test('F1: rows of a topic of which nothing is settled are no success: nothing was compared, and somebody else has inserted them', async () => {
  const at = await Place.make();
  await produce(at.stack.brokers, at.name, events(0, 100));
  const empty = await at.run('verify');
  expect(empty.stdout).toMatch(
    /nothing is settled[^]*Nothing was compared, so nothing can be said of the table\. Of 1 partition with records/,
  );
  expect(empty.code).toBe(8);
  await at.sql(`INSERT INTO {table} SELECT number % 100, '', '${at.name}', 0, number % 100 FROM numbers(600)`);
  const forged = await at.run('verify');
  expect(forged.stdout.replaceAll(/\s+/g, ' ')).toMatch(
    /has 600 rows of offsets 0-99, which are neither settled nor in doubt: another group or program has inserted them/,
  );
  expect(forged.code).toBe(5);
});

test('F1: the first rows of a partition are missing too, however many; without --from-offset they are found', async () => {
  const at = await Place.make();
  await produce(at.stack.brokers, at.name, events(0, 20));
  await ingested(at, 19);
  expect(await at.json('verify', '--contents')).toMatchObject({ exit: 0, clean: true, outcome: 'clean' });
  await at.sql('ALTER TABLE {table} DELETE WHERE _offset < 7 SETTINGS mutations_sync = 1');
  const found = await at.run('verify');
  expect(found).toMatchObject({
    code: 5,
    stdout: expect.stringMatching(
      /MISSING in default\.\w+: 0, 1, 2, 3, 4, … \(2 more\); the first offset\s+with\s+a\s+row\s+is 7: if the group began there, say\s+--from-offset 7/,
    ) as string,
  });
  await at.sql('TRUNCATE TABLE {table}');
  expect(await at.verified()).toMatchObject({
    partitions: [{ range: { first: 0, last: 19 }, missing: { count: 20 } }],
  });
});

test('F1: a group that began at the end of the log is compared from there on, and rows from before are compared with it', async () => {
  const at = await Place.make({ kafka: { fromBeginning: false } });
  await produce(at.stack.brokers, at.name, events(0, 10));
  const running = program(['run', at.file]);
  await running.until(() => running.stderr.includes('claimed'), 'the place to begin was chosen');
  await produce(at.stack.brokers, at.name, events(10, 5));
  await running.until(async () => (await at.settled()) === 14, 'everything was settled');
  running.signal('SIGTERM');
  await running.ended;
  const verdict = await at.verified();
  expect(verdict.partitions).toMatchObject([
    { range: { first: 10, last: 14 }, records: 5, missing: none, before: undefined },
  ]);
  expect(outcomeOf(verdict)).toBe('clean');
  await at.sql(
    `INSERT INTO {table} VALUES (4, 'event 4', '${at.name}', 0, 4), (5, 'event 5', '${at.name}', 0, 5), (5, 'event 5', '${at.name}', 0, 5)`,
  );
  expect(await at.verified()).toMatchObject({
    partitions: [
      { range: { first: 4, last: 14 }, missing: { count: 4, first: [6, 7, 8, 9] }, doubled: { count: 1, first: [5] } },
    ],
  });
});

test('F1: rows that hold something else than their records are found where contents are asked for; what cannot be compared is named', async () => {
  const at = await Place.make({
    table: `CREATE TABLE {table} (id UInt64, text String, at DateTime DEFAULT now(), twice UInt64 MATERIALIZED id * 2, sum UInt64 DEFAULT id + 1, maybe Nullable(String),
      _topic String, _partition UInt32, _offset UInt64, _key Nullable(String)) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000`,
  });
  await produce(at.stack.brokers, at.name, [
    ...events(0, 10),
    { value: '{"id":10,"text":"ä $$ \\\\ \' \\u0000","sum":5,"other":[1,{"a":null}]}', key: 'k' },
    { value: '{"text":"no id"}' },
  ]);
  await ingested(at, 11);
  const same = await at.verified({ contents: true });
  expect(same.partitions).toMatchObject([{ contents: { records: 12, differing: none, unread: none } }]);
  expect(Object.values(same.notCompared)[0]).toEqual([
    { column: 'at', why: 'its default is now(), which gives another value each time' },
    { column: 'twice', why: 'it is MATERIALIZED' },
  ]);
  await at.sql(`ALTER TABLE {table} UPDATE text = 'changed', sum = 0 WHERE _offset = 3 SETTINGS mutations_sync = 1`);
  await at.sql(`ALTER TABLE {table} UPDATE _key = NULL WHERE _offset = 10 SETTINGS mutations_sync = 1`);
  expect(outcomeOf(await at.verified()), 'counts alone do not tell').toBe('clean');
  const told = await at.run('verify', '--contents');
  expect(told).toMatchObject({
    code: 5,
    stdout: expect.stringMatching(
      /OTHER CONTENTS in default\.\w+ than in the topic: 3 \(text, sum\), 10\s+\(_key\)\n/,
    ) as string,
  });
});

test('F1: records that ClickHouse cannot read any more are told as not compared, and the others are compared', async () => {
  const at = await Place.make();
  await produce(at.stack.brokers, at.name, [...events(0, 3), { value: '{"id":"no number"}' }, ...events(4, 3)]);
  await at.sql(`INSERT INTO {table} SELECT number, 'event ' || number, '${at.name}', 0, number FROM numbers(7)`);
  expect((await at.run('state reset', '--to-end', '--apply')).code).toBe(0);
  const verdict = await at.verified({ contents: true });
  expect(verdict.partitions).toMatchObject([
    {
      range: { first: 0, last: 6 },
      records: 7,
      missing: none,
      contents: { records: 7, differing: none, unread: { count: 1, first: [{ offset: 3 }] } },
    },
  ]);
  expect(outcomeOf(verdict)).toBe('differs');
});

test('F1: a transform with several rows of a record is compared row by row', async () => {
  const at = await Place.make();
  await produce(at.stack.brokers, at.name, events(0, 6));
  const transform = (record: { value: Buffer | null }) => {
    const row = JSON.parse(String(record.value)) as { id: number };
    return row.id % 2 === 1 ? null : [row, { ...row, text: 'second' }];
  };
  at.config = { ...at.config, routes: [{ topic: at.name, table: at.name, transform }] };
  await at.sql(
    `INSERT INTO {table} SELECT intDiv(number, 2) * 2, number % 2 = 1 ? 'second' : 'event ' || intDiv(number, 2) * 2, '${at.name}', 0, intDiv(number, 2) * 2 FROM numbers(6)`,
  );
  expect((await at.run('state reset', '--to-end', '--apply')).code).toBe(0);
  expect(await at.verified({ contents: true })).toMatchObject({
    partitions: [{ records: 3, missing: none, doubled: none, contents: { records: 3, differing: none } }],
  });
  await at.sql(
    `ALTER TABLE {table} UPDATE text = 'third' WHERE _offset = 4 AND text = 'second' SETTINGS mutations_sync = 1`,
  );
  expect(await at.verified({ contents: true })).toMatchObject({
    partitions: [{ contents: { differing: { count: 1, first: [{ offset: 4, columns: ['text'] }] } } }],
  });
});

test('F1: what a process at work has inserted is no difference: it was recorded before', async () => {
  const slow = `CREATE TABLE {table} (id UInt64, text String, _topic String, _partition UInt32, _offset UInt64, CONSTRAINT slow CHECK sleep(2) = 0)
    ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000`;
  const at = await Place.make({ table: slow });
  await produce(at.stack.brokers, at.name, [event(0)]);
  await ingested(at, 0);
  await produce(at.stack.brokers, at.name, [event(5)]);
  const running = program(['run', at.file, '--log-level', 'debug']);
  await running.until(() => running.stderr.includes('stateWritten'), 'the range was recorded');
  running.signal('SIGKILL');
  await running.ended;
  await at.sql(`INSERT INTO {table} VALUES (4, '', '${at.name}', 0, 1)`);
  const verdict = await at.verified();
  expect(verdict.partitions).toMatchObject([
    { range: { first: 0, last: 0 }, unsettled: { first: 1, last: 1 }, unrecorded: undefined },
  ]);
  expect(outcomeOf(verdict)).toBe('clean');
});
