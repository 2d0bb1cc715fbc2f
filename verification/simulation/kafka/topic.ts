// Imports: the simulated log. A topic as a broker keeps it: record batches with their boundaries, transactions, control
// records, ids, and who leads which partition.
import { createHash } from 'node:crypto';
import { SimulatedLog, type Value } from '../../../src/testing/index.js';
import { encodeBatch } from '../../../test/kafka/bytes.js';

/** A producer of transactions; the others have none. */
type ProducerId = number;

interface StoredBatch {
  readonly base: number;
  last: number;
  readonly producer: ProducerId | undefined;
  readonly control: 'commit' | 'abort' | undefined;
  /** Of an aborted transaction: its records, of which the log that is checked knows nothing. */
  readonly isAborted: boolean;
  bytes: Buffer | undefined;
}

interface Transaction {
  readonly producer: ProducerId;
  readonly first: number;
  readonly isAborted: boolean;
  /** The offset of its marker; undefined: it is open. */
  marker: number | undefined;
}

interface PartitionState {
  batches: StoredBatch[];
  transactions: Transaction[];
}

export interface FetchedBytes {
  readonly data: Buffer;
  readonly aborted: readonly { readonly producer: number; readonly first: number }[];
}

const MAX_BATCH_RECORDS = 5;

export class KafkaLog extends SimulatedLog {
  #ids = 1;
  #producers = 0;
  #states: PartitionState[];

  constructor(topic: string, partitions: number) {
    super(topic, partitions);
    this.#states = Array.from({ length: partitions }, empty);
  }

  /** As on the wire: sixteen bytes. */
  override get topicId(): string {
    return createHash('md5').update(`${this.topic}/${this.#ids}`).digest('base64url');
  }

  override recreate(): void {
    super.recreate();
    this.#ids += 1;
    this.#states = this.#states.map(empty);
  }

  override grow(partitions: number): void {
    super.grow(partitions);
    while (this.#states.length < partitions) this.#states.push(empty());
  }

  override produce(partition: number, ...values: readonly Value[]): void {
    for (let i = 0; i < values.length; i += MAX_BATCH_RECORDS)
      this.#append(partition, values.slice(i, i + MAX_BATCH_RECORDS), undefined);
  }

  /** A transaction begins. Its records are seen by nobody before it ends. Aborted, they are a hole. */
  begin(partition: number, values: readonly Value[], isAborted: boolean): () => void {
    const producer = ++this.#producers;
    const state = this.#of(partition);
    const first = this.ends(partition).end;
    const transaction: Transaction = { producer, first, isAborted, marker: undefined };
    state.transactions.push(transaction);
    if (isAborted) {
      this.leaveHole(partition, values.length);
      state.batches.push({
        base: first,
        last: first + values.length - 1,
        producer,
        control: undefined,
        isAborted,
        bytes: undefined,
      });
    } else this.#append(partition, values, producer);
    return () => {
      if (transaction.marker !== undefined || this.#of(partition) !== state) return;
      const at = this.ends(partition).end;
      transaction.marker = at;
      this.leaveHole(partition, 1);
      state.batches.push({
        base: at,
        last: at,
        producer,
        control: isAborted ? 'abort' : 'commit',
        isAborted,
        bytes: undefined,
      });
    };
  }

  override compact(partition: number, offset: number): void {
    super.compact(partition, offset);
    for (const batch of this.#of(partition).batches)
      if (batch.base <= offset && offset <= batch.last) batch.bytes = undefined;
  }

  override retainFrom(partition: number, offset: number): void {
    super.retainFrom(partition, offset);
    const state = this.#of(partition);
    state.batches = state.batches.filter(({ last }) => last >= this.ends(partition).start);
  }

  /** Behind it lie records of transactions that are open. */
  lastStable(partition: number): number {
    const open = this.#of(partition)
      .transactions.filter(({ marker }) => marker === undefined)
      .map(({ first }) => first);
    return Math.min(this.ends(partition).end, ...open);
  }

  /** Whole batches from the one that holds `offset` on, as a broker gives them: one at least, however large. */
  bytesFrom(partition: number, offset: number, maxBytes: number): FetchedBytes {
    const { batches, transactions } = this.#of(partition);
    const end = this.lastStable(partition);
    const parts: Buffer[] = [];
    let size = 0;
    let last = offset;
    for (const batch of batches) {
      if (batch.last < offset || batch.base >= end) continue;
      const bytes = this.#encoded(partition, batch);
      if (parts.length > 0 && size + bytes.length > maxBytes) break;
      parts.push(bytes);
      size += bytes.length;
      last = batch.last;
    }
    const aborted = transactions.filter(
      ({ isAborted, marker, first }) => isAborted && marker !== undefined && marker >= offset && first <= last,
    );
    return { data: Buffer.concat(parts), aborted: aborted.map(({ producer, first }) => ({ producer, first })) };
  }

  #append(partition: number, values: readonly Value[], producer: ProducerId | undefined): void {
    const base = this.ends(partition).end;
    super.produce(partition, ...values);
    this.#of(partition).batches.push({
      base,
      last: base + values.length - 1,
      producer,
      control: undefined,
      isAborted: false,
      bytes: undefined,
    });
  }

  #encoded(partition: number, batch: StoredBatch): Buffer {
    batch.bytes ??= this.#encode(partition, batch);
    return batch.bytes;
  }

  #encode(partition: number, { base, last, producer, control, isAborted }: StoredBatch): Buffer {
    const transactional = { producerId: BigInt(producer ?? -1), transactional: producer !== undefined };
    if (control !== undefined) return encodeBatch({ base, records: [], control, ...transactional, count: 1 });
    if (isAborted) {
      const records = Array.from({ length: last - base + 1 }, (_, delta) => ({
        delta,
        value: Buffer.from('{"aborted":true}'),
      }));
      return encodeBatch({ base, records, lastDelta: last - base, ...transactional });
    }
    const records = this.records(partition).filter(({ offset }) => offset >= base && offset <= last);
    const firstMs = records[0]?.timestampMs ?? 0;
    return encodeBatch({
      base,
      lastDelta: last - base,
      firstTimestampMs: BigInt(firstMs),
      ...transactional,
      records: records.map(({ offset, timestampMs, value }) => ({
        delta: offset - base,
        timestampDelta: timestampMs - firstMs,
        value,
      })),
    });
  }

  #of(partition: number): PartitionState {
    const state = this.#states[partition];
    if (state === undefined) throw new RangeError(`no partition ${partition}`);
    return state;
  }
}

function empty(): PartitionState {
  return { batches: [], transactions: [] };
}
