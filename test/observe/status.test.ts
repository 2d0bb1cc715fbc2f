import { NEVER, of, throwError, type Observable } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { IngestError } from '../../src/errors.js';
import { observedPorts } from '../../src/observe/observed-ports.js';
import { Rate } from '../../src/observe/rate.js';
import { RecentDurations } from '../../src/observe/recent-durations.js';
import type { BatchSink, Claim, InsertBatch, InsertResult, RecordSource, StateStore } from '../../src/ports.js';
import { assignmentOf, ByHand } from './observed.js';

const batchOf = (partition: number, lastOffset: number, more: Partial<InsertBatch> = {}): InsertBatch => ({
  assignment: assignmentOf(partition),
  afterOffset: lastOffset - 1,
  lastOffset,
  records: [{ offset: lastOffset, timestampMs: 1_699_999_990_000, key: null, value: Buffer.from('{}'), headers: [] }],
  bytes: 2,
  intent: undefined,
  token: undefined,
  replay: false,
  ...more,
});

describe('where a partition is', () => {
  test('its lag is what the log holds behind the last offset that is settled', () => {
    const hand = new ByHand().assign(0).logEnds(100);
    expect(hand.only()).toMatchObject({ settled: undefined, lagRecords: 100, logEnd: 100 });
    hand.deliver(0, 59, 60);
    expect(hand.only()).toMatchObject({ settled: 59, lagRecords: 40 });
    hand.deliver(0, 99, 40);
    expect(hand.only()).toMatchObject({ settled: 99, lagRecords: 0, lagSeconds: 0, limit: 'none' });
  });

  test('a claim says what is settled already, and what is in doubt', () => {
    const hand = new ByHand().assign(0).logEnds(100);
    hand.meter.event({ kind: 'claimed', assignment: assignmentOf(0), settled: 79, inDoubt: 2 });
    expect(hand.only()).toMatchObject({ settled: 79, lagRecords: 20, open: 2 });
  });

  test('a lag that nobody knows is not shown as none', () => {
    expect(new ByHand().assign(0).only()).toMatchObject({ lagRecords: undefined, lagSeconds: undefined });
  });

  test('a halt says what to do, and stays to be seen while the partition waits to be tried again', () => {
    const hand = new ByHand().assign(0, 1).halt(0, undefined, 5000);
    expect(hand.only().halted).toMatchObject({ code: 'KCR_SCHEMA', hint: 'add it', healsInMs: 5000 });
    hand.meter.event({ kind: 'lost', assignment: assignmentOf(0) });
    expect(hand.observed.status().partitions).toHaveLength(1);
    const again = assignmentOf(0, { assignmentId: 9 });
    hand.meter.event({ kind: 'assigned', assignment: again });
    expect(hand.only().halted).toMatchObject({ code: 'KCR_SCHEMA' });
    hand.meter.event({ kind: 'healed', assignment: again, attempts: 1 });
    expect(hand.only().halted).toBeUndefined();
  });

  test('a partition that delivers has not halted any more, whoever mended it', () => {
    const hand = new ByHand().assign(0).halt(0, undefined, 5000).deliver(0, 4);
    expect(hand.only().halted).toBeUndefined();
    hand.meter.event({ kind: 'lost', assignment: assignmentOf(0) });
    hand.assign(0);
    expect(hand.only().halted).toBeUndefined();
  });

  test('a partition is as far behind in time as what it has delivered, not as what is on its way', () => {
    const hand = new ByHand().assign(0).logEnds(10);
    const source: RecordSource = { events: NEVER, commit: () => of(undefined) };
    const hanging: BatchSink = { insert: () => NEVER };
    const { sink } = observedPorts({ source, sink: hanging }, hand.meter);
    (sink.insert(batchOf(0, 4)) as Observable<InsertResult>).subscribe();
    expect(hand.only().lagSeconds).toBeUndefined();
    hand.deliver(0, 4);
    expect(hand.only().lagSeconds).toBe((hand.nowMs - 1_699_999_990_000) / 1000);
  });

  test('a drain is seen when the source is told to', () => {
    const hand = new ByHand().assign(0);
    let isDrained = false;
    const source: RecordSource = { events: NEVER, commit: () => of(undefined), drain: () => (isDrained = true) };
    const sink: BatchSink = { insert: () => NEVER };
    observedPorts({ source, sink }, hand.meter).source.drain?.();
    expect([isDrained, hand.observed.status().phase]).toEqual([true, 'draining']);
  });

  test('what a server or a transform quotes of a record is not shown', () => {
    const hand = new ByHand().assign(0, 1);
    hand.halt(0, new IngestError('KCR_POISON', 'cannot parse {"card":"4111"}', { offset: 7 }));
    hand.halt(1, new IngestError('KCR_INSERT_FATAL', "refused near '4111'", { serverCode: 27 }));
    expect(JSON.stringify(hand.observed.status())).not.toContain('4111');
    expect(hand.only(1).halted?.message).toContain('server code 27');
  });
});

test('what is noted holds on to no record: a slice of one keeps megabytes of what was fetched', () => {
  const hand = new ByHand().assign(0);
  const value = Buffer.from('{}');
  const record = { offset: 7, timestampMs: 0, key: null, value, headers: [] };
  const error = new IngestError('KCR_POISON', 'no', { offset: 7, hint: 'mend the producer' });
  hand.meter.event({ kind: 'excluded', assignment: assignmentOf(0), record, error, replay: false });
  expect(hand.observed.noted().at(-1)).toEqual({
    id: 2,
    atMs: hand.nowMs,
    lastMs: hand.nowMs,
    times: 1,
    where: 'flights/0',
    kind: 'excluded',
    level: 'warn',
    topic: 'flights',
    partition: 0,
    text: 'excluded: KCR_POISON: a record cannot be inserted',
    hint: 'mend the producer',
  });
});

describe('what was noted', () => {
  const retry = (hand: ByHand, partition: number, attempt: number) => {
    const error = new IngestError('KCR_CLICKHOUSE_UNREACHABLE', 'connection refused');
    const assignment = assignmentOf(partition);
    hand.meter.event({ kind: 'retry', call: 'insert', assignment, attempt, delayMs: 100, error });
  };
  const times = (hand: ByHand) => hand.observed.noted().map((each) => each.times);

  test('an outage is one notice with its count and its partitions: what was noted before it stays to be read', () => {
    const hand = new ByHand().halt(7);
    for (let attempt = 1; attempt <= 100; attempt++) {
      hand.nowMs += 10_000;
      for (const partition of [0, 1, 2, 5]) retry(hand, partition, attempt);
    }
    const [first, second, ...more] = hand.observed.noted();
    expect([first?.kind, more]).toEqual(['halted', []]);
    expect(second).toMatchObject({ kind: 'retry', times: 400, where: 'flights/0-2, flights/5', partition: 5 });
    expect([second?.atMs, second?.lastMs]).toEqual([hand.nowMs - 990_000, hand.nowMs]);
  });

  test('what comes again after two minutes of silence is another notice', () => {
    const hand = new ByHand();
    retry(hand, 0, 1);
    hand.nowMs += 120_000;
    retry(hand, 0, 2);
    hand.nowMs += 120_001;
    retry(hand, 0, 1);
    expect(times(hand)).toEqual([2, 1]);
  });

  test('what is told again is told to listeners under the same id', () => {
    const hand = new ByHand();
    const told: number[][] = [];
    hand.meter.listen({ noted: (notice) => told.push([notice.id, notice.times]) });
    retry(hand, 0, 1);
    retry(hand, 1, 1);
    expect(told).toEqual([
      [1, 1],
      [1, 2],
    ]);
  });

  test('the last hundred are kept', () => {
    const hand = new ByHand();
    for (let i = 0; i < 150; i++) hand.halt(i, new IngestError('KCR_STORE', `of state ${i}`));
    expect(hand.observed.noted().map(({ partition }) => partition)).toEqual(
      Array.from({ length: 100 }, (_, i) => i + 50),
    );
  });
});

describe('what limits', () => {
  const measured = (hand: ByHand, insert: (batch: InsertBatch) => Observable<InsertResult>) => {
    const source: RecordSource = { events: NEVER, commit: () => of(undefined) };
    const store = { name: 's', claim: () => NEVER, write: () => NEVER } as unknown as StateStore;
    return observedPorts({ source, sink: { insert } satisfies BatchSink, store }, hand.meter);
  };

  test('an insert that hangs is ClickHouse, and its range is in doubt since it was recorded once an answer is lost', () => {
    const hand = new ByHand().assign(0).logEnds(10);
    const { sink } = measured(hand, () => NEVER);
    const intent = { first: 0, last: 4, atMs: hand.nowMs - 60_000 } as NonNullable<InsertBatch['intent']>;
    sink.insert(batchOf(0, 4, { intent })).subscribe();
    expect(hand.observed.status()).toMatchObject({ limit: 'clickhouse', inDoubtSinceMs: undefined });
    const error = new IngestError('KCR_INSERT_IN_DOUBT', 'no answer');
    const assignment = assignmentOf(0);
    hand.meter.event({ kind: 'retry', call: 'insert', assignment, attempt: 1, delayMs: 100, error });
    expect(hand.observed.status().inDoubtSinceMs).toBe(hand.nowMs - 60_000);
    hand.deliver(0, 4, 5);
    expect(hand.observed.status().inDoubtSinceMs).toBeUndefined();
  });

  test('a state that is being written is the state store, nothing to read is Kafka, no room is ours', () => {
    const hand = new ByHand().assign(0).logEnds(10);
    expect(hand.observed.status().limit).toBe('kafka');
    const { store } = measured(hand, () => NEVER);
    const key = { cluster: 'c', group: 'g', topic: 'flights', partition: 0 };
    const writing = (store.write({ key } as Claim, {} as never) as Observable<Claim>).subscribe();
    expect(hand.observed.status().limit).toBe('state');
    writing.unsubscribe();
    hand.source = { partitions: [{ ...hand.source.partitions[0]!, isFull: true }] };
    expect(hand.observed.status().limit).toBe('ours');
  });

  test('nothing limits what is up to date, and who paused it is told so', () => {
    const hand = new ByHand().assign(0).logEnds(10).deliver(0, 9, 10);
    expect(hand.observed.status().limit).toBe('none');
    hand.pauses.pause();
    expect(hand.observed.status().limit).toBe('paused');
  });

  test('how long inserts take is known by what became of them', () => {
    const hand = new ByHand().assign(0);
    const ends: (string | undefined)[] = [];
    hand.observed.listen({ call: ({ error }) => ends.push(error?.code) });
    const failing = measured(hand, () => throwError(() => new IngestError('KCR_INSERT_RETRIABLE', 'no')));
    failing.sink.insert(batchOf(0, 1)).subscribe({ error: () => undefined });
    const good = measured(hand, () => of({ rows: 1, bytes: 2 }));
    good.sink.insert(batchOf(0, 2)).subscribe();
    expect(ends).toEqual(['KCR_INSERT_RETRIABLE', undefined]);
    expect(hand.observed.status().insertSeconds).toBeGreaterThanOrEqual(0);
  });

  test('a commit is seen when it has succeeded, not when it is made', () => {
    const hand = new ByHand().assign(0);
    const { source } = measured(hand, () => NEVER);
    (source.commit(assignmentOf(0), 5) as Observable<void>).subscribe();
    expect(hand.only().committed).toBe(5);
  });
});

describe('pace', () => {
  test('a rate is of the last ten whole seconds, and of fewer at the beginning', () => {
    const rate = new Rate(500);
    rate.add(10, 600);
    expect(rate.perSecond(700)).toBe(10);
    expect(rate.perSecond(2500)).toBe(5);
    rate.add(30, 2600);
    expect(rate.perSecond(4000)).toBe(10);
    expect(rate.perSecond(10_999)).toBe(4);
    expect(rate.perSecond(12_999)).toBe(3);
    expect(rate.perSecond(60_000)).toBe(0);
  });

  test('a percentile forgets what is older than ten seconds', () => {
    const recent = new RecentDurations();
    for (let at = 1; at <= 100; at++) recent.add(at, 1000);
    expect(recent.percentile(0.95, 2000)).toBe(95);
    expect(recent.percentile(0.5, 2000)).toBe(50);
    expect(recent.percentile(0.95, 11_001)).toBeUndefined();
    for (let at = 0; at < 5000; at++) recent.add(at < 4000 ? 9 : 1, 20_000);
    expect(recent.percentile(1, 20_000), 'of the last thousand only').toBe(1);
  });

  test('what is left is told in time only while it shrinks', () => {
    const hand = new ByHand().assign(0).logEnds(1000);
    expect(hand.observed.status().etaSeconds).toBeUndefined();
    hand.deliver(0, 99, 100);
    expect(hand.observed.status()).toMatchObject({ lagRecords: 900, rowsPerSecond: 100, etaSeconds: 9 });
  });
});
