/**
 * Some records of the topics, and what each looks like. Nobody joins the group, nothing is committed.
 * Imports: config, kafka, kafka/fetch, model, sample.
 */
import type { CheckedConfig } from '../config/config.js';
import { LogScan } from '../kafka/fetch/scan.js';
import { logPositions, type LogPosition } from '../kafka/log-positions.js';
import type { KafkaRecord } from '../model/record.js';
import { looksLike } from '../sample/looks-like.js';
import { selectPartitions, selectTopics, type Selection } from './status.js';

/** Where to look: at an offset, from a time on (milliseconds since the epoch), or at either end of the log. */
export type PeekFrom =
  | { readonly kind: 'beginning' }
  | { readonly kind: 'end' }
  | { readonly kind: 'offset'; readonly offset: number }
  | { readonly kind: 'time'; readonly timeMs: number };

export interface PeekOptions extends Selection {
  readonly from: PeekFrom;
  /** Records in all, spread over the partitions. */
  readonly count: number;
}

export interface Peeked {
  readonly topic: string;
  readonly partition: number;
  /** Undefined: the record cannot be read, and `looksLike` says why. */
  readonly record: KafkaRecord | undefined;
  readonly offset: number;
  readonly looksLike: string;
}

const FETCH_BYTES = 1024 * 1024;
/** So many offsets before the end are looked through at most: of a compacted log few may have a record. */
const MOST_OFFSETS = 100_000;

/**
 * By topic and partition, each ascending. A partition that has fewer records than its share gives way to the others.
 *
 * @throws what keeps the logs from being read; `KCR_CONFIG` for a topic or a partition that is not there.
 */
export async function* peek(config: CheckedConfig, options: PeekOptions): AsyncGenerator<Peeked, void, undefined> {
  const { from, count } = options;
  const topics = selectTopics(config, options);
  const timeMs = from.kind === 'time' ? from.timeMs : undefined;
  const places = selectPartitions(await logPositions(config.kafka, topics, timeMs), options)
    .map((place) => ({ place, first: firstOf(place, from) }))
    .filter(({ place, first }) => first < place.stableEnd);
  const log = new LogScan({ ...config.kafka, topics, maxBytes: FETCH_BYTES, maxBytesPerPartition: FETCH_BYTES });
  try {
    let left = count;
    for (const [done, { place, first }] of places.entries()) {
      const share = Math.ceil(left / (places.length - done));
      // Markers of transactions and what compaction took are no records: the end is looked for from further back.
      const found = from.kind === 'end' ? lastOf(log, place, share) : firstFrom(log, place, first, share);
      for await (const peeked of found) {
        yield peeked;
        left -= 1;
      }
      if (left <= 0) return;
    }
  } finally {
    await log.close();
  }
}

function firstOf({ logStart, stableEnd, atTime }: LogPosition, from: PeekFrom): number {
  if (from.kind === 'offset') return Math.max(logStart, from.offset);
  return from.kind === 'time' ? Math.max(logStart, atTime ?? stableEnd) : logStart;
}

async function* firstFrom(
  log: LogScan,
  { topic, partition, stableEnd }: LogPosition,
  first: number,
  most: number,
): AsyncGenerator<Peeked, void, undefined> {
  let left = most;
  for await (const chunk of log.read({ topic, partition, first, last: stableEnd - 1 })) {
    if (chunk.unreadable !== undefined) {
      yield { topic, partition, record: undefined, offset: chunk.first, looksLike: chunk.unreadable };
      left -= 1;
    }
    for (const record of chunk.records) {
      if (left <= 0) return;
      yield { topic, partition, record, offset: record.offset, looksLike: looksLike(record.value) };
      left -= 1;
    }
    if (left <= 0) return;
  }
}

/** Looks at twice as many offsets each time, until there are enough records, the log begins or it were too many. */
async function* lastOf(log: LogScan, place: LogPosition, most: number): AsyncGenerator<Peeked, void, undefined> {
  const { logStart, stableEnd } = place;
  for (let span = most; ; span *= 2) {
    const first = Math.max(logStart, stableEnd - span);
    const found: Peeked[] = [];
    for await (const peeked of firstFrom(log, place, first, Infinity)) {
      found.push(peeked);
      if (found.length > most) found.shift();
    }
    if (found.length < most && first > logStart && span < MOST_OFFSETS) continue;
    yield* found;
    return;
  }
}
