import { of as source } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { transformRows, type Transform } from '../../../operators/between/transform-rows.js';
import type { IngestError } from '../../../src/errors.js';
import type { IngestEvent } from '../../../src/events.js';
import { bytesOf } from '../../../src/model/batch.js';
import { ExactNumber } from '../../../src/model/exact-json.js';
import type { Batch, KafkaRecord } from '../../../src/model/record.js';
import { chunk, insertBatch, intent, p0 } from '../../support/fakes.js';
import { asText, errorsAsCodes, marbles, type Marbles } from '../../support/marbles.js';

const number = (record: KafkaRecord): number => (JSON.parse(String(record.value)) as { n: number }).n;
/** `10:{"n":20} 12:{"n":24}`: offset and value of each row. */
const rows = ({ records }: Batch): string => records.map(({ offset, value }) => `${offset}:${String(value)}`).join(' ');
/** a covers 1-3, b 4-6. */
const values: Record<string, Batch> = { a: chunk(0, 3), b: chunk(3, 6) };

const transformed = (m: Marbles, source: string, transform: Transform) =>
  m.hot<Batch>(source, values, 'broken').pipe(transformRows(transform), asText(rows));

describe('transformRows', () => {
  test(
    'the diagram of its documentation',
    marbles((m) => {
      const twice: Transform = (record) => (record.offset === 2 ? null : { twice: 2 * record.offset });
      const batches = m.hot('-a---|', values).pipe(transformRows(twice));
      const made = transformed(m, '-a---|', twice);
      m.expect(made).toBeObservable('-A---|', { A: '1:{"twice":2} 3:{"twice":6}' });
      m.expect(batches.pipe(asText(({ afterOffset, lastOffset }) => `${afterOffset} ${lastOffset}`))).toBeObservable(
        '-A---|',
        { A: '0 3' },
      );
    }),
  );

  test(
    'never',
    marbles((m) => m.expect(transformed(m, '-', number as unknown as Transform)).toBeObservable('-')),
  );

  test(
    'empty',
    marbles((m) => m.expect(transformed(m, '--|', () => null)).toBeObservable('--|')),
  );

  test(
    'many',
    marbles((m) => {
      const made = transformed(m, '-a-b-|', (record) => ({ x: number(record) }));
      m.expect(made).toBeObservable('-A-B-|', {
        A: '1:{"x":1} 2:{"x":2} 3:{"x":3}',
        B: '4:{"x":4} 5:{"x":5} 6:{"x":6}',
      });
    }),
  );

  test(
    'an error of the source is told',
    marbles((m) => m.expect(transformed(m, '-a-#', () => null)).toBeObservable('-A-#', { A: '' }, 'broken')),
  );

  test(
    'an early unsubscription leaves the source',
    marbles((m) => {
      const source = m.hot<Batch>('-a-b-', values);
      m.expect(
        source.pipe(
          transformRows(() => null),
          asText(rows),
        ),
        '^-!',
      ).toBeObservable('-A', { A: '' });
      m.expect(source).toHaveSubscriptions('^-!');
    }),
  );

  test(
    'range, token and intent are not touched: the batch is still the one that was recorded',
    marbles((m) => {
      const recorded = insertBatch(9, 12, { intent: intent(10, 12), token: 't', replay: true });
      m.expect(m.cold('a', { a: recorded }).pipe(transformRows(() => []))).toBeObservable('A', {
        A: { ...recorded, records: [], bytes: 0 },
      });
    }),
  );

  test(
    'bytes are those of the rows, so that limits behind it stay true',
    marbles((m) => {
      const made = m.hot('-a', values).pipe(transformRows(() => ({ longer: 'x'.repeat(100) })));
      m.expect(
        made.pipe(asText((batch) => `${batch.bytes === bytesOf(batch.records) && batch.bytes > 300}`)),
      ).toBeObservable('-A', { A: 'true' });
    }),
  );
});

describe('a transform may give', () => {
  const first = (m: Marbles, transform: Transform) =>
    transformed(m, 'a', (record, assignment) => (record.offset === 1 ? transform(record, assignment) : null));

  test(
    'an object, which becomes JSON',
    marbles((m) => m.expect(first(m, () => ({ a: 'ü' }))).toBeObservable('A', { A: '1:{"a":"ü"}' })),
  );

  test(
    'bytes, which are taken as they are',
    marbles((m) => m.expect(first(m, ({ value }) => value!)).toBeObservable('A', { A: '1:{"n":1}' })),
  );

  test(
    'H3: a Uint8Array: bytes are bytes, and not the row of defaults that JSON makes of them',
    marbles((m) => {
      const all = new TextEncoder().encode('xx{"n":7}yy');
      m.expect(first(m, () => all.subarray(2, 9))).toBeObservable('A', { A: '1:{"n":7}' });
    }),
  );

  test(
    'H4: a bigint and an ExactNumber, with all their digits',
    marbles((m) =>
      m
        .expect(first(m, () => ({ id: 18446744073709551615n, price: new ExactNumber('12345678901234567.89') })))
        .toBeObservable('A', { A: '1:{"id":18446744073709551615,"price":12345678901234567.89}' }),
    ),
  );

  test(
    'an instance of a class of one’s own',
    marbles((m) => {
      class Flight {
        readonly delay = 3;
      }
      m.expect(first(m, () => new Flight())).toBeObservable('A', { A: '1:{"delay":3}' });
    }),
  );

  test(
    'several rows: each keeps the offset of its record',
    marbles((m) =>
      m.expect(first(m, () => [{ a: 1 }, Buffer.from('{"a":2}')])).toBeObservable('A', { A: '1:{"a":1} 1:{"a":2}' }),
    ),
  );

  for (const [name, none] of [
    ['null', null],
    ['undefined', undefined],
    ['an empty list', []],
  ] as const) {
    test(
      `${name}: no row`,
      marbles((m) => m.expect(first(m, () => none)).toBeObservable('A', { A: '' })),
    );
  }

  test(
    'rows for a tombstone',
    marbles((m) => {
      const tombstones: Batch = { ...chunk(0, 1), records: [{ ...chunk(0, 1).records.at(0)!, value: null }] };
      const made = m.cold('a', { a: tombstones }).pipe(
        transformRows(({ value }) => ({ deleted: value === null })),
        asText(rows),
      );
      m.expect(made).toBeObservable('A', { A: '1:{"deleted":true}' });
    }),
  );

  test(
    'what depends on the partition',
    marbles((m) =>
      m
        .expect(first(m, (_, { topic, partition }) => ({ from: `${topic}/${partition}` })))
        .toBeObservable('A', { A: '1:{"from":"clicks/0"}' }),
    ),
  );
});

describe('a transform that goes wrong stops the partition, naming the record', () => {
  const circular: Record<string, unknown> = {};
  circular['self'] = circular;
  const wrong: readonly (readonly [string, (record: KafkaRecord) => unknown, string])[] = [
    [
      'throws',
      () => {
        throw new Error('no such field');
      },
      'The transform threw no such field',
    ],
    ['throws a SyntaxError of JSON', () => JSON.parse('{') as object, 'The transform threw'],
    ['gives a number', () => 7, 'The transform gave number'],
    ['gives text, which is not known to be JSON', () => '{"a":1}', 'The transform gave string'],
    ['gives a promise', () => Promise.resolve({ a: 1 }), 'rows are made at once'],
    ['gives null in a list', () => [null], 'The transform gave null'],
    ['gives a list in a list: a row would be a JSON array', () => [[1, 2]], 'The transform gave an array'],
    ['gives what cannot become JSON', () => circular, 'The row cannot become JSON'],
    ['gives what becomes no JSON object', () => ({ toJSON: () => 'text' }), 'The row becomes "text"'],
    ['gives a Date', () => new Date(0), 'The transform gave a Date'],
    [
      'H3: gives a Map',
      () => new Map([['a', 1]]),
      'The transform gave a Map as a row, expected an object or a Uint8Array',
    ],
    ['H3: gives a Set', () => [new Set([1])], 'The transform gave a Set'],
    ['H3: gives an ArrayBuffer', () => new ArrayBuffer(8), 'The transform gave an ArrayBuffer'],
    ['H3: gives a promise in a list', () => [Promise.resolve({ a: 1 })], 'rows are made at once'],
    ['H3: gives what is like a promise', () => ({ then: () => undefined }), 'rows are made at once'],
  ];
  for (const [name, transform, message] of wrong) {
    test(name, () => {
      let told: IngestError | undefined;
      const onlySecond = ((record) => (record.offset === 2 ? transform(record) : null)) as Transform;
      const batches: Batch[] = [];
      transformRows(onlySecond)(source(values['a']!)).subscribe({
        next: (batch) => batches.push(batch),
        error: (error: IngestError) => (told = error),
      });
      expect(batches).toEqual([]);
      expect(told?.code).toBe('KCR_TRANSFORM');
      expect(told?.message).toContain(message);
      expect(told?.fields).toMatchObject({ topic: 'clicks', partition: 0, offset: 2 });
    });
  }

  test(
    'batches before it have passed',
    marbles((m) => {
      const made = m.hot('-a-b-', values).pipe(
        transformRows((record) => {
          if (record.offset === 5) throw new Error('late');
          return null;
        }),
        errorsAsCodes(),
        asText(rows),
      );
      m.expect(made).toBeObservable('-A-#', { A: '' }, 'KCR_TRANSFORM');
    }),
  );
});

test('records without a row are counted: rows that are missing in the table can be explained', () => {
  const events: IngestEvent[] = [];
  transformRows((record) => (record.offset === 2 ? { a: 1 } : null), { onEvent: (event) => events.push(event) })(
    source(values['a']!),
  ).subscribe();
  transformRows(() => ({ a: 1 }), { onEvent: (event) => events.push(event) })(source(values['a']!)).subscribe();
  expect(events).toEqual([{ kind: 'filtered', assignment: p0, records: 2 }]);
});
