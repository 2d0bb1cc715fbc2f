// Values that would reach beyond their row, or decide where they come from, through the whole pipeline on real servers.
import { randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { Transform } from '../../operators/between/transform-rows.js';
import type { IngestError } from '../../src/errors.js';
import { ingest } from '../../src/pipeline/ingest.js';
import { command, createTopic, produce, query } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';

const PROVENANCE = '_topic LowCardinality(String), _partition UInt32, _offset UInt64';

interface Run {
  /** Of the partition's halt. */
  readonly error: IngestError | undefined;
  readonly excluded: readonly number[];
  readonly rows: readonly Record<string, unknown>[];
  readonly topic: string;
}

interface RunOptions {
  readonly onPoison?: 'halt' | 'exclude';
  readonly transform?: Transform;
}

/** One partition, exactly once, until it halts or every record was delivered or left out. */
async function run(
  columns: string,
  values: readonly string[],
  { onPoison = 'halt', transform }: RunOptions = {},
): Promise<Run> {
  const { brokers, clickhouseUrl, keeperConnect } = sharedStack();
  const topic = `values_${randomUUID().slice(0, 8)}`;
  await createTopic(brokers, topic);
  await command(
    clickhouseUrl,
    `CREATE TABLE ${topic} (${columns}) ENGINE = MergeTree ORDER BY tuple() SETTINGS non_replicated_deduplication_window = 10000`,
  );
  await produce(brokers, topic, values);
  const excluded: number[] = [];
  const error = await new Promise<IngestError | undefined>((resolve, reject) => {
    const running = ingest(
      {
        kafka: { brokers, groupId: topic, fromBeginning: true },
        clickhouse: { url: clickhouseUrl },
        state: { store: 'keeper', connect: keeperConnect },
        delivery: 'exactly-once',
        onPoison,
        routes: [{ topic, table: topic, ...(transform === undefined ? {} : { transform }) }],
        batch: { count: values.length, maxWaitMs: 1000 },
      },
      {
        onEvent: (event) =>
          event.kind === 'excluded' && event.record !== undefined && excluded.push(event.record.offset),
      },
    ).subscribe({
      next: (outcome) => {
        if (outcome.kind !== 'halted' && outcome.lastOffset < values.length - 1) return;
        running.unsubscribe();
        resolve(outcome.kind === 'halted' ? outcome.error : undefined);
      },
      error: reject,
    });
  });
  const rows = await query(
    clickhouseUrl,
    `SELECT * FROM ${topic} ORDER BY ${columns.includes('_offset') ? '_offset' : 'tuple()'}`,
  );
  return { error, excluded, rows, topic };
}

const offsetsOf = ({ rows }: Run) => rows.map(({ _offset }) => _offset);

describe('a value whose bytes reach beyond its row', () => {
  const columns = `id UInt64, a String, ${PROVENANCE}`;

  it('A1: an open bracket takes no neighbours with it: the partition halts at the record, and the table has none of them', async () => {
    const found = await run(columns, [
      '{"id":0,"a":"ok0"}',
      '{"a":[}',
      '{"id":2,"a":"x"}',
      '{"id":3,"a":"y"}',
      '{]}',
      '{"id":5,"a":"z"}',
    ]);
    expect(found.error).toMatchObject({ code: 'KCR_POISON', fields: { topic: found.topic, partition: 0, offset: 1 } });
    expect(found.error?.message).toContain('at byte 6');
    expect(found.rows).toEqual([]);
  });

  it('A1: left out, every other record is there under its own offset', async () => {
    const found = await run(
      columns,
      ['{"id":0,"a":"ok0"}', '{"a":[}', '{"id":2,"a":"x"}', '{"id":3,"a":"y"}', '{]}', '{"id":5,"a":"z"}'],
      { onPoison: 'exclude' },
    );
    expect(found.excluded).toEqual([1, 4]);
    expect(found.rows.map(({ id, a, _offset }) => [id, a, _offset])).toEqual([
      [0, 'ok0', 0],
      [2, 'x', 2],
      [3, 'y', 3],
      [5, 'z', 5],
    ]);
  });

  it('A2: one message cannot become several rows with a provenance of its own', async () => {
    const found = await run(columns, [
      '{"a":[{],"id":1},{"id":666,"a":"F","_topic":"other","_partition":9,"_offset":424242},{"a":[}],"id":2}',
    ]);
    expect(found.error).toMatchObject({ code: 'KCR_POISON', fields: { offset: 0 } });
    expect(found.rows).toEqual([]);
  });

  it('A3: of records that are left out none is a good one, since the server counts rows as we do', async () => {
    const good = (n: number) => `{"n":${n},"s":"s${n}"}`;
    const values = Array.from({ length: 14 }, (_, n) =>
      n === 1 || n === 2 ? `{"n":${n},"s":[${n}}` : n === 12 ? '{"n":"x"}' : good(n),
    );
    const found = await run(`n UInt32, s String, ${PROVENANCE}`, values, { onPoison: 'exclude' });
    expect(found.excluded).toEqual([1, 2, 12]);
    expect(offsetsOf(found)).toEqual([0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13]);
  });

  it.each(['{"n":1,"s":[\\"x"]}', '{"n":1,"s":{\\"x":1}}', '{"n":1\\,"s":"x"}', '{"n":1,\\"s":"x"}'])(
    'A4: a backslash outside of a string, %s, is told of its own record',
    async (bad) => {
      const found = await run(`n UInt32, s String, ${PROVENANCE}`, ['{"n":0,"s":"a"}', bad, '{"n":2,"s":"b"}']);
      expect(found.error).toMatchObject({ code: 'KCR_POISON', fields: { offset: 1 } });
      expect(found.error?.message).toMatch(/has "\\" where .* is expected, at byte \d+/);
      expect(found.rows).toEqual([]);
    },
  );
});

describe('a value that would decide its own provenance', () => {
  const columns = `n UInt32, ${PROVENANCE}`;

  it('B1: an export of such a table that is ingested again is poison, named by its field, whatever other fields it has', async () => {
    for (const bad of [
      '{"n":1,"_topic":"old","_partition":3,"_offset":777}',
      '{"_offset":null,"n":1}',
      '{"_partition":3}',
    ]) {
      const found = await run(columns, ['{"n":0}', bad, '{"n":2}'], { onPoison: 'exclude' });
      expect(found.excluded).toEqual([1]);
      expect(found.rows).toEqual([0, 2].map((n) => ({ n, _topic: found.topic, _partition: 0, _offset: n })));
    }
  });

  it('B1: the message names the field and what to do', async () => {
    const found = await run(columns, ['{"n":1,"_partition":3,"_offset":777}']);
    expect(found.error?.message).toContain('has a field "_partition" of its own, at byte 7');
    expect(found.error?.message).toContain('a transform can rename the field');
  });

  it.each(['"\\u005foffset"', '"_OFFSET"', '"_\\u006Fffset"', '"_Topic"', '"\\u005F\\u0050artition"'])(
    'B2: written as %s it is poison, too',
    async (name) => {
      const found = await run(columns, ['{"n":0}', `{"n":1,${name}:5}`]);
      expect(found.error).toMatchObject({ code: 'KCR_POISON', fields: { offset: 1 } });
      expect(found.error?.message).toContain(`has a field ${name} of its own`);
      expect(found.rows).toEqual([]);
    },
  );

  it('B3: a transform cannot give a row another provenance than its record has', async () => {
    const transform = () => ({ n: 9, _offset: 77, _partition: 5 });
    const found = await run(columns, ['{"n":0}'], { transform });
    expect(found.error).toMatchObject({ code: 'KCR_POISON', fields: { offset: 0 } });
    expect(found.error?.message).toContain('"_offset"');
    expect(found.rows).toEqual([]);
  });

  it('B3: a transform that renames the fields keeps what an export said beside what is so now', async () => {
    const transform: Transform = ({ value }) => {
      const { _offset: oldOffset, ...rest } = JSON.parse(String(value)) as Record<string, unknown>;
      return { ...rest, oldOffset };
    };
    const found = await run(`${columns}, oldOffset UInt64`, ['{"n":0,"_offset":77}'], { transform });
    expect(found.rows).toEqual([{ n: 0, _topic: found.topic, _partition: 0, _offset: 0, oldOffset: 77 }]);
  });

  it.each([
    ['no such column', 'n UInt32', [{ n: 1 }]],
    ['a column of the table that is computed', 'n UInt32, _offset UInt64 MATERIALIZED n + 100', [{ n: 1 }]],
    ['a column that stands for another', 'n UInt32, _offset UInt64 ALIAS n + 100', [{ n: 1 }]],
    ['a column of a type that no offset goes into', 'n UInt32, _offset String', [{ n: 1, _offset: '5' }]],
  ])('where nothing of ours is spliced the field is one like any other: %s', async (_, own, rows) => {
    const found = await run(own, ['{"n":1,"_offset":5}']);
    expect(found.error).toBeUndefined();
    expect(found.rows).toEqual(rows);
  });
});
