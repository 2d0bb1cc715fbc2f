import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { dedupToken, type TokenParts } from '../../src/model/token.js';
import { intent } from '../support/fakes.js';

vi.setConfig({ testTimeout: 60_000 });

const parts: TokenParts = {
  cluster: 'c1',
  group: 'g1',
  topic: 'clicks',
  incarnation: 0,
  partition: 3,
  intent: intent(10, 19, { tokenForm: 2 }),
};
/** As a version before groups were named recorded it. */
const old = { ...parts, intent: intent(10, 19) };

test('the token is the same for the same recorded range, whatever else is known of it', () => {
  const replayed = intent(10, 19, {
    rows: 4,
    atMs: 99,
    settings: 's2',
    tables: ['other'],
    floor: 3,
    written: { columns: '', shape: 'x' },
    tokenForm: 2,
  });
  expect(dedupToken({ ...parts, intent: replayed })).toBe(dedupToken(parts));
});

test('a token can be read by a person who looks for it in the server', () => {
  expect(dedupToken(parts)).toBe('kcr2:c1:g1:clicks:0:3:10-19');
  expect(dedupToken({ ...parts, intent: { ...parts.intent, excluded: [12, 15] } })).toBe(
    'kcr2:c1:g1:clicks:0:3:10-19:without=12,15',
  );
});

test('I10: rows of a re-created topic are not eaten by the tokens of the one before', () => {
  expect(dedupToken({ ...parts, topicId: 'B' })).not.toBe(dedupToken({ ...parts, topicId: 'A' }));
  expect(dedupToken({ ...parts, topicId: 'A' })).toBe('kcr2:c1:g1:clicks@A:0:3:10-19');
  expect(dedupToken({ ...parts, incarnation: 1 })).not.toBe(dedupToken(parts));
});

test('C6: rows of another group that reads the topic from its beginning are not eaten by the tokens of the first one', () => {
  expect(dedupToken({ ...parts, group: 'g2' })).not.toBe(dedupToken(parts));
});

test('C6: a group may have any name: none is taken for another group, or for a part of the topic', () => {
  const names = [
    'a',
    'a:clicks',
    'a:clicks:0:3',
    'a%3Aclicks',
    'a%253Aclicks',
    ':',
    '::',
    '%',
    '',
    'a@x',
    'ä ö',
    'a:without=12',
  ];
  expect(new Set(names.map((group) => dedupToken({ ...parts, group }))).size).toBe(names.length);
});

test('C6: nor is a group taken for the end of another cluster’s name', () => {
  expect(dedupToken({ ...parts, cluster: 'x', group: 'y:z' })).not.toBe(
    dedupToken({ ...parts, cluster: 'x:y', group: 'z' }),
  );
});

test('C6: a range that was recorded without the group keeps its token: under another one it would be inserted again', () => {
  expect(dedupToken(old)).toBe('kcr1:c1:clicks:0:3:10-19');
  expect(dedupToken({ ...old, intent: { ...old.intent, excluded: [12] }, topicId: 'A' })).toBe(
    'kcr1:c1:clicks@A:0:3:10-19:without=12',
  );
});

test('a range that another program has inserted goes under the token of that program', () => {
  const foreign = intent(10, 19, { token: 'clicks-3-10-19' });
  expect(dedupToken({ ...parts, topicId: 'A', incarnation: 2, intent: foreign })).toBe('clicks-3-10-19');
  expect(dedupToken({ ...parts, intent: { ...foreign, excluded: [12] } })).toBe('clicks-3-10-19:without=12');
});

test('I12: a batch without its poison records is another batch', () => {
  const tokens = [[], [12], [12, 13], [1, 213]].map((excluded) =>
    dedupToken({ ...parts, intent: intent(10, 19, { excluded }) }),
  );
  expect(new Set(tokens).size).toBe(tokens.length);
});

test('I10, I12: two batches that differ in anything never share a token', () => {
  const topicName = fc.stringMatching(/^[a-zA-Z0-9._-]{1,6}$/);
  const anyParts = fc.record({
    cluster: fc.stringMatching(/^[a-zA-Z0-9_-]{1,4}$/),
    group: fc.oneof(fc.string({ maxLength: 6 }), fc.stringMatching(/^[ab:%35A@0-]{0,6}$/)),
    topic: topicName,
    incarnation: fc.nat({ max: 20 }),
    partition: fc.nat({ max: 20 }),
    intent: fc
      .record({
        first: fc.nat({ max: 30 }),
        more: fc.nat({ max: 30 }),
        excluded: fc.uniqueArray(fc.nat({ max: 60 }), { maxLength: 3 }),
      })
      .map(({ first, more, excluded }) => ({
        first,
        last: first + more,
        excluded: excluded.sort((a, b) => a - b),
        tokenForm: 2 as const,
      })),
  });
  fc.assert(
    fc.property(
      anyParts,
      anyParts,
      fc.constantFrom('cluster', 'group', 'topic', 'incarnation', 'partition', 'intent'),
      (one, two, field) => {
        const other = { ...one, [field]: two[field] };
        const areSame = JSON.stringify(one) === JSON.stringify(other);
        expect(dedupToken(one) === dedupToken(other)).toBe(areSame);
      },
    ),
    { numRuns: 1000 },
  );
});
