// Node streams keep their own time, so these tests run in real time.
import { PassThrough, Transform, type TransformCallback } from 'node:stream';
import { NEVER, concatWith, firstValueFrom, lastValueFrom, of, toArray } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { transformThrough } from '../../../operators/between/transform-through.js';
import { bytesOf } from '../../../src/model/batch.js';
import type { Batch, KafkaRecord } from '../../../src/model/record.js';
import { chunk, insertBatch, intent, record } from '../../support/fakes.js';

/** A Node stream of records: `each` gives what becomes of one. */
function streamOf(each: (record: KafkaRecord) => readonly unknown[]): Transform {
  return new Transform({
    objectMode: true,
    transform(incoming: KafkaRecord, _encoding: string, done: TransformCallback) {
      try {
        for (const made of each(incoming)) this.push(made);
        done();
      } catch (error) {
        done(error as Error);
      }
    },
  });
}

const upper = (from: KafkaRecord): KafkaRecord => ({ ...from, value: Buffer.from(String(from.value).toUpperCase()) });
const through = (batch: Batch, each: (record: KafkaRecord) => readonly unknown[]): Promise<Batch> =>
  firstValueFrom(of(batch).pipe(transformThrough(() => streamOf(each))));

describe('transformThrough', () => {
  test('gives the same range with the rows that the stream made', async () => {
    const made = await through(chunk(0, 3), (from) => (from.offset === 2 ? [] : [upper(from)]));
    expect(made).toMatchObject({ afterOffset: 0, lastOffset: 3 });
    expect(made.records.map(({ offset, value }) => `${offset}:${String(value)}`)).toEqual(['1:{"N":1}', '3:{"N":3}']);
    expect(made.bytes).toBe(bytesOf(made.records));
  });

  test('a stream that cannot be made is a failed transform, naming the range', async () => {
    const failing = of(chunk(0, 3)).pipe(
      transformThrough(() => {
        throw new Error('no such codec');
      }),
    );
    await expect(firstValueFrom(failing)).rejects.toMatchObject({
      code: 'KCR_TRANSFORM',
      fields: { first: 1, last: 3 },
    });
  });

  test('a record may become several rows, each with its offset; rows that come out of order are put in order', async () => {
    const late: KafkaRecord[] = [];
    const made = await through(chunk(0, 3), (from) => {
      if (from.offset === 1) late.push(from);
      return from.offset === 3 ? [from, from, ...late] : from.offset === 2 ? [from] : [];
    });
    expect(made.records.map(({ offset }) => offset)).toEqual([1, 2, 3, 3]);
  });

  test('intent and token are not touched: the batch is still the one that was recorded', async () => {
    const recorded = insertBatch(0, 1, { intent: intent(1, 1), token: 't', replay: true });
    expect(await through(recorded, () => [])).toEqual({ ...recorded, records: [], bytes: 0 });
  });

  test('each batch has a stream of its own: nothing is carried over, so a replay gives the same rows', async () => {
    let streams = 0;
    const counting = transformThrough(() => {
      streams += 1;
      return new PassThrough({ objectMode: true });
    });
    const batches = await lastValueFrom(of(chunk(0, 3), chunk(3, 6)).pipe(counting, toArray()));
    expect(batches.map(({ records }) => records.length)).toEqual([3, 3]);
    expect(streams).toBe(2);
  });

  test('a batch larger than the stream’s buffers passes whole', async () => {
    const made = await through(chunk(-1, 4999), (from) => [from]);
    expect(made.records).toHaveLength(5000);
  });

  test('an unsubscription (the partition is lost) destroys the stream', async () => {
    const hanging = new Transform({ objectMode: true, transform: () => undefined });
    const destroyed = new Promise((resolve) => hanging.once('close', () => resolve(true)));
    hanging.on('error', () => undefined);
    const passing = of(chunk(0, 3))
      .pipe(
        concatWith(NEVER),
        transformThrough(() => hanging),
      )
      .subscribe();
    setTimeout(() => passing.unsubscribe(), 5);
    expect(await destroyed).toBe(true);
  });
});

describe('a stream that goes wrong stops the partition', () => {
  const wrong: readonly (readonly [string, (from: KafkaRecord) => readonly unknown[]])[] = [
    [
      'by an error',
      () => {
        throw new Error('broken');
      },
    ],
    ['by a record whose offset is not in the batch', () => [record(99)]],
    ['by a record without an offset', () => [{ value: Buffer.from('{}') }]],
    ['by what is not a record', () => ['text']],
  ];
  for (const [name, each] of wrong) {
    test(name, async () => {
      await expect(through(chunk(0, 3), each)).rejects.toMatchObject({
        code: 'KCR_TRANSFORM',
        fields: { topic: 'clicks', partition: 0, first: 1, last: 3 },
      });
    });
  }

  test('by a factory that throws', async () => {
    const failing = transformThrough(() => {
      throw new Error('no stream');
    });
    await expect(firstValueFrom(of(chunk(0, 3)).pipe(failing))).rejects.toThrow('no stream');
  });
});
