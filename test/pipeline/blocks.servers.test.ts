// A range that was recorded and that a transform makes more rows of than one insert may have. The limits of a block are
// lowered, ours and the server's, so that it takes hundreds of rows instead of millions.
import { randomUUID } from 'node:crypto';
import { lastValueFrom, takeWhile, tap, timer, takeUntil } from 'rxjs';
import { expect, test, vi } from 'vitest';
import type { IngestConfig } from '../../src/config/config.js';
import type { IngestEvent, Outcome } from '../../src/events.js';
import { ingest } from '../../src/pipeline/ingest.js';
import type * as Settings from '../../src/clickhouse/insert/settings.js';
import { command, createTopic, produce, query } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';

vi.mock('../../src/clickhouse/insert/settings.js', async (importOriginal) => {
  const real = await importOriginal<typeof Settings>();
  const low = { max_insert_block_size: '200', min_insert_block_size_rows: '200' };
  const insertSettings: typeof real.insertSettings = (...given) => {
    const { deduplicated, plain, ...rest } = real.insertSettings(...given);
    return { ...rest, deduplicated: { ...deduplicated, ...low }, plain: { ...plain, ...low } };
  };
  return { ...real, BLOCK_ROWS: 200, insertSettings };
});

const RECORDS = 40;
const ROWS_EACH = 10;
const LIMIT_MS = 60_000;

async function place() {
  const { brokers, clickhouseUrl, keeperConnect } = sharedStack();
  const topic = `blocks_${randomUUID().slice(0, 8)}`;
  await createTopic(brokers, topic, { partitions: 1 });
  await command(
    clickhouseUrl,
    `CREATE TABLE ${topic} (n UInt32, i UInt8, _topic String, _partition UInt32, _offset UInt64) ENGINE = MergeTree ORDER BY (n, i) SETTINGS non_replicated_deduplication_window = 1000`,
  );
  await produce(
    brokers,
    topic,
    Array.from({ length: RECORDS }, (_, n) => ({ value: JSON.stringify({ n }), partition: 0 })),
  );
  const transform = ({ value }: { readonly value: Buffer | null }) => {
    const { n } = JSON.parse(String(value)) as { readonly n: number };
    return Array.from({ length: ROWS_EACH }, (_, i) => ({ n, i }));
  };
  const config: IngestConfig = {
    kafka: { brokers, groupId: topic, fromBeginning: true },
    clickhouse: { url: clickhouseUrl },
    state: { store: 'keeper', connect: keeperConnect },
    delivery: 'exactly-once',
    routes: [{ topic, table: topic, transform, transformVersion: 'v1' }],
    batch: { count: RECORDS, maxWaitMs: 1_000 },
  };
  const rows = async () =>
    (
      await query<{ rows: number; different: number }>(
        clickhouseUrl,
        `SELECT count() AS rows, uniqExact(n, i) AS different FROM ${topic}`,
      )
    )[0];
  return { config, rows };
}

/** Until the last record of the topic is delivered, or so many outcomes have come: then it dies. */
async function run(config: IngestConfig, atMost = Infinity) {
  const events: IngestEvent[] = [];
  const ranges: string[] = [];
  const isLast = (outcome: Outcome): boolean =>
    outcome.kind === 'halted' || outcome.lastOffset === RECORDS - 1 || ranges.length >= atMost;
  const outcomes = ingest(config, { onEvent: (event) => events.push(event) }).pipe(
    tap((outcome) =>
      ranges.push(
        outcome.kind === 'halted'
          ? `${outcome.error.code}: ${outcome.error.message}`
          : `${outcome.afterOffset + 1}-${outcome.lastOffset}: ${outcome.rows}`,
      ),
    ),
    takeWhile((outcome) => !isLast(outcome)),
    takeUntil(timer(LIMIT_MS)),
  );
  await lastValueFrom(outcomes, { defaultValue: undefined });
  return {
    ranges,
    divided: events.flatMap((event) => (event.kind === 'divided' ? [`${event.first}-${event.last}`] : [])),
  };
}

const once = { rows: RECORDS * ROWS_EACH, different: RECORDS * ROWS_EACH };

test('I8: a recorded range that a transform makes more than one block of is recorded again in parts, and each row is there once', async () => {
  const { config, rows } = await place();
  expect(await run(config)).toEqual({
    ranges: ['0-9: 100', '10-19: 100', '20-29: 100', '30-39: 100'],
    divided: ['0-39'],
  });
  expect(await rows()).toEqual(once);
}, 120_000);

test('I8: a process that dies between two parts leaves them to the next one as they were recorded', async () => {
  const { config, rows } = await place();
  const before = await run(config, 2);
  expect(before.ranges).toEqual(['0-9: 100', '10-19: 100']);
  const { ranges, divided } = await run(config);
  // Nothing is divided again: what is in doubt is replayed in the parts that were recorded, whether or not it has landed.
  expect({ ranges: ranges.map((range) => range.split(':')[0]), divided }).toEqual({
    ranges: ['20-29', '30-39'],
    divided: [],
  });
  expect(await rows()).toEqual(once);
}, 120_000);
