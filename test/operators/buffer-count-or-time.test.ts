import fc from 'fast-check';
import { NEVER, Subject, VirtualTimeScheduler, concatWith, from, lastValueFrom, of, take, toArray } from 'rxjs';
import { describe, expect, test, vi } from 'vitest';
import { batchLimits, bufferCountOrTime, type BufferConfig } from '../../operators/buffer-count-or-time.js';
import { bytesOf } from '../../src/model/batch.js';
import type { Batch, Chunk } from '../../src/model/record.js';
import { chunk, range, record } from '../support/fakes.js';
import { asText, marbles, type Marbles } from '../support/marbles.js';

vi.setConfig({ testTimeout: 60_000 });

/** a, b, c…: chunks of one record each, offsets 0, 1, 2… */
const singles = Object.fromEntries([...'abcdefgh'].map((letter, offset) => [letter, chunk(offset - 1, offset)]));

/** Bytes of a record of these tests. */
const recordBytes = bytesOf([record(0)]);

const buffered = (m: Marbles, source: string, config: BufferConfig, values: Record<string, Chunk> = singles) =>
  m.hot<Chunk>(source, values, 'broken').pipe(bufferCountOrTime(config), asText(range));

describe('bufferCountOrTime', () => {
  test(
    'the diagram of its documentation',
    marbles((m) => {
      const batches = buffered(m, '-a-b-c-----d-----|', { count: 2, maxWaitMs: 3 });
      m.expect(batches).toBeObservable('   ---B----C-----D--|', { B: '0-1', C: '2', D: '3' });
    }),
  );

  test(
    'never',
    marbles((m) => {
      const source = m.hot<Chunk>('-');
      m.expect(source.pipe(bufferCountOrTime())).toBeObservable('-');
      m.expect(source).toHaveSubscriptions('^');
    }),
  );

  test(
    'empty: completes, and emits no batch without offsets',
    marbles((m) => {
      const source = m.hot<Chunk>('--|');
      m.expect(source.pipe(bufferCountOrTime())).toBeObservable('--|');
      m.expect(source).toHaveSubscriptions('^-!');
    }),
  );

  test(
    'one chunk is flushed by time',
    marbles((m) => m.expect(buffered(m, '-a-------', { maxWaitMs: 4 })).toBeObservable('-----A---', { A: '0' })),
  );

  test(
    'what is left is flushed when the source completes: a drain leaves nothing behind',
    marbles((m) => m.expect(buffered(m, '-a-b-|', {})).toBeObservable('-----(A|)', { A: '0-1' })),
  );

  test(
    'what is left is not flushed when the source fails',
    marbles((m) => m.expect(buffered(m, '-a-b-#', { maxWaitMs: 20 })).toBeObservable('-----#', {}, 'broken')),
  );

  test(
    'an early unsubscription leaves the source and flushes nothing',
    marbles((m) => {
      const source = m.hot<Chunk>('-a-b----', singles);
      m.expect(source.pipe(bufferCountOrTime({ maxWaitMs: 6 })), '^---!').toBeObservable('-');
      m.expect(source).toHaveSubscriptions('^---!');
    }),
  );

  test('an unsubscription stops the clock, so that no timer keeps the process alive', () => {
    const clock = new VirtualTimeScheduler();
    const buffering = of(chunk(-1, 4))
      .pipe(concatWith(NEVER), bufferCountOrTime({ scheduler: clock }))
      .subscribe();
    expect(clock.actions).toHaveLength(1);
    buffering.unsubscribe();
    expect(clock.actions.filter(({ closed }) => !closed)).toEqual([]);
  });

  test('an unsubscription while a chunk is being cut starts no clock for its rest', () => {
    const clock = new VirtualTimeScheduler();
    const source = new Subject<Chunk>();
    source.pipe(bufferCountOrTime({ count: 4, scheduler: clock }), take(1)).subscribe();
    source.next(chunk(-1, 9));
    expect(clock.actions.filter(({ closed }) => !closed)).toEqual([]);
  });

  test(
    'taking enough leaves the source',
    marbles((m) => {
      const source = m.hot<Chunk>('-a-b-c-d-', singles);
      m.expect(source.pipe(bufferCountOrTime({ count: 2 }), take(1), asText(range))).toBeObservable('---(A|)', {
        A: '0-1',
      });
      m.expect(source).toHaveSubscriptions('^--!');
    }),
  );

  test(
    'each subscription has a buffer of its own',
    marbles((m) => {
      const source = m.cold<Chunk>('-a-b-|', singles);
      const batches = source.pipe(bufferCountOrTime(), asText(range));
      m.expect(batches).toBeObservable('-----(A|)', { A: '0-1' });
      m.expect(batches, '--^').toBeObservable('-------(A|)', { A: '0-1' });
    }),
  );
});

describe('a batch is cut', () => {
  test(
    'by count, in the middle of a chunk',
    marbles((m) => {
      const batches = buffered(m, '-a-------|', { count: 4, maxWaitMs: 5 }, { a: chunk(-1, 9) });
      m.expect(batches).toBeObservable('-(AB)-C--|', { A: '0-3', B: '4-7', C: '8-9' });
    }),
  );

  test(
    'by bytes: the record that would be too many begins the next batch',
    marbles((m) => {
      const batches = buffered(m, '-a-b-c-|', { bytes: 2 * recordBytes + 1 });
      m.expect(batches).toBeObservable('-----A-(B|)', { A: '0-1', B: '2' });
    }),
  );

  test(
    'by bytes, at the very record that reaches them',
    marbles((m) => {
      const batches = buffered(m, '-a-b-c-|', { bytes: 2 * recordBytes });
      m.expect(batches).toBeObservable('---A---(B|)', { A: '0-1', B: '2' });
    }),
  );

  test(
    'by bytes, but a single record may be larger: it is a batch of its own',
    marbles((m) => {
      const large: Batch = { ...chunk(0, 1), records: [record(1, 'x'.repeat(100))], bytes: 100 };
      const batches = buffered(m, '-a-b-c-|', { bytes: 50 }, { a: chunk(-1, 0), b: large as Chunk, c: chunk(1, 2) });
      m.expect(batches).toBeObservable('---(AB)(C|)', { A: '0', B: '1', C: '2' });
    }),
  );

  test(
    'by time, counted from its first chunk: a steady trickle does not put it off',
    marbles((m) => {
      const batches = buffered(m, '-a-b-c-d-e-|', { maxWaitMs: 5 });
      m.expect(batches).toBeObservable('------A----(B|)', { A: '0-2', B: '3-4' });
    }),
  );

  test(
    'by count and by time in the same frame: exactly one batch',
    marbles((m) => {
      const batches = buffered(m, '-a----b-------|', { count: 2, maxWaitMs: 5 });
      m.expect(batches).toBeObservable('------A-------|', { A: '0-1' });
    }),
  );

  test(
    'by time and by the end in the same frame: exactly one batch',
    marbles((m) => {
      const batches = buffered(m, '-a----|', { maxWaitMs: 5 });
      m.expect(batches).toBeObservable('------(A|)', { A: '0' });
    }),
  );

  test(
    'the clock starts again with the batch that follows a full one',
    marbles((m) => {
      const batches = buffered(m, '-a---b-c-------|', { count: 2, maxWaitMs: 5 });
      m.expect(batches).toBeObservable('-----A------C--|', { A: '0-1', C: '2' });
    }),
  );

  test(
    'where the chunk ends when the count is reached there: holes at its end go along',
    marbles((m) => {
      const batches = buffered(m, '-a-|', { count: 3 }, { a: chunk(-1, 9, { holes: [3, 4, 5, 6, 7, 8, 9] }) });
      m.expect(batches).toBeObservable('-A-|', { A: '0-9' });
    }),
  );

  test(
    'at a gap (a seek): no batch spans it, so a range never covers what was not read',
    marbles((m) => {
      const batches = buffered(m, '-a-b-|', {}, { a: chunk(-1, 4), b: chunk(9, 14) });
      m.expect(batches).toBeObservable('---A-(B|)', { A: '0-4', B: '10-14' });
    }),
  );

  test(
    'when the source goes back (a seek): both parts pass, in the order they came',
    marbles((m) => {
      const batches = buffered(m, '-a-b-|', {}, { a: chunk(9, 14), b: chunk(4, 12) });
      m.expect(batches).toBeObservable('---A-(B|)', { A: '10-14', B: '5-12' });
    }),
  );

  test(
    'by time though it has no record: its offsets can be committed',
    marbles((m) => {
      const batches = buffered(m, '-a-----|', { maxWaitMs: 3 }, { a: chunk(-1, 4, { holes: [0, 1, 2, 3, 4] }) });
      m.expect(batches).toBeObservable('----A--|', { A: '0-4' });
    }),
  );

  test(
    'at once behind a chunk that is the last for now: more would come only when this is done',
    marbles((m) => {
      const batches = buffered(
        m,
        '-a-b------|',
        { count: 100, maxWaitMs: 1000 },
        { a: chunk(-1, 4), b: { ...chunk(4, 9), isLastForNow: true } },
      );
      m.expect(batches).toBeObservable('---A------|', { A: '0-9' });
    }),
  );

  test(
    'never between the rows that a transform made of one record',
    marbles((m) => {
      const rows: Batch = { ...chunk(-1, 2), records: [record(0), record(1), record(1), record(1), record(2)] };
      const batches = buffered(m, '-a-|', { count: 2 }, { a: rows as Chunk });
      m.expect(batches).toBeObservable('-A-(B|)', { A: '0-1', B: '2' });
    }),
  );
});

describe('whatever the chunks and limits', () => {
  const limits = fc.record({
    count: fc.integer({ min: 1, max: 8 }),
    bytes: fc.integer({ min: 1, max: 12 * recordBytes }),
  });
  const shapes = fc.array(fc.record({ size: fc.integer({ min: 1, max: 12 }), holes: fc.array(fc.nat({ max: 100 })) }), {
    minLength: 1,
    maxLength: 8,
  });

  test('batches are contiguous, keep every record, and respect count and bytes', async () => {
    await fc.assert(
      fc.asyncProperty(limits, shapes, async ({ count, bytes }, list) => {
        let after = -1;
        const chunks = list.map(({ size, holes }) => chunk(after, (after += size), { holes }));
        const batches = await lastValueFrom(from(chunks).pipe(bufferCountOrTime({ count, bytes }), toArray()));
        expect(batches.map(({ afterOffset }) => afterOffset)).toEqual([
          -1,
          ...batches.slice(0, -1).map(({ lastOffset }) => lastOffset),
        ]);
        expect(batches.at(-1)?.lastOffset).toBe(after);
        expect(batches.flatMap(({ records }) => [...records])).toEqual(chunks.flatMap(({ records }) => [...records]));
        for (const batch of batches) {
          expect(batch.bytes).toBe(bytesOf(batch.records));
          expect(batch.records.length).toBeLessThanOrEqual(count);
          if (batch.records.length > 1) expect(batch.bytes).toBeLessThanOrEqual(bytes);
        }
      }),
    );
  });

  test('a batch that is taken may bring the next chunk about: it comes behind the rest of this one', () => {
    const source = new Subject<Chunk>();
    const ranges: string[] = [];
    source.pipe(bufferCountOrTime({ count: 3 })).subscribe((batch) => {
      ranges.push(range(batch));
      if (batch.lastOffset === 2) source.next(chunk(4, 5));
    });
    source.next(chunk(-1, 4));
    source.complete();
    expect(ranges).toEqual(['0-2', '3-5']);
  });
});

describe('its limits', () => {
  const refused: readonly (readonly [BufferConfig, string])[] = [
    [{ count: 0 }, 'Expected `batch.count` to be an integer from 1 to 1000000, got 0'],
    [{ count: batchLimits.maxCount + 1 }, 'got 1000001'],
    [{ bytes: 1.5 }, 'Expected `batch.bytes`'],
    [{ bytes: batchLimits.maxBytes + 1 }, 'Expected `batch.bytes`'],
    [{ maxWaitMs: -1 }, 'Expected `batch.maxWaitMs`'],
    [{ maxWaitMs: Number.NaN }, 'got NaN'],
  ];
  for (const [config, message] of refused) {
    test(`${JSON.stringify(config)} is refused when the stage is built, not hours later`, () => {
      expect(() => bufferCountOrTime(config)).toThrow(message);
    });
  }

  test('are by default 100000 records, 32 MiB, one second', () => {
    const clock = new VirtualTimeScheduler();
    const ranges: string[] = [];
    const source = new Subject<Batch>();
    source
      .pipe(bufferCountOrTime({ scheduler: clock }))
      .subscribe((batch) => ranges.push(`${clock.now()} ${range(batch)}`));
    const empty = (after: number, last: number, bytes: number, count: number): Batch => ({
      ...chunk(after, after + 1),
      lastOffset: last,
      bytes,
      records: Array.from({ length: count }, () => record(last)),
    });
    source.next(empty(-1, 0, 0, 99_999));
    source.next(empty(0, 1, 0, 1));
    source.next(empty(1, 2, 32 * 1024 * 1024, 1));
    source.next(empty(2, 3, 1, 1));
    clock.flush();
    expect(ranges).toEqual(['0 0-1', '0 2', '1000 3']);
  });
});
