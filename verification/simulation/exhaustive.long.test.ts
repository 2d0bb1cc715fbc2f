// Small worlds, explored to the end; and that what makes the search short takes nothing away from it.
import { Subject, concat, concatMap, defer, from, last, take, tap } from 'rxjs';
import { describe, expect, test, vi } from 'vitest';
import { exactlyOnce } from '../../src/pipeline/exactly-once.js';
import type { PreparingSink, PreparedInsert, InsertBatch, RecordSource } from '../../src/ports.js';
import { exhaust, exhaustTogether, smallWorld, smallWorlds, type Part } from './exhaustive.js';
import type { ComposeOwner } from './owners.js';
import { sabotages } from './sabotage.js';
import { Dice } from './scenario.js';
import { textOf } from './servers.js';

vi.setConfig({ testTimeout: 240_000 });

/** Methods and getters of the frozen insert stay those of the sink. */
const withInsert = (frozen: PreparedInsert, insert: PreparedInsert['insert']) =>
  Object.assign(Object.create(frozen) as PreparedInsert, { insert });

/** A sabotage as an owner of a small world. */
const broken =
  (name: keyof typeof sabotages): ComposeOwner =>
  (process, { batch, chunkSize, maxPending = 2 }) =>
    sabotages[name].compose(
      process,
      {
        startMs: 0,
        chunkSize,
        room: Infinity,
        batch: { bytes: 10_000, maxWaitMs: 5, count: 1, ...batch },
        blockRows: 2,
        asyncInserts: false,
        faults: [],
      },
      {
        seed: 1,
        records: [],
        maxPending,
        poisonEvery: 0,
        onPoison: 'halt',
        onGap: 'continue',
        spread: 1,
        views: [],
        family: 'plain',
        dedupWindowMs: 0,
        coalesceMs: 0,
        lives: [],
        happenings: [],
        tombstoneEvery: 0,
      },
      new Dice(1),
    );

const kindsOf = ({ findings }: { readonly findings: readonly { readonly kind: string }[] }) =>
  [...new Set(findings.map(({ kind }) => kind))].sort();

/** Of seven single records one owner joins two, the other five. */
const joined = smallWorld([7], 2, 1, 0, { isTrickling: true });

describe('small worlds, every order of two owners’ steps', () => {
  for (const world of [
    smallWorlds[2]!,
    smallWorlds[10]!,
    smallWorlds[12]!,
    smallWorld([3, 3], 2, 1, 0, { isTrickling: true }),
  ]) {
    test(world.name, () => {
      expect(exhaust(world, { maxSeconds: 100 })).toMatchObject({ isComplete: true, findings: [] });
    });
  }

  // The same of six thousand histories is `--world 26`, which also has two faults.
  const late = smallWorld([2], 2, 1, 1, { spread: 2, isSlow: true });
  test(late.name, () => {
    expect(exhaust(late, { maxSeconds: 100 })).toMatchObject({ isComplete: true, findings: [] });
  });

  test('I16: a fill beside an attempt that hangs is found where each owner comes past the tokens of the one before', () => {
    const { findings } = exhaust(smallWorld([2], 2, 1, 2, { spread: 2, isSlow: true }), {
      compose: broken('I16'),
      maxFindings: 1,
      maxSeconds: 100,
    });
    expect(findings[0]?.kind).toMatch(/I16|doubled/);
  });

  test('batches that waited and became one: no record is lost or doubled, whoever joined them', () => {
    const { owners, isComplete, findings } = exhaustTogether(joined);
    const ranges = owners.contents
      .map(({ name }) => / insert 0:(\d+)-(\d+)/.exec(name))
      .filter((found) => found !== null);
    const wider = ranges.filter(([, first, last]) => first !== last).map(([, first, last]) => `${first}-${last}`);
    // Every batch came as a single record, so that whatever is wider was joined.
    expect({ isComplete, findings, wider: [...new Set(wider)].sort() }).toEqual({
      isComplete: true,
      findings: [],
      wider: ['1-2', '1-5', '3-4', '3-5', '3-6', '5-6'],
    });
  });
});

describe('orders of the same answers are one history', () => {
  const ends = ({ servers, ends: numbers }: Part) => [...numbers].map((id) => textOf(servers.saved(id))).sort();

  // Ways of merging that were too bold have turned these red where walking beside showed nothing.
  const worlds = [
    smallWorld([1], 1, 1, 1),
    smallWorld([2], 1, 2, 0),
    smallWorld([3], 2, 2, 0),
    smallWorld([4], 2, 1, 0),
    smallWorld([2], 1, 1, 1),
    joined,
  ];
  for (const world of worlds) {
    test(`${world.name}: with each history for itself there are as many orders, and the same ends`, () => {
      const merged = exhaustTogether(world);
      const each = exhaustTogether(world, { isMerging: false });
      expect(each.histories).toBeGreaterThan(merged.histories);
      expect({ orders: merged.orders, ends: ends(merged), isComplete: merged.isComplete }).toEqual({
        orders: each.orders,
        ends: ends(each),
        isComplete: true,
      });
      expect(merged.findings).toEqual([]);
    });
  }

  test('an owner that remembers an order is told of', () => {
    expect(kindsOf(exhaustTogether(smallWorld([2], 1, 2, 0), { compose: remembering }))).toContain('remembers');
  });
});

describe('what is broken is found, alike in one partition and in two', () => {
  const isReal = ({ kind }: { readonly kind: string }) => kind !== 'dependent' && kind !== 'remembers';

  for (const name of ['I1', 'I3', 'I4', 'I5', 'I6', 'I9', 'I11'] as const) {
    test(`${name}: ${sabotages[name].means}`, () => {
      const options = { compose: broken(name), maxFindings: 1, maxSeconds: 30 };
      expect(exhaustTogether(smallWorld([1], 1, 1, 1), { ...options, isMerging: false }).findings.some(isReal)).toBe(
        true,
      );
      expect(exhaust(smallWorld([1], 1, 1, 1), options).findings.some(isReal)).toBe(true);
      expect(exhaust(smallWorld([1, 1], 1, 1, 1), options).findings.some(isReal)).toBe(true);
    });
  }

  for (const name of ['I1', 'I3', 'I6', 'I9'] as const) {
    test(`${name}, with two partitions at once`, () => {
      expect(
        exhaustTogether(smallWorld([1, 1], 1, 1, 1), {
          compose: broken(name),
          maxFindings: 1,
          maxSeconds: 30,
        }).findings.some(isReal),
      ).toBe(true);
    });
  }
});

test('partitions with as many records are the same but for their number', () => {
  const [first, second] = [0, 1].map((only) => exhaustTogether(smallWorld([1, 1], 1, 1, 1), { only }));
  const { orders, moments, histories, isComplete } = first!;
  expect(second).toMatchObject({ orders, moments, histories, isComplete, findings: [] });
});

describe('partitions that concern each other are told of', () => {
  const world = smallWorld([1, 1], 1, 1, 0);
  const withSink =
    (change: (sink: PreparingSink) => PreparingSink): ComposeOwner =>
    (process, { chunkSize: _, ...config }) =>
      exactlyOnce(process.source, change(process.sink), process.store, { ...config, scheduler: process.scheduler });

  test('an insert that waits for one of the other partition', () => {
    const compose = withSink((sink) => {
      const done = new Subject<number>();
      const prepare = (batch: InsertBatch) => {
        const frozen = sink.prepare(batch);
        if (batch.assignment.partition === 0)
          return withInsert(frozen, () => from(frozen.insert()).pipe(tap(() => done.next(0))));
        return withInsert(frozen, () =>
          done.pipe(
            take(1),
            concatMap(() => frozen.insert()),
          ),
        );
      };
      return { ...sink, prepare };
    });
    expect(exhaust(world, { compose }).findings).not.toEqual([]);
  });

  test('an insert that is made twice once the other partition has had one: neither shows it by itself', () => {
    const compose = withSink((sink) => {
      const had = new Set<number>();
      const prepare = (batch: InsertBatch) => {
        const frozen = sink.prepare(batch);
        const { partition } = batch.assignment;
        return withInsert(frozen, () =>
          defer(() => {
            had.add(partition);
            return had.size < 2 ? frozen.insert() : from(frozen.insert()).pipe(concatMap(() => frozen.insert()));
          }),
        );
      };
      return { ...sink, prepare };
    });
    expect(kindsOf(exhaust(world, { compose }))).toEqual(['dependent']);
  });

  test('a token that two partitions share', () => {
    const compose = withSink((sink) => ({
      ...sink,
      prepare: (batch) => sink.prepare({ ...batch, token: batch.token?.replace(/:\d+:(\d+-\d+)$/, ':$1') }),
    }));
    expect(kindsOf(exhaust(world, { compose }))).toContain('dependent');
  });
});

/** Commits twice when the inserts of an assignment were answered in another order than they were sent in. */
const remembering: ComposeOwner = (process, { chunkSize: _, ...config }) => {
  const { sink, source } = process;
  const answered: number[] = [];
  const prepare = (batch: InsertBatch) => {
    const frozen = sink.prepare(batch);
    return withInsert(frozen, () => from(frozen.insert()).pipe(tap(() => answered.push(batch.lastOffset))));
  };
  const isTurned = () => answered.some((offset, at) => offset < (answered[at - 1] ?? -1));
  const commit: RecordSource['commit'] = (...args) =>
    defer(() =>
      isTurned() ? concat(source.commit(...args), source.commit(...args)).pipe(last()) : source.commit(...args),
    );
  return exactlyOnce({ ...source, commit }, { ...sink, prepare }, process.store, {
    ...config,
    scheduler: process.scheduler,
  });
};
