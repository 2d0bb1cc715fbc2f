// A transform that makes more rows of a recorded range than one insert may have, through the whole pipeline on real servers.
import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import type { IngestEvent, Outcome } from '../src/events.js';
import { ingest } from '../src/ingest.js';
import { command, createTopic, produce, query } from './stack/clients.js';
import { sharedStack } from './stack/shared.js';

const RECORDS = 90;
/** 5.4 million of all: more than the 5 million that one insert may have. */
const ROWS_OF_EACH = 60_000;

test('I8: a range of more than one insert goes in once, also when the process dies before it is cut and between its parts', async () => {
  const { brokers, clickhouseUrl, keeperConnect } = sharedStack();
  const topic = `many_${randomUUID().slice(0, 8)}`;
  await createTopic(brokers, topic);
  await command(clickhouseUrl, `CREATE TABLE ${topic} (k UInt8, _topic LowCardinality(String), _partition UInt32, _offset UInt64) ENGINE = MergeTree ORDER BY _offset SETTINGS non_replicated_deduplication_window = 10000`);
  await produce(brokers, topic, Array.from({ length: RECORDS }, (_, n) => ({ value: JSON.stringify({ n }) })));
  const row = Buffer.from('{"k":1}');

  /** Ends the process, as far as its servers can tell, when it is told something. */
  const runUntil = (isEnd: (told: IngestEvent | Outcome) => boolean) =>
    new Promise<readonly Outcome[]>((resolve, reject) => {
      const outcomes: Outcome[] = [];
      const look = (told: IngestEvent | Outcome): void => {
        if (!isEnd(told)) return;
        running.unsubscribe();
        resolve(outcomes);
      };
      const running = ingest(
        {
          kafka: { brokers, groupId: topic, fromBeginning: true },
          clickhouse: { url: clickhouseUrl }, state: { store: 'keeper', connect: keeperConnect }, delivery: 'exactly-once',
          routes: [{ topic, table: topic, transformVersion: 'v1', transform: () => new Array<Buffer>(ROWS_OF_EACH).fill(row) }],
          batch: { count: RECORDS, maxWaitMs: 60_000 },
        },
        { report: look },
      ).subscribe({
        next: (outcome) => {
          outcomes.push(outcome);
          if (outcome.kind === 'halted') reject(outcome.error);
          look(outcome);
        },
        error: reject,
      });
    });

  await runUntil((told) => told.kind === 'stateWritten' && told.pending === 1);
  const [first] = await runUntil((told) => told.kind === 'delivered');
  expect(first).toMatchObject({ kind: 'delivered', lastOffset: 82, rows: 83 * ROWS_OF_EACH });
  await runUntil((told) => told.kind === 'delivered' && told.lastOffset === RECORDS - 1);
  const sql = `SELECT count() AS offsets, min(n) AS least, max(n) AS most FROM (SELECT _offset, count() AS n FROM ${topic} GROUP BY _offset)`;
  expect((await query<Record<string, unknown>>(clickhouseUrl, sql)).map(({ offsets, least, most }) => [offsets, least, most].map(Number))).toEqual([[RECORDS, ROWS_OF_EACH, ROWS_OF_EACH]]);
});
