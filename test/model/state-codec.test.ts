import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { IngestError } from '../../src/errors.js';
import { decodeState, encodeState, stateLimits, stateName, type StoredState } from '../../src/model/state-codec.js';
import { emptyState, type Intent, type PartitionState } from '../../src/model/state.js';

const written = {
  id: '2057c3d3-b2a4-43fb-bc9b-b39db421d703',
  columns: 'tpo-1f3c9a',
  shape: '90aa31c4',
  alteredS: 1_794_990_000,
};
const name = { cluster: 'lkc-1', group: 'ingest', topic: 'events', partition: 3 };
const intent: Intent = {
  first: 42,
  last: 99,
  rows: 57,
  atMs: 1_795_000_000_000,
  settings: 'f00d',
  tables: ['db.t'],
  written,
  excluded: [43, 50, 51, 52],
  tokenForm: 2,
};
const stored: StoredState = {
  owner: 'ingest-7#412',
  write: 'q9-5',
  state: { settled: 41, pending: [intent], incarnation: 0, topicId: 'h1Qq' },
};
const valid = JSON.parse(encodeState(stored, name)) as Record<string, unknown> & { pending: [Record<string, unknown>] };

function withState(state: Partial<PartitionState>): StoredState {
  return { ...stored, state: { ...stored.state, ...state } };
}

function refusal(call: () => unknown): IngestError {
  try {
    call();
  } catch (error) {
    if (error instanceof IngestError && error.code === 'KCR_STATE_INVALID') return error;
    throw error;
  }
  throw new Error('expected KCR_STATE_INVALID');
}

describe('the text', () => {
  test('is one line of JSON that a person can read', () => {
    expect(encodeState(stored, name)).toBe(
      '{"v":3,"owner":"ingest-7#412","write":"q9-5","settled":41,"incarnation":0,"topicId":"h1Qq","pending":[' +
        '{"first":42,"last":99,"rows":57,"atMs":1795000000000,"settings":"f00d","target":' +
        '{"tables":["db.t"],"id":"2057c3d3-b2a4-43fb-bc9b-b39db421d703","columns":"tpo-1f3c9a","shape":"90aa31c4","alteredS":1794990000},"excluded":"43,50-52"}]}',
    );
    expect(encodeState({ ...stored, state: emptyState }, name)).toBe(
      '{"v":3,"owner":"ingest-7#412","write":"q9-5","settled":null,"incarnation":0,"pending":[]}',
    );
  });

  test('I4, I9, I10: that a fill was begun, what must be waited out, and the version of the transform outlive the process', () => {
    const noted = withState({
      pending: [
        { ...intent, transformVersion: 'v7', isFilling: true, isUnseen: true, unknownUntilMs: 1_795_000_330_000 },
      ],
    });
    const text = encodeState(noted, name);
    expect(text).toContain('"settings":"f00d"');
    expect(decodeState(text, name)).toStrictEqual(noted);
    expect(refusal(() => decodeState(text.replace('1795000330000', '"soon"'), name)).message).toContain(
      'unknownUntilMs',
    );
    expect(refusal(() => decodeState(text.replace('"v7"', '7'), name)).message).toContain('pending[0].transform is 7');
  });

  test('names what several ranges share once', () => {
    const shared = withState({ pending: [intent, { ...intent, first: 100, last: 120, floor: 42, excluded: [] }] });
    const text = encodeState(shared, name);
    expect(text.split('2057c3d3')).toHaveLength(2);
    expect(text).toContain(
      '"pending":[{"first":42,"last":99,"rows":57,"atMs":1795000000000,"settings":"f00d","target":0,"excluded":"43,50-52"},{"first":100',
    );
    expect(decodeState(text, name)).toStrictEqual(shared);
  });

  test('is read whatever the order of the fields, with fields that are not known', () => {
    const text = JSON.stringify({ later: true, ...Object.fromEntries(Object.entries(valid).reverse()) });
    expect(decodeState(text, name)).toStrictEqual(stored);
  });
});

const offset = fc.oneof(fc.nat(2000), fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER - 100_000 }));
const range = fc.record({
  length: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 20_000 })),
  without: fc.uniqueArray(fc.nat(39), { maxLength: 20 }),
  rows: fc.nat(20_000),
  atMs: fc.nat(),
  settings: fc.string({ maxLength: 30, unit: 'binary' }),
  tables: fc.array(fc.string({ maxLength: 20, unit: 'binary' }), { maxLength: 2 }),
  written: fc.option(
    fc.record(
      {
        id: fc.string({ maxLength: 36, unit: 'binary' }),
        columns: fc.string({ maxLength: 10 }),
        shape: fc.string({ maxLength: 8 }),
        alteredS: fc.nat(),
        mutation: fc.nat(),
      },
      { requiredKeys: ['columns', 'shape'], noNullPrototype: true },
    ),
    { nil: undefined },
  ),
  tokenForm: fc.constantFrom(2, undefined),
  token: fc.option(fc.string({ maxLength: 10, unit: 'binary' }), { nil: undefined }),
});
const anyState = fc
  .record({ begin: offset, isFresh: fc.boolean(), incarnation: fc.nat(), ranges: fc.array(range, { maxLength: 3 }) })
  .map(({ begin, isFresh, incarnation, ranges }): PartitionState => {
    let first = begin;
    const pending = ranges.map(({ length, without, written: target, tokenForm, token, ...rest }): Intent => {
      const last = first + length - 1;
      const from = first;
      first = last + 1;
      const more = {
        ...(target === undefined ? {} : { written: target }),
        ...(tokenForm === 2 ? { tokenForm } : {}),
        ...(token === undefined ? {} : { token }),
      };
      return {
        ...rest,
        ...more,
        ...(from === begin ? {} : { floor: begin }),
        first: from,
        last,
        excluded: without
          .map((at) => from + at)
          .filter((at) => at <= last)
          .sort((a, b) => a - b),
      };
    });
    return {
      settled: isFresh ? undefined : begin - 1,
      pending,
      incarnation,
      topicId: isFresh ? undefined : `topic-${incarnation}`,
    };
  });
const anyName = (maxLength: number) => fc.string({ maxLength, unit: 'binary' });

describe('any sound state', () => {
  test('comes back as it was, in at most 4,000 bytes', () => {
    fc.assert(
      fc.property(anyState, anyName(30), anyName(10), (state, owner, write) => {
        const text = encodeState({ state, owner, write }, name);
        expect(new TextEncoder().encode(text).length).toBeLessThanOrEqual(4000);
        expect(text).not.toContain('\n');
        expect(decodeState(text, name)).toStrictEqual({ state, owner, write });
      }),
      { numRuns: 500 },
    );
  });

  test('that fits for one owner fits for every owner', () => {
    const longest = { owner: '"'.repeat(stateLimits.ownerBytes / 2), write: 'ä'.repeat(stateLimits.writeBytes / 2) };
    // As long as it can be: one character more and it is refused.
    const fill = (length: number) => withState({ pending: [{ ...intent, settings: 's'.repeat(length) }] });
    let length = 3000;
    while (length < 4100 && accepts(() => encodeState({ ...fill(length + 1), owner: '', write: '' }, name))) length++;
    expect(length).toBeGreaterThan(3000);
    expect(accepts(() => encodeState({ ...fill(length + 1), ...longest }, name))).toBe(false);
    const text = encodeState({ ...fill(length), ...longest }, name);
    expect(new TextEncoder().encode(text).length).toBe(4000);
    expect(decodeState(text, name)).toStrictEqual({ ...fill(length), ...longest });
  });
});

function accepts(call: () => unknown): boolean {
  try {
    call();
    return true;
  } catch {
    return false;
  }
}

describe('what does not fit is refused before it is written', () => {
  const scattered = Array.from({ length: 2000 }, (_, index) => 1 + 2 * index);
  test.each<[string, StoredState, string]>([
    [
      'excluded offsets far apart',
      withState({ settled: 0, pending: [{ ...intent, first: 1, last: 5000, excluded: scattered }] }),
      '2000 excluded offsets',
    ],
    ['a long fingerprint', withState({ pending: [{ ...intent, settings: 'x'.repeat(4000) }] }), 'of at most 4000'],
    [
      'many bytes in few characters',
      withState({ pending: [{ ...intent, tables: ['€'.repeat(1300)] }] }),
      'of at most 4000',
    ],
    ['a long owner', { ...stored, owner: 'o'.repeat(201) }, "the owner's name takes more than 200 bytes"],
    ['an owner of few characters and many bytes', { ...stored, owner: '€'.repeat(67) }, "the owner's name"],
    ['a long name of the write', { ...stored, write: 'w'.repeat(61) }, "the write's name takes more than 60 bytes"],
    [
      'more excluded offsets than are unfolded',
      withState({ pending: [{ ...intent, last: 300_000, excluded: run(43, 100_001) }] }),
      'more than 100000 offsets',
    ],
  ])('%s', (_, value, why) => {
    const error = refusal(() => encodeState(value, name));
    expect(error.message).toContain(why);
    expect(error.message).toContain('not written');
    expect(error.fields).toMatchObject({ topic: 'events', partition: 3 });
    expect(error.message).toContain('lkc-1');
    expect(error.message).toContain('ingest');
  });

  test('a run of excluded offsets fits, however long', () => {
    const value = withState({ pending: [{ ...intent, last: 200_000, excluded: run(43, 100_000) }] });
    expect(encodeState(value, name)).toContain('"excluded":"43-100042"');
    expect(decodeState(encodeState(value, name), name)).toStrictEqual(value);
  });
});

function run(first: number, length: number): number[] {
  return Array.from({ length }, (_, index) => first + index);
}

const second: Intent = { ...intent, first: 100, last: 120, excluded: [] };
const unsound: [string, Partial<PartitionState>, string][] = [
  ['settled beyond 2^53', { settled: 2 ** 53, pending: [] }, '"settled" is 9007199254740992'],
  ['settled below -1', { settled: -2, pending: [] }, '"settled" is -2'],
  ['settled between two offsets', { settled: 1.5, pending: [] }, '"settled" is 1.5'],
  ['settled that is no number', { settled: '41' as never }, '"settled" is "41"'],
  ['settled that is not a number', { settled: NaN, pending: [] }, '"settled" is'],
  ['an incarnation below 0', { incarnation: -1 }, '"incarnation" is -1'],
  ['no incarnation', { incarnation: undefined as never }, '"incarnation" is missing'],
  ['a gap after settled', { pending: [{ ...intent, first: 43 }] }, 'pending[0] begins at 43, but settled is 41'],
  ['an overlap with settled', { pending: [{ ...intent, first: 41 }] }, 'pending[0] begins at 41, but settled is 41'],
  [
    'a gap between ranges',
    { pending: [intent, { ...second, first: 101 }] },
    'pending[1] begins at 101, but pending[0] ends at 99',
  ],
  [
    'an overlap of ranges',
    { pending: [intent, { ...second, first: 99 }] },
    'pending[1] begins at 99, but pending[0] ends at 99',
  ],
  ['ranges in the wrong order', { settled: undefined, pending: [second, intent] }, 'not contiguous'],
  [
    'a range that ends before it begins',
    { pending: [{ ...intent, last: 41, excluded: [] }] },
    'pending[0] begins at 42, after its end 41',
  ],
  ['an unsafe end', { pending: [{ ...intent, last: 2 ** 53, excluded: [] }] }, 'pending[0].last is 9007199254740992'],
  [
    'an unsafe beginning',
    { settled: undefined, pending: [{ ...intent, first: -1, excluded: [] }] },
    'pending[0].first is -1',
  ],
  ['a floor above the range', { pending: [{ ...intent, floor: 43 }] }, 'pending[0].floor is 43'],
  ['a negative count of rows', { pending: [{ ...intent, rows: -1 }] }, 'pending[0].rows is -1'],
  ['no time', { pending: [{ ...intent, atMs: NaN }] }, 'pending[0].atMs'],
  [
    'a fingerprint that is no text',
    { pending: [{ ...intent, settings: true as never }] },
    'pending[0].settings is true',
  ],
  ['a table that is no text', { pending: [{ ...intent, tables: [7 as never] }] }, 'pending[0].tables is [7]'],
  ['an excluded offset before the range', { pending: [{ ...intent, excluded: [41] }] }, 'pending[0].excluded has 41'],
  [
    'an excluded offset after the range',
    { pending: [{ ...intent, excluded: [99, 100] }] },
    'pending[0].excluded has 100',
  ],
];

describe('an unsound state is refused', () => {
  test.each([
    ...unsound,
    ['excluded offsets that descend', { pending: [{ ...intent, excluded: [50, 43] }] }, 'pending[0].excluded has 43'],
    ['an excluded offset twice', { pending: [{ ...intent, excluded: [50, 50] }] }, 'pending[0].excluded has 50'],
    ['an excluded offset between two', { pending: [{ ...intent, excluded: [50.5] }] }, 'pending[0].excluded has 50.5'],
  ] as typeof unsound)('when written: %s', (_, state, why) => {
    expect(refusal(() => encodeState(withState(state), name)).message).toContain(why);
  });

  test.each(unsound.filter(([what]) => what !== 'settled that is not a number'))('when read: %s', (_, change, why) => {
    const { settled = null, incarnation, pending } = { ...stored.state, ...change };
    const ranges = pending.map(({ excluded, tables, written: target, tokenForm: _, ...rest }) => ({
      ...rest,
      target: { tables, ...target },
      excluded: excluded.join(','),
    }));
    const settledField = 'settled' in change ? settled : 41;
    const text = JSON.stringify({ ...valid, settled: settledField, incarnation, pending: ranges });
    expect(refusal(() => decodeState(text, name)).message).toContain(why);
  });
});

describe('a text that is no state is refused', () => {
  const [range] = valid.pending;
  const texts: [string, string, string][] = [
    ['nothing', '', 'not JSON'],
    ['half of one', '{"v":1,"owner":"a', 'not JSON'],
    ['null', 'null', 'not a JSON object'],
    ['a list', '[1]', 'not a JSON object'],
    ['a number', '17', 'not a JSON object'],
    ['an object of somebody else', '{"state":"BEFORE_PROCESSING"}', '"v" is missing'],
    ['an older format', JSON.stringify({ ...valid, v: 0 }), '"v" is 0, expected 3'],
    ['a format that is no number', JSON.stringify({ ...valid, v: '1' }), '"v" is "1"'],
    ['a format between two', JSON.stringify({ ...valid, v: 1.5 }), '"v" is 1.5'],
    ['no owner', JSON.stringify({ ...valid, owner: undefined }), '"owner" is missing'],
    ['no name of the write', JSON.stringify({ ...valid, write: 7 }), '"write" is 7'],
    ['settled left out', JSON.stringify({ ...valid, settled: undefined }), '"settled" is missing'],
    ['pending left out', JSON.stringify({ ...valid, pending: undefined }), '"pending" is missing'],
    ['pending that is no list', JSON.stringify({ ...valid, pending: {} }), '"pending" is {}'],
    ['a range that is no object', JSON.stringify({ ...valid, pending: [42] }), 'pending[0] is 42'],
    ['a range that is null', JSON.stringify({ ...valid, pending: [null] }), 'pending[0] is null'],
    [
      'a range of no table',
      JSON.stringify({ ...valid, targets: [{}], pending: [{ ...range, target: 1 }] }),
      'pending[0].target is 1, expected an index',
    ],
    [
      'a range of no settings',
      JSON.stringify({ ...valid, settings: ['x'], pending: [{ ...range, settings: -1 }] }),
      'pending[0].settings is -1, expected an index',
    ],
    ['no list of tables', JSON.stringify({ ...valid, pending: [{ ...range, target: 0 }] }), '"targets" is missing'],
    [
      'a table that is no object',
      JSON.stringify({ ...valid, pending: [{ ...range, target: 'db.t' }] }),
      'the target is "db.t"',
    ],
    [
      'a table without columns',
      JSON.stringify({ ...valid, pending: [{ ...range, target: { tables: [], id: 'x', shape: 's' } }] }),
      'columns is missing',
    ],
    [
      'a table altered at no time',
      JSON.stringify({
        ...valid,
        pending: [{ ...range, target: { tables: [], columns: '', shape: 's', alteredS: 'now' } }],
      }),
      'alteredS is "now"',
    ],
    [
      'another form of the token',
      JSON.stringify({ ...valid, pending: [{ ...range, form: 3 }] }),
      'pending[0].form is 3',
    ],
    [
      'excluded as a list',
      JSON.stringify({ ...valid, pending: [{ ...range, excluded: [43] }] }),
      'pending[0].excluded is [43]',
    ],
    ...['43-', '-43', '43,', 'x', '43--50', '52-50', ' 43', '4.3', '99999999999999999', '9007199254740992'].map(
      (excluded): [string, string, string] => [
        `excluded "${excluded}"`,
        JSON.stringify({ ...valid, pending: [{ ...range, excluded }] }),
        'pending[0].excluded has the range',
      ],
    ),
    [
      'excluded without end',
      JSON.stringify({ ...valid, pending: [{ ...range, last: 9e15, excluded: '43-8000000000000000' }] }),
      'more than 100000 offsets',
    ],
    [
      'excluded without end, in parts',
      JSON.stringify({ ...valid, pending: [{ ...range, excluded: '43-60043,60050-120000' }] }),
      'more than 100000 offsets',
    ],
  ];

  test.each(texts)('%s', (_, text, why) => {
    const error = refusal(() => decodeState(text, name));
    expect(error.message).toContain(why);
    expect(error.message).toContain(`It begins with: ${text.slice(0, 60)}`);
    expect(error.message).toContain('lkc-1');
    expect(error.message).toContain('ingest');
    expect(error.fields).toMatchObject({ topic: 'events', partition: 3 });
  });

  test('a newer format is told apart, whatever else it holds', () => {
    const error = refusal(() => decodeState('{"v":4,"who":"a later owner"}', name));
    expect(error.message).toContain('newer version');
    expect(error.message).toContain('format 4');
    expect(error.message).toContain('upgrade');
  });

  test('only the beginning of a long value is shown', () => {
    expect(refusal(() => decodeState('x'.repeat(1_000_000), name)).message.length).toBeLessThan(500);
    expect(
      refusal(() => decodeState(JSON.stringify({ ...valid, owner: ['x'.repeat(9999)] }), name)).message.length,
    ).toBeLessThan(500);
  });

  test('any other text is refused or is a sound state, never anything else', () => {
    const field = fc.constantFrom('v', 'owner', 'write', 'settled', 'incarnation', 'pending');
    const ofRange = fc.constantFrom('first', 'last', 'rows', 'atMs', 'settings', 'tables', 'excluded');
    fc.assert(
      fc.property(
        fc.option(field),
        fc.option(ofRange),
        fc.jsonValue(),
        fc.nat(200),
        fc.boolean(),
        (one, inner, value, at, cutOff) => {
          const damaged = {
            ...valid,
            pending: [inner === null ? range : { ...range, [inner]: value }],
            ...(one === null ? {} : { [one]: value }),
          };
          const whole = JSON.stringify(damaged);
          const text = cutOff ? whole.slice(0, at) : whole;
          let read: StoredState;
          try {
            read = decodeState(text, name);
          } catch (error) {
            expect(error).toMatchObject({ code: 'KCR_STATE_INVALID' });
            return;
          }
          expect(decodeState(encodeState({ ...read, owner: '', write: '' }, name), name).state).toStrictEqual(
            read.state,
          );
        },
      ),
      { numRuns: 1000 },
    );
  });
});

test('a key is named in full', () => {
  expect(stateName(name)).toBe('cluster lkc-1, group ingest, topic events, partition 3');
});

describe('that a partition has halted', () => {
  const halted = { code: 'KCR_POISON', atMs: 1_795_000_000_000, heals: false };

  test('outlives the process, in the same format: an older program reads past it', () => {
    const text = encodeState(withState({ halted }), name);
    expect(text).toContain('"v":3,');
    expect(text).toContain('"halted":{"code":"KCR_POISON","atMs":1795000000000,"heals":false}');
    expect(decodeState(text, name)).toStrictEqual(withState({ halted }));
  });

  test.each([
    ['"yes"'],
    ['null'],
    ['{}'],
    ['{"code":"KCR_POISON","atMs":"now","heals":true}'],
    ['{"code":"\\u001b[2J","atMs":1,"heals":true}'],
    ['{"code":"KCR_POISON","atMs":1,"heals":1}'],
  ])('is passed over where it is %s: the state is sound, and its partition goes on', (value) => {
    const text = encodeState(withState({ halted }), name).replace(/"halted":\{[^}]*\}/u, `"halted":${value}`);
    expect(decodeState(text, name)).toStrictEqual(stored);
  });

  test('is left out where the state is full: what must be recorded comes first', () => {
    const pad = (bytes: number): StoredState => withState({ topicId: 'x'.repeat(bytes) });
    let bytes = 1;
    while (fits(pad(bytes + 1))) bytes += 1;
    const noted = { ...pad(bytes), state: { ...pad(bytes).state, halted } };
    expect(encodeState(noted, name)).toBe(encodeState(pad(bytes), name));
  });

  function fits(state: StoredState): boolean {
    try {
      return encodeState(state, name) !== '';
    } catch {
      return false;
    }
  }
});
