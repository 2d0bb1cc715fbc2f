import type { BodyPieces } from '../../../src/clickhouse/insert/body.js';
import { expect, it } from 'vitest';
import { noProvenance } from '../../../src/clickhouse/insert/encode.js';
import { PreparedBatch } from '../../../src/clickhouse/insert/prepared-batch.js';
import type { SinkContext } from '../../../src/clickhouse/insert/sink-context.js';
import type { ClickHouseHttp, Exchange } from '../../../src/clickhouse/client/http.js';
import { insertSettings } from '../../../src/clickhouse/insert/settings.js';
import { InsertSlots } from '../../../src/clickhouse/insert/slots.js';
import type { Table } from '../../../src/clickhouse/schema/table.js';
import { WatchedTable } from '../../../src/clickhouse/schema/watched-table.js';
import { ignoreEvents } from '../../../src/events.js';
import { batchOf, outcome, record } from '../fixtures.js';

const table = {
  database: 'db',
  table: 't',
  family: 'plain',
  engineFull: '',
  columns: [],
  provenance: noProvenance,
} as unknown as Table;
const target = new WatchedTable({} as ClickHouseHttp, table, undefined, { onEvent: ignoreEvents, now: () => 0 });

it('a buffer goes to the next insert only when nobody looks at its bytes any more, however long the answer has been there', async () => {
  let letGo = (): void => undefined;
  const bodies: Uint8Array[] = [];
  const send = ({ body }: { body: BodyPieces }): Exchange => {
    bodies.push(body.next());
    const bodyFree = new Promise<void>((resolve) => (letGo = resolve));
    return {
      answer: Promise.resolve({
        status: 200,
        code: undefined,
        text: '',
        readRows: undefined,
        kept: true,
        foreign: undefined,
      }),
      bodyFree,
      sentBytes: () => 0,
    };
  };
  const context: SinkContext = {
    http: { send } as unknown as ClickHouseHttp,
    settings: insertSettings({}, new Set()),
    asyncInsert: undefined,
    slots: new InsertSlots(1),
    encoding: undefined,
    server: { version: '1', startedMs: 0 },
    unknownUntilMs: new Map(),
    onEvent: ignoreEvents,
    now: () => 0,
    answered: () => undefined,
    identify: () => Promise.resolve({ version: '1', startedMs: 0 }),
  };
  const insert = (value: string) =>
    outcome(new PreparedBatch(context, { target, dedupBudgetMs: 1000 }, batchOf([record(1, value)])).insert());
  await insert('{"a":1}');
  const second = insert('{"b":2}');
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(bodies.map((body) => Buffer.from(body).toString())).toEqual(['{"a":1}\n']);
  letGo();
  await second;
  expect(Buffer.from(bodies[1] ?? []).toString()).toBe('{"b":2}\n');
});
