// docs/quick-start.md as it is written: its table, records, configuration and commands, on real servers.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { configFile, program } from '../cli/program.js';
import { command, createTopic, produce, query } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';

const text = readFileSync(new URL('../../docs/quick-start.md', import.meta.url), 'utf8');
const NAME = 'quick_start';

/** The first snippet of a language, with the names of this test in place of those on the page. */
function snippet(language: string): string {
  const { brokers, clickhouseUrl } = sharedStack();
  const found = new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, 'ms').exec(text)![1]!;
  return found
    .replaceAll('flights', NAME)
    .replace('127.0.0.1:9092', brokers[0]!)
    .replace('http://127.0.0.1:8123', clickhouseUrl)
    .replace('127.0.0.1:9464', '127.0.0.1:0');
}

test('who follows the quick start has the rows, and verify says that they are all there', async () => {
  const { brokers, clickhouseUrl } = sharedStack();
  const records = snippet('json lines').trim().split('\n');
  await createTopic(brokers, NAME, { partitions: 4 });
  await produce(
    brokers,
    NAME,
    records.map((value, at) => ({ key: String(at), value })),
  );
  await command(clickhouseUrl, snippet('sql'));
  const file = configFile(snippet('yaml'), 'flights.yaml');

  expect((await program(['check', file]).ended).code).toBe(0);
  const running = program(['run', file]);
  const rows = () => query<{ origin: string }>(clickhouseUrl, `SELECT origin FROM ${NAME} ORDER BY date`);
  await running.until(async () => (await rows()).length === records.length, 'the rows are there');
  running.signal('SIGINT');
  expect((await running.ended).code).toBe(0);
  expect((await rows()).map(({ origin }) => origin)).toEqual(['BHM', 'SFO']);
  const verified = await program(['verify', file]).ended;
  expect([verified.code, verified.stdout]).toEqual([0, expect.stringContaining('exactly once')]);
});
