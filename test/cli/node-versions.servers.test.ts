// On each Node that is named in NODE_BINARIES (`npm run test:nodes` does), else on this one: no warning among the lines.
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { command, createTopic, produce, query } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { configFile, program } from './program.js';

const nodes = (process.env['NODE_BINARIES'] ?? process.execPath).split(',');

async function place(node: string) {
  const compression = execFileSync(node, ['-p', "'createZstdCompress' in zlib ? 'zstd' : 'gzip'"], {
    encoding: 'utf8',
  }).trim();
  const name = `nodes_${randomUUID().slice(0, 8)}`;
  const { brokers, clickhouseUrl, keeperConnect } = sharedStack();
  await createTopic(brokers, name, { partitions: 4 });
  await command(
    clickhouseUrl,
    `CREATE TABLE ${name} (id UInt64, _topic String, _partition UInt32, _offset UInt64) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 10000`,
  );
  await produce(
    brokers,
    name,
    Array.from({ length: 1000 }, (_, id) => JSON.stringify({ id })),
  );
  const config = {
    kafka: { brokers, groupId: name, fromBeginning: true },
    clickhouse: { url: clickhouseUrl, compression, answerCompression: compression },
    state: { store: 'keeper', connect: keeperConnect },
    delivery: 'exactly-once',
    routes: [{ topic: name, table: name }],
    batch: { maxWaitMs: 50 },
  };
  const rows = async () => (await query<{ n: number }>(clickhouseUrl, `SELECT count() AS n FROM ${name}`))[0]!.n;
  return { config, rows };
}

describe.each(nodes)('%s', (node) => {
  test('help and version are printed, and nothing beside them', async () => {
    for (const args of [['--help'], ['--version'], ['run', '--help'], ['state', '--help']]) {
      const { code, stdout, stderr } = await program(args, {}, node).ended;
      expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' });
      expect(stdout).not.toBe('');
    }
  });

  test('G11: check, run, state show, verify and drain do their work without a warning of Node', async () => {
    const { config, rows } = await place(node);
    const file = configFile(config);
    const checked = await program(['check', file], {}, node).ended;
    expect({ code: checked.code, stderr: checked.stderr }).toEqual({ code: 0, stderr: '' });
    const running = program(['run', file], {}, node);
    await running.until(async () => (await rows()) === 1000, 'every row was there');
    running.signal('SIGTERM');
    const { code, stderr } = await running.ended;
    // Each line is one of ours: what Node writes itself is no JSON, and what it warns of is told as such.
    const lines = stderr
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { msg: string; level: number | string });
    expect({ code, warnings: lines.filter(({ msg }) => msg === 'Node warns') }).toEqual({ code: 0, warnings: [] });
    for (const args of [
      ['state', 'show', file],
      ['verify', file],
      ['drain', file, '--timeout', '60'],
    ]) {
      const ended = await program(args, {}, node).ended;
      expect({ args, code: ended.code, stderr: ended.stderr }).toEqual({ args, code: 0, stderr: '' });
    }
  });
});
