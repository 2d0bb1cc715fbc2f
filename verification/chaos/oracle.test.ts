// The oracle's comparisons, on a log and rows made by hand: what a chaos run would have to show, and what must turn it red.
import { describe, expect, test } from 'vitest';
import { isRight } from './chaos.js';
import { compare, type Log } from './oracle.js';
import type { Told } from './told.js';
import { countedOf } from './tombstones.js';
import { topics, valueOf, type Fate } from './traffic.js';

const plain = topics.plain.topic;
const compacted = topics.compacted.topic;

/** Record 3 is a tombstone of the plain topic, record 6 one of the compacted topic, 7 one that compaction took meanwhile. */
const tombstones = new Set([3, 6, 7]);
const committed = (...ids: readonly number[]): Map<number, Fate> => new Map(ids.map((id) => [id, 'committed']));
const fates = new Map([
  [plain, committed(1, 2, 3)],
  [compacted, committed(4, 5, 6, 7)],
]);

const records = (first: number, ids: readonly number[]) =>
  new Map(
    ids.map((id, index) => [
      first + index,
      { id, key: `key-${id}`, value: tombstones.has(id) ? undefined : valueOf(id) },
    ]),
  );
/** Record 4 and tombstone 7 were at the offsets 10 and 13. */
const log: Log = new Map([
  [`${plain}/0`, records(0, [1, 2, 3])],
  [`${compacted}/0`, records(11, [5, 6])],
]);

const row = (
  topic: string,
  offset: number,
  id: number,
  pad = (JSON.parse(valueOf(id)) as { pad: string }).pad,
): string => [topic, 0, offset, id, pad, `key-${id}`].join('\t');
const right = [row(plain, 0, 1), row(plain, 1, 2), row(compacted, 10, 4), row(compacted, 11, 5)];

const judged = (rows: readonly string[]) => compare(rows, log, { fates, tombstones });

describe('what a table holds', () => {
  test('a row of each record that has a value, and of one that compaction took, is right; a tombstone has none', () => {
    const verdict = judged(right);
    expect(verdict).toEqual({
      produced: 3,
      tombstones: 2,
      rows: 4,
      compactedAway: 1,
      missing: [],
      doubled: [],
      wrong: [],
    });
    expect(isRight(verdict)).toBe(true);
  });

  test('a tombstone that became a row is wrong, with the defaults of its columns or with a value', () => {
    for (const made of [row(plain, 2, 0, ''), row(plain, 2, 3)])
      expect(judged([...right, made]).wrong).toEqual([`${plain}/0@2`]);
    expect(judged([...right, row(compacted, 12, 6)]).wrong).toEqual([`${compacted}/0@12`]);
  });

  test('a row of a tombstone that compaction took meanwhile is wrong, and not excused as one of a record is', () => {
    for (const made of [row(compacted, 13, 0, ''), row(compacted, 13, 7)])
      expect(judged([...right, made]).wrong).toEqual([`${compacted}/0@13`]);
  });

  test('a record that went with a tombstone beside it is missing, and one that came twice is doubled', () => {
    expect(judged(right.slice(1)).missing).toEqual([`${plain}/0@0`]);
    expect(judged([right[0]!, ...right]).doubled).toEqual([`${plain}/0@0`]);
  });
});

describe('what the workers count', () => {
  const at = { atMs: 0, partition: 0 };
  const filtered: Told = { ...at, what: 'filtered', topic: plain, detail: '0-2', filtered: 1 };
  const skipped: Told = { ...at, what: 'tombstones', topic: compacted, detail: '10-12', filtered: 1 };

  test('a tombstone that was dropped or left out is counted once, also when its range was replayed', () => {
    expect(countedOf(log, [filtered, skipped])).toEqual({ dropped: 1, skipped: 1, uncounted: [] });
    expect(countedOf(log, [filtered, skipped, skipped, filtered])).toEqual({ dropped: 1, skipped: 1, uncounted: [] });
  });

  test('one that went without a word is named', () => {
    expect(countedOf(log, [skipped]).uncounted).toEqual([`${plain}/0@2`]);
    expect(countedOf(log, [filtered]).uncounted).toEqual([`${compacted}/0@12`]);
  });

  test('a record that was dropped as if it were one is named with its range', () => {
    expect(countedOf(log, [{ ...filtered, filtered: 2 }, skipped]).uncounted).toEqual([
      `${plain}/0@0-2 (1, counted 2)`,
    ]);
  });
});
