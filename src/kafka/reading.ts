/**
 * Room: what was fetched of a partition becomes chunks, as far as there is room, and what becomes of a record batch that
 * cannot be believed: it is fetched again, then left out or halts its partition, as the policy says.
 */
import { IngestError } from '../errors.js';
import type { Credits } from '../model/credits.js';
import type { Chunk } from '../model/record.js';
import { damageError, damageOfCut, type Damage } from './damage.js';
import type { FetchedPartition } from './fetch.js';
import type { SourceSettings } from './options.js';
import { LogReader } from './records.js';
import type { Tenure, Unread } from './tenure.js';
import { reasonOf } from './trouble.js';

export interface ReadingPorts {
  readonly settings: SourceSettings;
  readonly credits: Credits;
  readonly deliver: (tenure: Tenure, chunk: Chunk) => void;
  /** This partition cannot go on; the others can. */
  readonly failed: (tenure: Tenure, error: IngestError) => void;
  /** Not revoked, lost, halted, sought away or paused since this offset was asked for. */
  readonly isWanted: (tenure: Tenure, offset: number) => boolean;
  /** Something of the partition came and was read. */
  readonly progressed: () => void;
  /** What is asked for next comes over another connection: the damage may have happened on the way. */
  readonly renewConnection: (tenure: Tenure) => void;
}

/** Memory that a chunk holds on to, at most and about: it ends with the record batch that reaches it. */
const CHUNK_BYTES = 4 * 1024 * 1024;
const PAUSE_MS = 200;
/** A batch that cannot be believed is asked for again so often; the first pause doubles. */
export const DAMAGE_RETRIES = 3;

export class Reading {
  readonly #ports: ReadingPorts;
  /** Where each partition last met damage, and how often in a row. */
  readonly #damages = new WeakMap<Tenure, { readonly offset: number; readonly times: number }>();

  constructor(ports: ReadingPorts) {
    this.#ports = ports;
  }

  /** Is there room for what was fetched and waits, or for the next fetch? */
  mayRead({ assignment: { epoch }, next, unread }: Tenure): boolean {
    const { credits } = this.#ports;
    if (!credits.mayFetch(epoch, next)) return false;
    const large = unread?.reader.nextLarge;
    return large === undefined || credits.mayUnpack(epoch, large.bytes, next);
  }

  /** `isFirst`: nothing of another partition came before it, so a broker sends one whole batch however large it is. */
  async open(
    tenure: Tenure,
    offset: number,
    { data, aborted, highWatermark }: FetchedPartition,
    isFirst: boolean,
  ): Promise<void> {
    if (data.length === 0) return;
    const { isolation, budgetBytes } = this.#ports.settings;
    const reader = new LogReader({
      data,
      fromOffset: offset,
      aborted: isolation === 'read_committed' ? aborted : [],
      highWatermark,
      maxBatchBytes: budgetBytes,
    });
    const cut = isFirst ? damageOfCut(reader.cut) : undefined;
    if (cut !== undefined) return this.#damaged(tenure, cut);
    if (reader.isOver && reader.damage === undefined) {
      tenure.notBeforeMs = performance.now() + PAUSE_MS; // not one whole batch of what was asked for: do not spin
      return;
    }
    tenure.unread = { reader, highWatermark };
    await this.read(tenure);
  }

  /** Decodes and delivers what was fetched, as far as there is room for it. */
  async read(tenure: Tenure): Promise<void> {
    const { unread } = tenure;
    if (unread === undefined) return;
    while (tenure.unread === unread && !unread.reader.isOver && this.mayRead(tenure))
      await this.#readOn(tenure, unread);
    if (tenure.unread !== unread || !unread.reader.isOver) return;
    tenure.unread = undefined;
    const { damage } = unread.reader;
    if (damage !== undefined && this.#ports.isWanted(tenure, tenure.next)) this.#damaged(tenure, damage);
  }

  async #readOn(tenure: Tenure, unread: Unread): Promise<void> {
    const { credits } = this.#ports;
    const { epoch } = tenure.assignment;
    const large = unread.reader.nextLarge;
    if (large === undefined) return this.#deliverNext(tenure, unread);
    credits.unpacks(epoch, large.bytes, large.lastOffset);
    try {
      await this.#deliverNext(tenure, unread);
    } finally {
      credits.unpacked(epoch);
    }
  }

  async #deliverNext(tenure: Tenure, unread: Unread): Promise<void> {
    const { credits, deliver, isWanted, progressed } = this.#ports;
    const { assignment, next: offset } = tenure;
    const { reader, highWatermark } = unread;
    const range = await reader
      .next(Math.min(CHUNK_BYTES, credits.share / 2))
      .catch((thrown: unknown) => this.#isDefect(tenure, thrown));
    // Decompression took its time: ask again. What is dropped here is fetched anew, if it is wanted again.
    if (range === undefined || tenure.unread !== unread || !isWanted(tenure, offset)) {
      if (tenure.unread === unread) tenure.unread = undefined;
      return;
    }
    const { records, lastOffset, bytes, heldBytes: held, takenBytes: fetched } = range;
    if (lastOffset < offset) return;
    tenure.next = lastOffset + 1;
    tenure.isUnproven = false;
    progressed();
    credits.delivered(assignment.epoch, { lastOffset, held, fetched });
    const isLastForNow = reader.isOver ? !credits.mayFetch(assignment.epoch, tenure.next) : !this.mayRead(tenure);
    deliver(tenure, {
      assignment,
      afterOffset: offset - 1,
      lastOffset,
      records,
      bytes,
      highWatermark,
      ...(isLastForNow ? { isLastForNow } : {}),
    });
  }

  /** Whatever the bytes are, the reader says so without throwing. */
  #isDefect(tenure: Tenure, thrown: unknown): undefined {
    const { topic, partition } = tenure.assignment;
    this.#ports.failed(
      tenure,
      new IngestError('KCR_INTERNAL', `Reading a record batch failed: ${reasonOf(thrown)}`, {
        topic,
        partition,
        offset: tenure.next,
        cause: thrown,
      }),
    );
  }

  #damaged(tenure: Tenure, damage: Damage): void {
    const { settings, failed, renewConnection } = this.#ports;
    const { topic, partition } = tenure.assignment;
    const before = this.#damages.get(tenure);
    const times = before?.offset === tenure.next ? before.times + 1 : 1;
    this.#damages.set(tenure, { offset: tenure.next, times });
    if (times <= DAMAGE_RETRIES) {
      const pauseMs = PAUSE_MS * 2 ** (times - 1);
      tenure.notBeforeMs = performance.now() + pauseMs;
      settings.log('warn', 'a record batch cannot be read, asking for it again', {
        topic,
        partition,
        baseOffset: damage.baseOffset,
        reason: damage.why,
        attempt: times,
        pauseMs,
      });
      renewConnection(tenure);
      return;
    }
    this.#damages.delete(tenure);
    if (settings.onCorruptBatch === 'skip' && damage.bounds !== undefined) this.#skip(tenure, damage, damage.bounds);
    else failed(tenure, damageError(damage, { topic, partition }));
  }

  /** Its range is covered by a chunk without records: chunks stay contiguous. Told before: who dies in between tells it again. */
  #skip(tenure: Tenure, damage: Damage, { first, last, records }: NonNullable<Damage['bounds']>): void {
    const { settings, deliver } = this.#ports;
    const { assignment, next } = tenure;
    settings.report({ kind: 'corruptBatch', assignment, first, last, records, error: damageError(damage, assignment) });
    tenure.next = last + 1;
    deliver(tenure, {
      assignment,
      afterOffset: next - 1,
      lastOffset: last,
      records: [],
      bytes: 0,
      highWatermark: last + 1,
    });
  }
}
