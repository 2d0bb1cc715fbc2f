// The contracts that ship for others' ports, kept by ours on the real servers. Those of the state stores run with
// `test/state/contract.ts`, on each of the four.
import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, test } from 'vitest';
import { openClickHouseSink } from '../../../src/clickhouse/sink.js';
import { kafkaSource } from '../../../src/kafka/source.js';
import type { PreparingSink } from '../../../src/ports.js';
import {
  batchSinkContract,
  recordSourceContract,
  type RowOrigin,
  type SinkUnderTest,
} from '../../../src/testing/index.js';
import { command, createTopic, query } from '../../stack/clients.js';
import { sharedStack } from '../../stack/shared.js';
import { familiesAt } from '../../support/engines.js';
import { send } from '../../kafka/send.js';

const { brokers, clickhouseUrl: url } = sharedStack();
const families = await familiesAt(url);

describe.each(families)('the ClickHouse sink, into a $name table', (family) => {
  const database = `contract_${family.name}_${process.pid}`;
  const open: PreparingSink[] = [];
  let tables = 0;

  async function sinkOver(insertMode: 'direct' | 'coalesced'): Promise<SinkUnderTest> {
    const table = `events_${++tables}`;
    await command(
      url,
      `CREATE TABLE ${table} (n UInt32, _topic LowCardinality(String), _partition UInt32, _offset UInt64) ENGINE = ${family.engine('ORDER BY n', { window: 10_000 })}`,
      { database },
    );
    const sink = await openClickHouseSink({ url, database, routes: [{ topic: 'events', table }], insertMode });
    open.push(sink);
    const rows = () =>
      query<RowOrigin>(url, `SELECT _topic AS topic, _partition AS partition, _offset AS offset FROM ${table}`, {
        database,
      });
    return { sink, rows: async () => (await rows()).map((row) => ({ ...row, offset: Number(row.offset) })) };
  }

  beforeAll(() => command(url, `CREATE DATABASE ${database}`));
  afterEach(async () => {
    await Promise.all(open.splice(0).map((sink) => sink.close()));
  });
  afterAll(() => command(url, `DROP DATABASE ${database}`));

  for (const mode of ['direct', 'coalesced'] as const) {
    describe(`with ${mode} inserts`, () => {
      for (const check of batchSinkContract(() => sinkOver(mode))) test(check.name, check.run);
    });
  }
});

describe('the Kafka source, of a group', () => {
  const checks = recordSourceContract(
    async () => {
      const topic = `contract-${randomUUID()}`;
      await createTopic(brokers, topic, { partitions: 1 });
      await send(brokers, topic, ['a', 'b', 'c', 'd', 'e']);
      return { open: () => kafkaSource({ brokers, topics: [topic], groupId: topic, fromBeginning: true }) };
    },
    { patienceMs: 60_000 },
  );
  for (const check of checks) test(check.name, check.run);
});
