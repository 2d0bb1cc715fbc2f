/**
 * Not one of the six: transformThrough. A Node stream as the transform step. Imports: Node, errors, model, rxjs.
 */
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { concatMap, defer, finalize, from, type OperatorFunction } from 'rxjs';
import { IngestError, asIngestError } from '../../src/errors.js';
import { bytesOf, placeOf } from '../../src/model/batch.js';
import type { Batch, KafkaRecord } from '../../src/model/record.js';

/**
 * Sends the records of each batch through a Node object-mode `Transform`: it is written `KafkaRecord`s and reads as
 * `KafkaRecord`s, as many as it likes, each with the offset of the record it comes of.
 *
 * In plain words: any Node stream library can stand between the stages.
 *
 * ```
 * source:  -(1 2 3)--------|        one batch of three records
 *          transformThrough(() => new Transform({ objectMode: true, … }))
 *          ------(1 2 3')--|        when the stream has ended: the same range, its rows
 * ```
 *
 * The stream is made again for each batch, since a replay must give the same rows: nothing may be carried from one
 * batch to the next. Back-pressure is the stream's own.
 *
 * @throws Into the stream: `KCR_TRANSFORM` when the stream errors or gives a record whose offset is not in the batch.
 */
export function transformThrough<B extends Batch>(makeStream: () => Duplex): OperatorFunction<B, B> {
  return concatMap((batch) => {
    const stopping = new AbortController();
    return defer(() => from(through(makeStream, batch, stopping.signal))).pipe(finalize(() => stopping.abort()));
  });
}

async function through<B extends Batch>(makeStream: () => Duplex, batch: B, signal: AbortSignal): Promise<B> {
  const records: KafkaRecord[] = [];
  try {
    await pipeline(
      batch.records,
      makeStream(),
      async (made: AsyncIterable<KafkaRecord>) => {
        for await (const record of made) records.push(checked(record, batch));
      },
      { signal },
    );
  } catch (thrown) {
    throw asIngestError(thrown, 'KCR_TRANSFORM', 'The transform stream failed', placeOf(batch));
  }
  records.sort((a, b) => a.offset - b.offset);
  return { ...batch, records, bytes: bytesOf(records) };
}

function checked(record: KafkaRecord, batch: Batch): KafkaRecord {
  if (typeof record?.offset === 'number' && record.offset > batch.afterOffset && record.offset <= batch.lastOffset)
    return record;
  throw new IngestError('KCR_TRANSFORM', 'The transform stream gave a record without an offset of its batch', {
    ...placeOf(batch),
    hint: 'push { ...record, value } so that the row keeps the offset of the record it comes of',
  });
}
