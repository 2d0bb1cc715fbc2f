// The program in a container of 192 MB, in the worst hour: hundreds of partitions with a backlog, ClickHouse away, and a
// log pipe that nobody reads. KCR_OUTAGE_MS=60000 makes it a minute.
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { closeSync, constants, mkdtempSync, openSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test, type TestContext } from 'vitest';
import { command, createTopic, produce, query, withAdmin } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { memoryGroup } from '../support/small-memory.js';
import { unreliableGateway } from '../support/unreliable-gateway.js';
import { configFile, Program } from './program.js';

const MIB = 1_048_576;
const LIMIT_BYTES = 192 * MIB;
const OUTAGE_MS = Number(process.env.KCR_OUTAGE_MS ?? 12_000);
/** The steps have limits of their own, which say more. */
const TEST_LIMIT_MS = 900_000;
const partitions = 300;
const perPartition = 100;

async function place() {
  const name = `small_${randomUUID().slice(0, 8)}`;
  const { brokers, clickhouseUrl, keeperConnect } = sharedStack();
  await createTopic(brokers, name, { partitions });
  await command(
    clickhouseUrl,
    `CREATE TABLE ${name} (id UInt64, text String, _topic String, _partition UInt32, _offset UInt64) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 10000`,
  );
  const text = 'x'.repeat(1000);
  for (let from = 0; from < perPartition; from += 20) {
    await produce(
      brokers,
      name,
      Array.from({ length: partitions * 20 }, (_, id) => ({
        value: JSON.stringify({ id, text }),
        partition: id % partitions,
      })),
    );
  }
  const clickhouse = await unreliableGateway(clickhouseUrl);
  const config = {
    kafka: { brokers, groupId: name, fromBeginning: true },
    clickhouse: { url: clickhouse.url },
    state: { store: 'keeper', connect: keeperConnect },
    delivery: 'exactly-once',
    routes: [{ topic: name, table: name }],
    batch: { maxWaitMs: 50 },
    retry: { maxDelayMs: 1000 },
  };
  const rows = async () =>
    (
      await query<{ n: number; u: number }>(
        clickhouseUrl,
        `SELECT count() AS n, uniqExact(_partition, _offset) AS u FROM ${name}`,
      )
    )[0]!;
  const members = () =>
    withAdmin(brokers, async (admin) =>
      (await admin.describeGroups([name])).groups[0]!.members.map(({ memberId }) => memberId),
    );
  return { name, config, clickhouse, rows, members };
}

/** Nobody reads it: 64 KiB, then it is full. */
function fullPipe(): string {
  const path = join(mkdtempSync(join(tmpdir(), 'kafka-clickhouse-fifo-')), 'log');
  execFileSync('mkfifo', [path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  onTestFinished(() => closeSync(reader));
  return path;
}

test(
  'G1, G8: 192 MB, 300 partitions, ClickHouse away, a log that nobody reads: never killed, never out of the group, every row once',
  async (context: TestContext) => {
    const { name, config, clickhouse, rows, members } = await place();
    const group = memoryGroup(name, LIMIT_BYTES);
    if (group === undefined) return context.skip('no control group with a limit of memory can be made here');
    onTestFinished(() => group.remove());
    const main = new URL('../../dist/src/cli/main.js', import.meta.url).pathname;
    const pidFile = join(mkdtempSync(join(tmpdir(), 'kafka-clickhouse-pid-')), 'pid');
    const line = `${group.enter}; echo $$ > "${pidFile}"; exec "${process.execPath}" "${main}" run "${configFile(config)}" --log-level debug 2> "${fullPipe()}"`;
    clickhouse.isAway = true;
    const running = new Program([
      '-e',
      `import('node:child_process').then(({ spawn }) => {
    const child = spawn('/bin/sh', ['-c', process.argv[1]], { stdio: 'ignore' });
    process.on('SIGTERM', () => child.kill('SIGTERM'));
    child.on('exit', (code, signal) => process.exit(code ?? (signal === 'SIGKILL' ? 137 : 99)));
  })`,
      line,
    ]);
    const peakMib = () =>
      Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${readFileSync(pidFile, 'utf8').trim()}/status`, 'utf8'))?.[1]) /
      1024;
    await running.until(() => clickhouse.refused >= partitions, 'inserts were refused', 240_000);
    const before = await members();
    // How long the fault lasts; what it proves is looked at after it.
    await sleep(OUTAGE_MS);
    const refused = clickhouse.refused;
    const during = await members();
    clickhouse.isAway = false;
    const all = partitions * perPartition;
    await running.until(async () => (await rows()).n >= all, 'every row was there', 240_000);
    console.log({
      residentPeakMib: Math.round(peakMib()),
      groupPeakMib: Math.round((group.peakBytes() ?? 0) / MIB),
      limitMib: LIMIT_BYTES / MIB,
      kills: group.kills(),
      refused,
    });
    expect(peakMib() * MIB).toBeLessThan(LIMIT_BYTES);
    running.signal('SIGTERM');
    expect((await running.ended).code).toBe(0);
    expect(await rows()).toEqual({ n: all, u: all });
    expect({ kills: group.kills(), members: [before.length, during, refused > partitions] }).toEqual({
      kills: 0,
      members: [1, before, true],
    });
  },
  TEST_LIMIT_MS,
);
