/**
 * Some records of a topic, read without the group: where the group goes on and at the log's end.
 * Bounded in records, bytes and time; what could be read until then is what there is.
 * Imports: abort, kafka, kafka/fetch, kafka/group, model.
 */
import { orAborted, within } from '../abort.js';
import type { GroupPosition } from '../kafka/group/group-offsets.js';
import type { KafkaSourceOptions } from '../kafka/options.js';
import { LogScan } from '../kafka/fetch/scan.js';
import type { KafkaRecord } from '../model/record.js';

export interface SampledRecord {
  readonly partition: number;
  readonly record: KafkaRecord;
}

/** Of one topic; `timeMs` is for all of them together. */
export const SAMPLE = {
  records: 100,
  partitions: 20,
  bytes: 4 * 1024 * 1024,
  recordBytes: 1024 * 1024,
  timeMs: 8_000,
} as const;
/**
 * The longest stretch of offsets that is read of a partition's beginning or end: it may have holes, and large records.
 */
const FETCH_BYTES = 1024 * 1024;

/** Where a partition is read: `next` is where its owner goes on. */
export type SamplePlace = Pick<GroupPosition, 'topic' | 'partition' | 'logStart' | 'stableEnd'> & {
  readonly next: number;
};

/** By topic. @throws what keeps the log from being read at all, and the signal's reason at once. */
export async function takeSamples(
  options: KafkaSourceOptions,
  places: readonly SamplePlace[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, readonly SampledRecord[]>> {
  const samples = new Map<string, SampledRecord[]>(options.topics.map((topic) => [topic, []]));
  const log = new LogScan({ ...options, maxBytes: FETCH_BYTES, maxBytesPerPartition: FETCH_BYTES });
  try {
    const endMs = performance.now() + SAMPLE.timeMs;
    const reading = (async () => {
      for (const [topic, sample] of samples)
        await takeOfTopic(
          log,
          places.filter((place) => place.topic === topic),
          sample,
          endMs,
        );
    })();
    let failure: { readonly thrown: unknown } | undefined;
    await orAborted(
      within(
        reading.catch((thrown: unknown) => (failure = { thrown })),
        SAMPLE.timeMs,
      ),
      signal,
    );
    const isEmpty = [...samples.values()].every(({ length }) => length === 0);
    if (failure !== undefined && isEmpty) throw failure.thrown;
    // What is still being read comes too late: the lists that are given away do not grow.
    return new Map([...samples].map(([topic, sample]) => [topic, [...sample]]));
  } finally {
    const closed = log.close();
    if (!signal.aborted) await closed;
  }
}

async function takeOfTopic(
  log: LogScan,
  all: readonly SamplePlace[],
  sample: SampledRecord[],
  endMs: number,
): Promise<void> {
  const places = spread(
    all.filter(({ logStart, stableEnd }) => stableEnd > logStart),
    SAMPLE.partitions,
  );
  const each = Math.max(1, Math.floor(SAMPLE.records / 2 / Math.max(1, places.length)));
  let bytes = 0;
  for (const place of places) {
    for (const range of rangesOf(place, each)) {
      let left = each;
      let isFull = false;
      for await (const { records } of log.read({ topic: place.topic, partition: place.partition, ...range })) {
        for (const record of records) {
          const size = record.value?.length ?? 0;
          if (left === 0) break;
          // One that is too large is passed over, and counts: there may be nothing but such records.
          left -= 1;
          if (size > SAMPLE.recordBytes) continue;
          isFull = sample.length >= SAMPLE.records || bytes + size > SAMPLE.bytes;
          if (isFull) break;
          sample.push({ partition: place.partition, record });
          bytes += size;
        }
        if (left === 0 || isFull || performance.now() > endMs) break;
      }
      if (isFull || performance.now() > endMs) return;
    }
  }
}

/**
 * What comes next, then the last there is; neither overlaps the other. Behind the end of the log there is only the
 * latter.
 */
function rangesOf(
  { logStart, stableEnd, next }: SamplePlace,
  each: number,
): readonly { readonly first: number; readonly last: number }[] {
  const tail = { first: Math.max(logStart, stableEnd - each), last: stableEnd - 1 };
  const from = Math.max(logStart, next);
  if (from >= tail.first) return [tail];
  return [{ first: from, last: tail.first - 1 }, tail];
}

/** Some of the list, evenly. */
function spread<T>(list: readonly T[], most: number): readonly T[] {
  if (list.length <= most) return list;
  return Array.from({ length: most }, (_, at) => list[Math.floor((at * list.length) / most)] as T);
}
