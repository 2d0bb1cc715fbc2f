// Servers that say nothing while records are compared with tables before the start: who waits may give up at any moment.
import { once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { dataFindings } from '../../src/sample/findings.js';
import { takeSamples } from '../../src/sample/take.js';
import { fakeClickHouse, type FakeServer } from '../clickhouse/fake-server.js';
import { record } from '../clickhouse/fixtures.js';

const calledOff = new Error('called off');
let server: FakeServer | undefined;

afterEach(async () => {
  await server?.close();
  server = undefined;
});

describe('G5: a start that is called off waits for no answer', () => {
  test.each([
    'SELECT version()',
    'system.settings WHERE match',
    'input_format_column_name_matching_mode',
    'system.tables',
    'FROM format(',
  ])('to %s', async (question) => {
    server = await fakeClickHouse();
    const stopping = new AbortController();
    server.onSelect = (sql) => {
      if (!sql.includes(question)) return undefined;
      // The question is being waited for from here on.
      setImmediate(() => stopping.abort(calledOff));
      return 'silence';
    };
    const clickHouse = { url: server.url, routes: [{ topic: 'orders', table: 't' }] };
    const options = {
      clickHouse,
      transforms: new Map(),
      onPoison: 'halt',
      onTombstone: 'halt',
      topicsWithRecords: new Set(['orders']),
    } as const;
    await expect(
      dataFindings(options, new Map([['orders', [{ partition: 0, record: record(0, { id: 1 }) }]]]), stopping.signal),
    ).rejects.toThrow();
    expect(stopping.signal.aborted).toBe(true);
  });

  test('of Kafka', async () => {
    const silent = createServer(() => undefined).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const stopping = new AbortController();
    const brokers = [`127.0.0.1:${(silent.address() as AddressInfo).port}`];
    const taken = takeSamples(
      { brokers, groupId: 'g', topics: ['orders'] },
      [{ topic: 'orders', partition: 0, logStart: 0, stableEnd: 9, next: 0 }],
      stopping.signal,
    );
    const [socket] = (await once(silent, 'connection')) as [Socket];
    stopping.abort(calledOff);
    await expect(taken).rejects.toBe(calledOff);
    socket.destroy();
    silent.close();
  });
});
