/**
 * Kafka's record batches (magic 2), from bytes to where the records in them lie. Pure but for decompression. kafkajs's
 * decoder is not used: it loses the order and the names of headers, does not tell of batches that compaction has
 * emptied, checks nothing, and is several times slower. Imports: model.
 */
import { PACKED_RECORD_BYTES, PackedRecords, PartBuilder, type PackedPart } from '../../model/packed-records.js';
import type { Records } from '../../model/record.js';
import { abortedFilter, type AbortedTransaction } from './aborted.js';
import {
  baseOffsetAt,
  checkHead,
  endOfBatch,
  hasRightCrc,
  HEAD_BYTES,
  readHead,
  type BatchHead,
} from './batch-head.js';
import { isAbortMarker } from './control-batch.js';
import { gzipSize, unpackedBound } from './codecs.js';
import { BadBatch, type Damage } from './damage.js';
import { ownBytes } from './own-bytes.js';
import { headersAt, RecordParser } from './record-parser.js';
import { costOf, isLarge, unpackAll, type Checked } from './unpack-batches.js';
import { TooLarge } from './unpacking.js';

/** What a range of a partition's log holds for a reader. */
export interface DecodedRange {
  readonly records: Records;
  /** The last offset that was looked at, with or without a record. */
  readonly lastOffset: number;
  /** Bytes of keys and values. */
  readonly bytes: number;
  /** Memory that the records hold on to, bytes: the buffers they lie in, and their columns. */
  readonly heldBytes: number;
  /** Bytes of the log that were taken for it, as they are compressed. */
  readonly takenBytes: number;
}

export interface LogSlice {
  readonly data: Buffer;
  /** Records before it are left out: a batch may begin earlier. */
  readonly fromOffset: number;
  readonly aborted: readonly AbortedTransaction[];
  /** The end of the log, as the same answer tells it: no batch is far behind it. @default not known */
  readonly highWatermark?: number | undefined;
  /** What one batch may take when it is unpacked, bytes, with the columns of its records. @default 268435456 */
  readonly maxBatchBytes?: number | undefined;
}

/** A part's own objects, about. */
const PART_COST_BYTES = 1024;
const MAX_BATCH_BYTES = 256 * 1024 * 1024;

/** So many bytes of batches are taken at a time; unpacked so many, by as many threads as there are. */
const GROUP_BYTES = 128 * 1024;
const GROUP_UNPACKED_BYTES = 4 * 1024 * 1024;
const GROUP_COMPRESSED = 4;

/**
 * What one fetch brought of a partition, decoded piece by piece: compressed it is small, and while there is no room for
 * more records it waits compressed. A batch that cannot be believed ends it: what lies before it is read, then `damage`
 * says what is wrong. Nothing else is ever thrown for what the bytes are.
 */
export class LogReader {
  readonly #data: Buffer;
  readonly #fromOffset: number;
  readonly #highWatermark: number | undefined;
  readonly #maxBatchBytes: number;
  readonly #isAborted: ReturnType<typeof abortedFilter>;
  #at = 0;
  /** Behind the last whole batch that was seen. */
  #nextOffset = 0;
  /** The end of what was taken to be read, or needs no reading; and of what was read. */
  #takenOffset: number;
  #readOffset: number;
  /** The next one, not looked into yet. */
  #head: BatchHead | undefined;
  /** Taken, and not read yet. */
  #waiting: Checked[] = [];
  #damage: Damage | undefined;

  constructor({ data, fromOffset, aborted, highWatermark, maxBatchBytes = MAX_BATCH_BYTES }: LogSlice) {
    this.#data = ownBytes(data);
    this.#fromOffset = fromOffset;
    this.#takenOffset = this.#readOffset = fromOffset - 1;
    this.#highWatermark = highWatermark;
    this.#maxBatchBytes = maxBatchBytes;
    this.#isAborted = abortedFilter(aborted);
    this.#advance();
  }

  /** Is nothing left that can be read? */
  get isOver(): boolean {
    return (
      this.#waiting.length === 0 &&
      (this.#head === undefined || this.#damage !== undefined) &&
      this.#readOffset >= this.#takenOffset
    );
  }

  /**
   * What is wrong with the batch behind everything that was read; undefined: nothing, or there is more to read before.
   */
  get damage(): Damage | undefined {
    return this.isOver ? this.#damage : undefined;
  }

  /** Not one whole batch came: what its length says and what is there. */
  get cut(): { readonly baseOffset: number; readonly says: number; readonly came: number } | undefined {
    if (this.#at > 0 || this.#damage !== undefined || this.#data.length < HEAD_BYTES) return undefined;
    return { baseOffset: baseOffsetAt(this.#data, 0), says: endOfBatch(this.#data, 0), came: this.#data.length };
  }

  /** What the next call of `next` takes, when that is a large batch: whoever has no room for it need not call. */
  get nextLarge(): { readonly bytes: number; readonly lastOffset: number } | undefined {
    if (this.#waiting.length === 0) this.#waiting.push(...this.#take());
    const [next] = this.#waiting;
    return next !== undefined && isLarge(next) ? { bytes: costOf(next), lastOffset: next.head.lastOffset } : undefined;
  }

  /**
   * Decodes whole batches until they hold on to `limitBytes`, none is left, or one is damaged. A large one comes alone.
   */
  async next(limitBytes: number): Promise<DecodedRange> {
    const parts: PackedPart[] = [];
    const sum = { bytes: 0, heldBytes: 0, takenBytes: 0 };
    while (!this.isOver && sum.heldBytes < limitBytes) {
      const group = this.#group();
      if (parts.length > 0 && group.some(isLarge)) {
        this.#waiting.unshift(...group);
        break;
      }
      const part = group.length === 0 ? undefined : await this.#decode(group, sum);
      this.#readOffset = this.#waiting[0]?.before ?? this.#takenOffset;
      if (part !== undefined) parts.push(part);
      if (group.some(isLarge) || this.#waiting.some(isLarge)) break;
    }
    return { records: PackedRecords.of(parts), lastOffset: this.#readOffset, ...sum };
  }

  /** As many as are unpacked together, or one that is large. */
  #group(): Checked[] {
    const group: Checked[] = [];
    for (
      let plain = 0, unpacked = 0, compressed = 0;
      plain < GROUP_BYTES && unpacked < GROUP_UNPACKED_BYTES && compressed < GROUP_COMPRESSED;
    ) {
      const next = this.#waiting.shift() ?? this.#take()[0];
      if (next === undefined) break;
      if (isLarge(next) && group.length > 0) {
        this.#waiting.unshift(next);
        break;
      }
      group.push(next);
      if (isLarge(next)) break;
      plain += next.head.body.length;
      unpacked += next.unpacked;
      if (next.head.codec !== 0) compressed++;
    }
    return group;
  }

  /**
   * The next batch that has records for us; passes over those that have none. Empty where the log, or belief in it,
   * ends.
   */
  #take(): [] | [Checked] {
    for (let head = this.#head; head !== undefined && this.#damage === undefined; head = this.#head) {
      const before = this.#takenOffset;
      try {
        if (!hasRightCrc(head))
          throw new BadBatch(`its CRC-32C is not ${hex(head.crc)}, as it says: it was damaged on a disk or on the way`);
        const isReadable = this.#isReadable(head);
        const unpacked = isReadable && head.codec !== 0 ? unpackedBound(head.codec, head.body, this.#maxBatchBytes) : 0;
        const checked = { head, before, unpacked };
        if (isReadable && costOf(checked) > this.#maxBatchBytes) throw new TooLarge(this.#maxBatchBytes);
        this.#takenOffset = head.lastOffset;
        this.#advance();
        if (isReadable) return [checked];
      } catch (thrown) {
        this.#damage = this.#damageOf(thrown, head);
      }
    }
    return [];
  }

  /** Decodes a group as far as it can be believed; the rest of it waits, or is given up with what is damaged. */
  async #decode(
    group: readonly Checked[],
    sum: { bytes: number; heldBytes: number; takenBytes: number },
  ): Promise<PackedPart | undefined> {
    const bodies = await unpackAll(group);
    const builder = new PartBuilder(
      group.reduce((all, { head }, i) => all + (Buffer.isBuffer(bodies[i]) ? head.count : 0), 0),
      headersAt,
    );
    const parser = new RecordParser(builder);
    for (const [i, { head, before }] of group.entries()) {
      const [length, bytes] = [builder.length, parser.bytes];
      const body = bodies[i];
      try {
        if (!Buffer.isBuffer(body)) {
          await this.#recount(group, i, body);
          break;
        }
        parser.read(head, body, this.#fromOffset);
        sum.heldBytes += body.length + head.count * PACKED_RECORD_BYTES;
        sum.takenBytes += HEAD_BYTES + head.body.length;
      } catch (thrown) {
        builder.truncate(length);
        parser.bytes = bytes;
        this.#damage = this.#damageOf(thrown, head);
        this.#waiting = [];
        this.#takenOffset = before;
        break;
      }
    }
    sum.bytes += parser.bytes;
    if (builder.length === 0) return undefined;
    sum.heldBytes += PART_COST_BYTES;
    return builder.build();
  }

  /**
   * gzip that unpacks to more than it says is counted and waits, with what is behind it, for room; all else is damage.
   */
  async #recount(group: readonly Checked[], index: number, thrown: unknown): Promise<void> {
    const refused = group[index]!;
    if (!(thrown instanceof TooLarge) || refused.head.codec !== 1) throw thrown;
    const unpacked = await gzipSize(refused.head.body, this.#maxBatchBytes);
    const counted = { ...refused, unpacked };
    if (unpacked <= refused.unpacked || costOf(counted) > this.#maxBatchBytes) throw new TooLarge(this.#maxBatchBytes);
    this.#waiting = [counted, ...group.slice(index + 1), ...this.#waiting];
  }

  #isReadable(head: BatchHead): boolean {
    const abortMarker = head.control && isAbortMarker(head);
    // Asked of every batch: the filter follows the transactions from one to the next.
    return !this.#isAborted({ ...head, abortMarker }) && !head.control && head.count > 0;
  }

  /** Moves on to the next whole batch that reaches what is wanted; a broker may cut the last one short. */
  #advance(): void {
    const data = this.#data;
    this.#head = undefined;
    while (data.length - this.#at >= HEAD_BYTES) {
      const at = this.#at;
      let head: BatchHead;
      try {
        const end = endOfBatch(data, at);
        if (end > data.length) return;
        head = readHead(data, at, end);
        checkHead(head, { nextOffset: this.#nextOffset, highWatermark: this.#highWatermark });
        this.#at = end;
      } catch (thrown) {
        this.#damage = this.#damageOf(thrown, undefined, baseOffsetAt(data, at));
        return;
      }
      this.#nextOffset = head.lastOffset + 1;
      if (head.lastOffset < this.#fromOffset) continue;
      this.#head = head;
      return;
    }
  }

  /**
   * `head`: of a batch that is what it should be but for its inside; undefined: its head is wrong, so that no policy
   * skips it.
   */
  #damageOf(thrown: unknown, head: BatchHead | undefined, baseOffset = head?.baseOffset ?? NaN): Damage {
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    const bad = thrown instanceof BadBatch ? thrown : undefined;
    const hint =
      thrown instanceof TooLarge
        ? 'raise kafka.budgetBytes above it, or let the producers make smaller batches; kafka.onCorruptBatch set ' +
          'to "skip" goes on without it'
        : bad?.hint;
    const bounds =
      head === undefined || !this.#isBelieved(head)
        ? undefined
        : { first: Math.max(head.baseOffset, this.#fromOffset), last: head.lastOffset, records: head.count };
    return { code: bad?.code ?? 'KCR_CORRUPT_BATCH', why, baseOffset, bounds, hint };
  }

  /**
   * Does the batch end where it says? What its checksum covers is right. Else two places must agree: without compaction
   * its count is that of its offsets; and the batch behind it begins where it ends.
   */
  #isBelieved(head: BatchHead): boolean {
    if (this.#highWatermark !== undefined && this.#highWatermark >= 0 && head.lastOffset >= this.#highWatermark)
      return false;
    if (hasRightCrc(head) || head.count === head.lastOffset - head.baseOffset + 1) return true;
    const behind = head.covered.byteOffset + head.covered.length - this.#data.byteOffset;
    return this.#data.length - behind >= HEAD_BYTES && baseOffsetAt(this.#data, behind) === head.lastOffset + 1;
  }
}

function hex(crc: number): string {
  return `0x${crc.toString(16).padStart(8, '0')}`;
}
