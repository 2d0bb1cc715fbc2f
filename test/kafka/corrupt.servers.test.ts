// Batches that lie and batches that were damaged, at the real broker: it takes the ones and sends the others.
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import type { IngestEvent } from '../../src/events.js';
import { LogScan, type ScannedChunk } from '../../src/kafka/fetch/scan.js';
import type { KafkaSourceOptions } from '../../src/kafka/source.js';
import { createTopic } from '../stack/clients.js';
import type { ServerProcess } from '../stack/process.js';
import { produceRaw } from '../support/raw-produce.js';
import { type ProxiedBroker, startProxiedBroker } from '../support/proxied-broker.js';
import type { TcpProxy } from '../support/tcp-proxy.js';
import { encodeBatch, encodeRecord, varint } from './bytes.js';
import { send } from './send.js';
import { Watch } from './watch.js';

let broker: ProxiedBroker | undefined;
let server: ServerProcess;
let proxy: TcpProxy;
let direct: string[];

beforeAll(async () => {
  broker = await startProxiedBroker('corrupt');
  ({ server, proxy, direct } = broker);
});

afterAll(() => broker?.stop());

/** Without retention: batches made here are weeks old, and half a minute after its start a broker deletes what is. */
async function newTopic(partitions = 1): Promise<string> {
  const topic = `corrupt-${randomUUID()}`;
  const config = { 'retention.ms': '-1' };
  await vi.waitFor(() => createTopic(direct, topic, { partitions, config }), { timeout: 20_000, interval: 200 });
  return topic;
}

function watch(topic: string, options: Partial<KafkaSourceOptions> = {}): { watching: Watch; told: IngestEvent[] } {
  const told: IngestEvent[] = [];
  const watching = new Watch({
    brokers: [proxy.address],
    topics: [topic],
    groupId: `${topic}-${randomUUID()}`,
    fromBeginning: true,
    onEvent: (event) => told.push(event),
    ...options,
  });
  onTestFinished(() => {
    proxy.heal();
    watching.unsubscribe();
    expect(watching.breaches).toEqual([]);
  });
  return { watching, told };
}

const withDeltas = (count: number, first = 0) =>
  encodeBatch({
    base: 0,
    records: Array.from({ length: count }, (_, i) => ({ delta: first + i, value: Buffer.from('{}') })),
    lastDelta: count - 1,
  });
const values = (...list: readonly string[]) => list.map((value) => ({ value }));

/** One record of zeros: a few bytes as they are, then blocks of 128 KiB that say "this byte again". */
function zstdBomb(blocks: number): Buffer {
  const zeros = blocks * 128 * 1024;
  // The last zero is the count of headers.
  const fields = Buffer.concat([Buffer.from([0]), varint(0), varint(0), varint(-1), varint(zeros - 1)]);
  const beginning = Buffer.concat([varint(fields.length + zeros), fields]);
  const block = (size: number, type: number, isLast = false): Buffer => {
    const head = Buffer.alloc(3);
    head.writeUIntLE((size << 3) | (type << 1) | (isLast ? 1 : 0), 0, 3);
    return head;
  };
  const runs = Array.from({ length: blocks }, (_, i) =>
    Buffer.concat([block(128 * 1024, 1, i === blocks - 1), Buffer.from([0])]),
  );
  const frame = Buffer.concat([
    Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58]),
    block(beginning.length, 0),
    beginning,
    ...runs,
  ]);
  return encodeBatch({
    base: 0,
    records: [],
    body: Buffer.alloc(0),
    count: 1,
    lastDelta: 0,
    codec: 4,
    compress: () => frame,
  });
}

async function scan(topic: string, last: number): Promise<ScannedChunk[]> {
  const log = new LogScan({ brokers: [proxy.address], groupId: topic, topics: [topic] });
  const chunks: ScannedChunk[] = [];
  try {
    for await (const chunk of log.read({ topic, partition: 0, first: 0, last })) chunks.push(chunk);
  } finally {
    await log.close();
  }
  return chunks;
}

/** The program that reads a topic until it is told to end; gives the lines it wrote. */
async function programReading(
  topic: string,
  until: (line: Record<string, unknown>) => boolean,
): Promise<{ lines: Record<string, unknown>[]; code: unknown }> {
  const child = spawn(
    process.execPath,
    ['--import', 'tsx', fileURLToPath(new URL('./program.ts', import.meta.url)), proxy.address, topic, 'read'],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  onTestFinished(() => void child.kill('SIGKILL'));
  const lines: Record<string, unknown>[] = [];
  const closed = once(child, 'close');
  createInterface({ input: child.stdout }).on('line', (text) => {
    const line = JSON.parse(text) as Record<string, unknown>;
    lines.push(line);
    if (until(line)) child.kill('SIGTERM');
  });
  const [code] = (await closed) as unknown[];
  return { lines, code };
}

describe('D1: offsets that lie, which the broker takes', () => {
  test('D1: halt the partition by name, obey SIGTERM, and give no record', async () => {
    const topic = await newTopic();
    for (const [count, first] of [
      [80_000, 0],
      [90_000, 0],
      [80_000, -100_000],
      [90_000, -150_000],
    ] as const)
      expect(await produceRaw(direct, topic, withDeltas(count, first))).toBe(0);
    const { lines, code } = await programReading(topic, ({ failed }) => failed !== undefined);
    expect(code).toBe(0);
    const failure = lines.find(({ failed }) => failed !== undefined);
    expect(failure).toMatchObject({
      failed: 'KCR_CORRUPT_BATCH',
      message: expect.stringMatching(/base offset 170000 .*offset delta -100000.*offsets 170000-249999/) as string,
    });
    expect(lines.at(-1)).toMatchObject({ records: 170_000 });
  });

  test('D2: are left out where the policy says so, and what is good before and behind is read once', async () => {
    const topic = await newTopic();
    await send(direct, topic, values('a', 'b'));
    const lies = [
      [0, 0],
      [-2, -1],
      [0, 2_147_483_647],
    ];
    for (const deltas of lies)
      expect(
        await produceRaw(
          direct,
          topic,
          encodeBatch({
            base: 0,
            records: deltas.map((delta) => ({ delta, value: Buffer.from('lie') })),
            lastDelta: 1,
          }),
        ),
      ).toBe(0);
    await send(direct, topic, values('c'));
    const { watching, told } = watch(topic, { onCorruptBatch: 'skip' });
    await watching.until(({ values: read }) => read.includes('c'));
    expect(watching.records.map(({ offset, value }) => [offset, String(value)])).toEqual([
      [0, 'a'],
      [1, 'b'],
      [8, 'c'],
    ]);
    expect(told.filter(({ kind }) => kind === 'corruptBatch')).toMatchObject([
      { first: 2, last: 3, records: 2 },
      { first: 4, last: 5 },
      { first: 6, last: 7 },
    ]);
    // The whole range is told as what it is, nothing as missing.
    expect(
      (await scan(topic, 8)).map(({ first, last, records, unreadable }) => [
        first,
        last,
        records.length,
        unreadable !== undefined,
      ]),
    ).toEqual([
      [0, 1, 2, false],
      [2, 3, 0, true],
      [4, 5, 0, true],
      [6, 7, 0, true],
      [8, 8, 1, false],
    ]);
  });

  test('D4: a header count that lies halts the partition, and the others go on', async () => {
    const topic = await newTopic(2);
    const fields = Buffer.concat([
      Buffer.from([0]),
      varint(0),
      varint(0),
      varint(-1),
      varint(-1),
      varint(1_000_000_000),
    ]);
    const lying = encodeBatch({
      base: 0,
      records: [],
      body: Buffer.concat([varint(fields.length), fields]),
      count: 1,
      lastDelta: 0,
    });
    const taken = await produceRaw(direct, topic, lying);
    if (taken !== 0) expect(taken).toBe(87); // the broker has learnt to refuse it
    const { watching } = watch(topic);
    if (taken === 0) {
      await watching.until(({ events }) => events.some(({ kind }) => kind === 'failed'));
      expect(watching.of('failed')[0]!.error).toMatchObject({ code: 'KCR_CORRUPT_BATCH' });
    }
    await send(direct, topic, [{ value: 'good', partition: 1 }]);
    await watching.until(({ values: read }) => read.includes('good'));
  });
});

describe('D3: damage', () => {
  test('D3: on the way is refused and asked for again: every value is what was sent, and nothing is told but a retry', async () => {
    const topic = await newTopic();
    await send(direct, topic, values('first', 'the-value-that-is-hit', 'last'));
    proxy.damageReplies(Buffer.from('the-value-that-is-hit'), 2);
    const { watching } = watch(topic);
    await watching.until(({ records }) => records.length === 3);
    expect(proxy.damagesLeft).toBe(0);
    expect(watching.values).toEqual(['first', 'the-value-that-is-hit', 'last']);
    expect(watching.log.filter(({ message }) => message.includes('asking for it again'))).toHaveLength(2);
    expect(watching.of('failed')).toEqual([]);
  });

  test('D3: on the disk halts by name, or is left out, and `verify` calls it unreadable', async () => {
    const topic = await newTopic();
    await send(direct, topic, values('good-before'));
    await send(direct, topic, values('rotten-1', 'rotten-2'));
    await send(direct, topic, values('good-behind'));
    const segment = join(server.dataDir, `${topic}-0`, '00000000000000000000.log');
    const at = readFileSync(segment).indexOf('rotten-2');
    expect(at).toBeGreaterThan(0);
    const file = openSync(segment, 'r+');
    writeSync(file, Buffer.from('R'), 0, 1, at);
    closeSync(file);

    const { watching } = watch(topic);
    await watching.until(({ events }) => events.some(({ kind }) => kind === 'failed'));
    expect(watching.of('failed')[0]!.error.message).toMatch(/base offset 1 .*CRC-32C.*offsets 1-2.*kafka-dump-log\.sh/);
    expect(watching.values).toEqual(['good-before']);

    const skipping = watch(topic, { onCorruptBatch: 'skip' });
    await skipping.watching.until(({ records }) => records.length === 2);
    expect(skipping.watching.values).toEqual(['good-before', 'good-behind']);
    expect(skipping.told.filter(({ kind }) => kind === 'corruptBatch')).toMatchObject([
      { first: 1, last: 2, records: 2 },
    ]);
    expect(
      (await scan(topic, 3)).map(({ first, last, unreadable }) => [first, last, unreadable !== undefined]),
    ).toEqual([
      [0, 0, false],
      [1, 2, true],
      [3, 3, false],
    ]);
  });
});

describe('D5: batches of 150 KB that unpack to 150 MB', () => {
  test.each([1, 8])(
    'D5: eight of them in %d partitions are read with the default budget, in bounded memory',
    async (partitions) => {
      const topic = await newTopic(partitions);
      const value = Buffer.alloc(1024 * 1024);
      const body = gzipSync(Buffer.concat(Array.from({ length: 150 }, (_, delta) => encodeRecord({ delta, value }))));
      const batch = encodeBatch({
        base: 0,
        records: [],
        body: Buffer.alloc(0),
        count: 150,
        lastDelta: 149,
        codec: 1,
        compress: () => body,
      });
      for (let i = 0; i < 8; i++) expect(await produceRaw(direct, topic, batch, i % partitions)).toBe(0);
      let batches = 0;
      const { lines, code } = await programReading(
        topic,
        ({ lastOffset }) => lastOffset !== undefined && ++batches === 8,
      );
      expect(code).toBe(0);
      const { records, maxRssMib } = lines.at(-1) as { records: number; maxRssMib: number };
      console.log(`D5, ${partitions} partitions: ${records} records, at most ${maxRssMib} MiB of memory`);
      expect(records).toBe(8 * 150);
      // Five eighths of the budget, one batch beyond it, and the process itself; 1,200 MB unpack.
      expect(maxRssMib).toBeLessThan(560);
    },
  );

  test('D5: 16 KB of zstd for 512 MB are refused, naming what to raise, and take no memory', async () => {
    const topic = await newTopic();
    expect(await produceRaw(direct, topic, zstdBomb(4096))).toBe(0);
    const { lines } = await programReading(topic, ({ failed }) => failed !== undefined);
    expect(lines[0]).toMatchObject({
      failed: 'KCR_CORRUPT_BATCH',
      message: expect.stringMatching(/unpacks to more than 268435456 bytes.*raise kafka\.budgetBytes/) as string,
    });
    const { maxRssMib } = lines.at(-1) as { maxRssMib: number };
    console.log(`D5, zstd: at most ${maxRssMib} MiB of memory`);
    expect(maxRssMib).toBeLessThan(400);
  });
});
