// Several processes in one group: workers come and one goes while records are produced. Partitions are spread evenly, and
// nothing is missing, doubled, or inserted by two of them.
import { randomUUID } from 'node:crypto';
import { expect, onTestFinished, test } from 'vitest';
import { createTopic } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { EventProducer, createTable } from '../support/event-producer.js';
import { exactness, untilComplete } from '../support/exactness.js';
import { Ingester, until } from '../support/ingester.js';

const partitions = 8;

function worker(config: object, name: string): Ingester {
  const started = new Ingester(config, name);
  onTestFinished(() => started.signal('SIGKILL'));
  return started;
}

/** How many partitions each has, once all are consumed under one assignment of them all. */
async function spread(workers: readonly Ingester[], what: string): Promise<number[]> {
  const all = (of: (each: Ingester) => readonly number[]): string =>
    workers
      .flatMap(of)
      .sort((a, b) => a - b)
      .join();
  const isOne = (): boolean => new Set(workers.map(({ generation }) => generation)).size === 1;
  const isFed = (): boolean =>
    isOne() &&
    all(({ held }) => held) === [...Array(partitions).keys()].join() &&
    all(({ fed }) => fed) === all(({ held }) => held);
  await until(what, workers, isFed);
  return workers.map(({ held }) => held.length).sort((a, b) => a - b);
}

/** Ranges that begin before the one before them has ended, as `partition: range, range`. */
function overlaps(workers: readonly Ingester[]): string[] {
  const ranges = workers.flatMap(({ lines }) => lines.filter(({ msg, rows = 0 }) => msg === 'delivered' && rows > 0));
  const sorted = ranges.sort((a, b) => a.partition! - b.partition! || a.first! - b.first!);
  return sorted.flatMap((range, i) => {
    const before = sorted[i - 1];
    const isBehind = before?.partition !== range.partition || before!.last! < range.first!;
    return isBehind ? [] : [`${range.partition}: ${before!.first}-${before!.last}, ${range.first}-${range.last}`];
  });
}

test('two workers are added and one is taken away under load: spread evenly, nothing missing, nothing doubled', async () => {
  const { brokers, clickhouseUrl, keeperConnect } = sharedStack();
  const name = `workers_${randomUUID().slice(0, 8)}`;
  await createTopic(brokers, name, { partitions });
  await createTable(clickhouseUrl, name);
  const config = {
    // The session is longer than the test: whoever leaves must say so.
    kafka: { brokers, groupId: name, fromBeginning: true, sessionTimeoutMs: 300_000, heartbeatIntervalMs: 300 },
    clickhouse: { url: clickhouseUrl },
    state: { store: 'keeper', connect: keeperConnect },
    delivery: 'exactly-once',
    routes: [{ topic: name, table: name }],
    batch: { count: 2000, maxWaitMs: 100 },
  };
  const producer = await EventProducer.start({ brokers, topic: name, partitions, perSecond: 4000 });
  onTestFinished(() => void producer.stop().catch(() => undefined));

  const first = worker(config, 'the first');
  expect(await spread([first], 'one had all partitions')).toEqual([8]);
  const second = worker(config, 'the second');
  expect(await spread([first, second], 'two had them')).toEqual([4, 4]);
  const third = worker(config, 'the third');
  expect(await spread([first, second, third], 'three had them')).toEqual([2, 3, 3]);
  await first.drain();
  expect(await spread([second, third], 'two had them again')).toEqual([4, 4]);

  const acknowledged = await producer.stop();
  await untilComplete(brokers, clickhouseUrl, name, 60_000);
  await Promise.all([second.drain(), third.drain()]);
  const { produced, missing, doubled, differences } = await exactness(brokers, clickhouseUrl, name, { acknowledged });
  console.log(JSON.stringify({ produced, missing, doubled }));
  expect({ missing, doubled, differences }).toEqual({ missing: 0, doubled: 0, differences: [] });
  // The token would have hidden a second insert from the table.
  expect(overlaps([first, second, third])).toEqual([]);
  expect([first, second, third].map((each) => each.count('range that was in doubt is settled'))).toEqual([0, 0, 0]);
}, 240_000);
