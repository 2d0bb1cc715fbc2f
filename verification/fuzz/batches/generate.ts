// A piece of a log as a broker may send it: batches of every codec, transactions, markers, holes of compaction.
import type { Random } from '../random.js';
import { compress } from './compress.js';
import { attributeBits, encodeBatch, encodeRecord, type BatchFields, type RecordFields } from './encode.js';
import type { OracleAborted } from './oracle.js';

/** A batch that is not bytes yet, so that any part of it can be changed. */
export interface BatchPlan {
  readonly fields: BatchFields;
  readonly records: readonly RecordFields[];
}

export interface LogPlan {
  readonly batches: readonly BatchPlan[];
  readonly aborted: readonly OracleAborted[];
  readonly fromOffset: number;
}

const firstOffsets = [0n, 0n, 1n, 7n, 1_000_000n, 2n ** 31n - 2n, 2n ** 32n - 1n, 2n ** 40n, 2n ** 53n - 60n] as const;
const producers = [-1n, 7n, 8n, 2n ** 62n] as const;
const texts = ['', 'k', '{}', '{"n":1}', '{"n":1,"s":"text"}', '\0', 'é', 'x'.repeat(130), 'long'.repeat(90)].map(
  (text) => Buffer.from(text),
);
const headerNames = ['', 'h', 'trace', 'é', 'h'].map((text) => Buffer.from(text));
const times = [1_790_000_000_000n, 1_790_000_000_000n, 0n, -1n, 1_790_000_000_000_000n, 2n ** 53n - 100n] as const;

export function logPlan(random: Random): LogPlan {
  let next = random.pick(firstOffsets);
  const first = next;
  const batches: BatchPlan[] = [];
  for (let left = 1 + random.small(4); left > 0; left--) {
    const batch = random.chance(0.12) ? markerPlan(random, next) : batchPlan(random, next);
    batches.push(batch);
    next += BigInt(batch.fields.lastDelta + 1 + (random.chance(0.2) ? random.small(9) : 0));
    if (next > 2n ** 53n - 40n) break;
  }
  const fromOffset = Number(first) + (random.chance(0.5) ? 0 : random.small(Number(next - first)));
  return {
    batches,
    aborted: random.chance(0.5) ? [] : abortedOf(random, batches),
    fromOffset: Math.min(fromOffset, Number.MAX_SAFE_INTEGER),
  };
}

/** The bytes. `random` decides how well they are compressed, nothing else. */
export function encodePlan({ fields, records }: BatchPlan, random: Random): Buffer {
  const plain = Buffer.concat(records.map(encodeRecord));
  return encodeBatch(fields, records.length === 0 ? plain : compress(fields.attributes & 7, plain, random));
}

function batchPlan(random: Random, base: bigint): BatchPlan {
  let delta = BigInt(random.chance(0.15) ? random.small(5) : 0);
  const records: RecordFields[] = [];
  for (let left = random.chance(0.04) ? 0 : 1 + random.small(random.chance(0.1) ? 40 : 5); left > 0; left--) {
    records.push(recordPlan(random, delta));
    delta += BigInt(1 + (random.chance(0.15) ? random.small(6) : 0));
  }
  const lastDelta = Number(delta) - (records.length > 0 ? 1 : 0) + (random.chance(0.1) ? random.small(5) : 0);
  const producerId = random.pick(producers);
  const isTransactional = producerId !== -1n && random.chance(0.6);
  const attributes =
    (random.chance(0.4) ? 0 : random.between(1, 4)) |
    (random.chance(0.1) ? attributeBits.appendTime : 0) |
    (random.chance(0.03) ? attributeBits.deleteHorizon : 0) |
    (isTransactional ? attributeBits.transactional : 0);
  return { fields: fieldsOf(random, { base, attributes, lastDelta, producerId, count: records.length }), records };
}

/** Kafka's end of a transaction: one record, whose key is a version and a type (0 aborts, 1 commits). */
function markerPlan(random: Random, base: bigint): BatchPlan {
  const key = Buffer.from([0, 0, 0, random.int(2)]);
  const record: RecordFields = { delta: 0n, timestampDelta: 0n, key, value: Buffer.alloc(6), headers: [] };
  const attributes = attributeBits.control | attributeBits.transactional;
  // What compaction leaves of a marker is a batch without records.
  const records = random.chance(0.1) ? [] : [record];
  return {
    fields: fieldsOf(random, {
      base,
      attributes,
      lastDelta: 0,
      producerId: random.pick(producers.slice(1)),
      count: records.length,
    }),
    records,
  };
}

function fieldsOf(
  random: Random,
  own: Pick<BatchFields, 'base' | 'attributes' | 'lastDelta' | 'producerId' | 'count'>,
): BatchFields {
  const firstTimestamp = random.pick(times);
  return {
    ...own,
    leaderEpoch: random.int(5),
    magic: 2,
    firstTimestamp,
    maxTimestamp: firstTimestamp + BigInt(random.int(1000)),
    producerEpoch: random.int(3),
    baseSequence: random.int(100),
  };
}

function recordPlan(random: Random, delta: bigint): RecordFields {
  const text = (): Buffer | null => {
    if (random.chance(0.15)) return null;
    return random.chance(0.8) ? random.pick(texts) : random.bytes(random.small(300));
  };
  const headers = random.chance(0.7)
    ? []
    : Array.from({ length: 1 + random.small(3) }, () => [random.pick(headerNames), text()] as const);
  const timestampDelta = random.chance(0.8)
    ? BigInt(random.int(2000))
    : random.pick([-1n, -(2n ** 31n), 2n ** 33n, 2n ** 45n]);
  return { delta, timestampDelta, key: text(), value: text(), headers };
}

/** As a broker lists them: by their last offset, some of producers that have nothing here. */
function abortedOf(random: Random, batches: readonly BatchPlan[]): OracleAborted[] {
  const isTransactional = ({ attributes }: BatchFields): boolean => (attributes & attributeBits.transactional) !== 0;
  return batches
    .filter(({ fields }) => isTransactional(fields) && random.chance(0.6))
    .map(({ fields }) => ({
      producerId: fields.producerId,
      firstOffset: Math.max(0, Number(fields.base) - (random.chance(0.2) ? random.small(10) : 0)),
    }));
}
