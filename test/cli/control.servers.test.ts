// A running program that is told things from outside, and reads its configuration again.
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { command, createTopic, produce } from '../stack/clients.js';
import { events, Place } from './place.js';
import { configFile, program, Program } from './program.js';

const main = new URL('../../dist/src/cli/main.js', import.meta.url).pathname;
/** Without a terminal, whoever runs the tests. */
const apart = (file: string) => new Program(['--wait', process.execPath, main, 'run', file], {}, 'setsid');

const socketPath = () => join(mkdtempSync(join(tmpdir(), 'kcr-')), 'control.sock');
const count = async (place: Place, table = place.name) =>
  Number((await place.rows<{ n: string }>(`SELECT count() AS n FROM ${table}`))[0]!.n);
const control = (...args: readonly string[]) => program(['control', ...args]).ended;

async function running(partitions = 1) {
  const socket = socketPath();
  const place = await Place.make({ partitions, config: { control: { socket } } });
  const ingester = program(['run', place.file]);
  await ingester.until(() => ingester.stderr.includes('control is served'), 'it can be told');
  return { place, socket, ingester };
}

describe('a process that is told', () => {
  test('takes nothing more of what is paused, keeps its group, and goes on where it was', async () => {
    const { place, socket, ingester } = await running(2);
    await produce(place.stack.brokers, place.name, [...events(0, 50, 0), ...events(50, 50, 1)]);
    await ingester.until(async () => (await count(place)) === 100, 'all was there');

    const paused = await control('pause', place.file, '--topic', place.name, '--partition', '1');
    expect(paused).toMatchObject({ code: 0, stdout: '1 of 2 partitions paused.\n' });
    await produce(place.stack.brokers, place.name, [...events(100, 50, 0), ...events(150, 50, 1)]);
    await ingester.until(async () => (await count(place)) === 150, 'the other one went on');
    // Beyond the session time-out of 2 s: heartbeats go on.
    await sleep(3000);
    expect(await count(place)).toBe(150);
    expect(ingester.stderr).not.toMatch(/"msg":"(lost|revoked)"/);

    expect(await control('resume', '--socket', socket)).toMatchObject({
      code: 0,
      stdout: '0 of 2 partitions paused.\n',
    });
    await ingester.until(async () => (await count(place)) === 200, 'the rest came');
    expect((await place.verified()).partitions.map(({ missing, doubled }) => missing.count + doubled.count)).toEqual([
      0, 0,
    ]);

    expect(await control('drain', place.file)).toMatchObject({ code: 0 });
    expect(await ingester.ended).toMatchObject({ code: 0 });
    const gone = await control('pause', '--socket', socket);
    expect(gone).toMatchObject({ code: 3 });
    expect(gone.stderr).toContain('nothing answers at');
  });

  test('without a way to it the command says what to set', async () => {
    const place = await Place.make();
    const { code, stderr } = await control('pause', place.file);
    expect([code, stderr]).toEqual([2, expect.stringContaining('"control"')]);
  });
});

describe('SIGHUP', () => {
  async function reloadable() {
    const { place } = { place: await Place.make() };
    const other = `${place.name}_2`;
    const { stack } = place;
    await createTopic(stack.brokers, other, { partitions: 1 });
    await command(
      stack.clickhouseUrl,
      `CREATE TABLE ${other} (id UInt64, text String, _topic String, _partition UInt32, _offset UInt64)
       ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000`,
    );
    const file = configFile(place.config);
    const ingester = apart(file);
    await produce(stack.brokers, place.name, events(0, 50));
    await ingester.until(async () => (await count(place)) === 50, 'the first were there');
    const routes = [place.name, other].map((topic) => ({ topic, table: topic }));
    return { place, other, file, ingester, routes };
  }
  const times = (ingester: Program, msg: string) => ingester.stderr.split(msg).length - 1;

  test('takes up a new route in the same process, and loses and doubles nothing', async () => {
    const { place, other, file, ingester, routes } = await reloadable();
    writeFileSync(file, JSON.stringify({ ...place.config, routes }));
    ingester.signal('SIGHUP');
    await produce(place.stack.brokers, other, events(0, 30));
    await ingester.until(async () => (await count(place, other)) === 30, 'the new route was taken up');
    await produce(place.stack.brokers, place.name, events(50, 50));
    await ingester.until(async () => (await count(place)) === 100, 'the old one went on');
    expect((await place.verified()).partitions[0]).toMatchObject({
      records: 100,
      missing: { count: 0 },
      doubled: { count: 0 },
    });
    ingester.signal('SIGTERM');
    expect(await ingester.ended).toMatchObject({ code: 0 });
    expect([times(ingester, '"msg":"starting"'), times(ingester, '"msg":"stopped"')]).toEqual([2, 2]);
  });

  test.each([
    ['a configuration that is none', () => '{ "kafka": ', /KCR_CONFIG/],
    [
      'a table that is not there',
      (config: object) => JSON.stringify({ ...config, routes: [{ topic: 't', table: 'no_such_table' }] }),
      /KCR_/,
    ],
  ])('%s is told, and the old one goes on untouched', async (_, text, code) => {
    const { place, file, ingester } = await reloadable();
    writeFileSync(file, text(place.config));
    ingester.signal('SIGHUP');
    await ingester.until(() => ingester.stderr.includes('is refused, and the old one goes on'), 'it was refused');
    expect(ingester.stderr).toMatch(code);
    await produce(place.stack.brokers, place.name, events(50, 50));
    await ingester.until(async () => (await count(place)) === 100, 'the old one went on');
    expect(ingester.stderr).not.toMatch(/"msg":"(revoked|lost|stopped)"/);
    ingester.signal('SIGTERM');
    expect(await ingester.ended).toMatchObject({ code: 0 });
  });
});
