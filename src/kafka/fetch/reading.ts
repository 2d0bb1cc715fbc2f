/**
 * What was fetched of a partition becomes chunks, as far as there is room, and what becomes of a record batch that
 * cannot be believed: it is fetched again, then left out or halts its partition, as the policy says.
 * Imports: errors, kafka, kafka/connection, kafka/group, model.
 */
import { IngestError } from '../../errors.js';
import type { Credits } from '../../model/credits.js';
import type { Chunk } from '../../model/record.js';
import { damageError, damageOfCut, type Damage } from './damage.js';
import type { FetchedPartition } from './fetch-answer.js';
import type { SourceSettings } from '../options.js';
import { LogReader } from './records.js';
import type { AssignedPartition, Unread } from '../group/assigned-partition.js';
import { reasonOf } from '../connection/classify-error.js';

export interface ReadingPorts {
  readonly settings: SourceSettings;
  readonly credits: Credits;
  readonly deliver: (assigned: AssignedPartition, chunk: Chunk) => void;
  /** This partition cannot go on; the others can. */
  readonly failed: (assigned: AssignedPartition, error: IngestError) => void;
  /** Not revoked, lost, halted, sought away or paused since this offset was asked for. */
  readonly isWanted: (assigned: AssignedPartition, offset: number) => boolean;
  /** Something of the partition came and was read. */
  readonly progressed: () => void;
  /** What is asked for next comes over another connection: the damage may have happened on the way. */
  readonly renewConnection: (assigned: AssignedPartition) => void;
}

/** Memory that a chunk holds on to, at most and about: it ends with the record batch that reaches it. */
const CHUNK_BYTES = 4 * 1024 * 1024;
const PAUSE_MS = 200;
/** A batch that cannot be believed is asked for again so often; the first pause doubles. */
export const DAMAGE_RETRIES = 3;

export class Reading {
  readonly #ports: ReadingPorts;
  /** Where each partition last met damage, and how often in a row. */
  readonly #damages = new WeakMap<AssignedPartition, { readonly offset: number; readonly times: number }>();

  constructor(ports: ReadingPorts) {
    this.#ports = ports;
  }

  /** Is there room for what was fetched and waits, or for the next fetch? */
  mayRead({ assignment: { assignmentId }, next, unread }: AssignedPartition): boolean {
    const { credits } = this.#ports;
    if (!credits.mayFetch(assignmentId, next)) return false;
    const large = unread?.reader.nextLarge;
    return large === undefined || credits.mayUnpack(assignmentId, large.bytes, next);
  }

  /** `isFirst`: nothing of another partition came before it, so a broker sends one whole batch however large it is. */
  async open(
    assigned: AssignedPartition,
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
    if (cut !== undefined) return this.#damaged(assigned, cut);
    if (reader.isOver && reader.damage === undefined) {
      assigned.notBeforeMs = performance.now() + PAUSE_MS; // not one whole batch of what was asked for: do not spin
      return;
    }
    assigned.unread = { reader, highWatermark };
    await this.read(assigned);
  }

  /** Decodes and delivers what was fetched, as far as there is room for it. */
  async read(assigned: AssignedPartition): Promise<void> {
    const { unread } = assigned;
    if (unread === undefined) return;
    while (assigned.unread === unread && !unread.reader.isOver && this.mayRead(assigned))
      await this.#readOn(assigned, unread);
    if (assigned.unread !== unread || !unread.reader.isOver) return;
    assigned.unread = undefined;
    const { damage } = unread.reader;
    if (damage !== undefined && this.#ports.isWanted(assigned, assigned.next)) this.#damaged(assigned, damage);
  }

  async #readOn(assigned: AssignedPartition, unread: Unread): Promise<void> {
    const { credits } = this.#ports;
    const { assignmentId } = assigned.assignment;
    const large = unread.reader.nextLarge;
    if (large === undefined) return this.#deliverNext(assigned, unread);
    credits.unpacks(assignmentId, large.bytes, large.lastOffset);
    try {
      await this.#deliverNext(assigned, unread);
    } finally {
      credits.unpacked(assignmentId);
    }
  }

  async #deliverNext(assigned: AssignedPartition, unread: Unread): Promise<void> {
    const { credits, deliver, isWanted, progressed } = this.#ports;
    const { assignment, next: offset } = assigned;
    const { reader, highWatermark } = unread;
    const range = await reader
      .next(Math.min(CHUNK_BYTES, credits.share / 2))
      .catch((thrown: unknown) => this.#isDefect(assigned, thrown));
    // Decompression took its time: ask again. What is dropped here is fetched again, if it is wanted again.
    if (range === undefined || assigned.unread !== unread || !isWanted(assigned, offset)) {
      if (assigned.unread === unread) assigned.unread = undefined;
      return;
    }
    const { records, lastOffset, bytes, heldBytes: held, takenBytes: fetched } = range;
    if (lastOffset < offset) return;
    assigned.next = lastOffset + 1;
    assigned.isUnproven = false;
    progressed();
    credits.delivered(assignment.assignmentId, { lastOffset, held, fetched });
    const isLastForNow = reader.isOver
      ? !credits.mayFetch(assignment.assignmentId, assigned.next)
      : !this.mayRead(assigned);
    deliver(assigned, {
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
  #isDefect(assigned: AssignedPartition, thrown: unknown): undefined {
    const { topic, partition } = assigned.assignment;
    this.#ports.failed(
      assigned,
      new IngestError('KCR_INTERNAL', `Reading a record batch failed: ${reasonOf(thrown)}`, {
        topic,
        partition,
        offset: assigned.next,
        cause: thrown,
      }),
    );
  }

  #damaged(assigned: AssignedPartition, damage: Damage): void {
    const { settings, failed, renewConnection } = this.#ports;
    const { topic, partition } = assigned.assignment;
    const before = this.#damages.get(assigned);
    const times = before?.offset === assigned.next ? before.times + 1 : 1;
    this.#damages.set(assigned, { offset: assigned.next, times });
    if (times <= DAMAGE_RETRIES) {
      const pauseMs = PAUSE_MS * 2 ** (times - 1);
      assigned.notBeforeMs = performance.now() + pauseMs;
      settings.log('warn', 'a record batch cannot be read, asking for it again', {
        topic,
        partition,
        baseOffset: damage.baseOffset,
        reason: damage.why,
        attempt: times,
        pauseMs,
      });
      renewConnection(assigned);
      return;
    }
    this.#damages.delete(assigned);
    if (settings.onCorruptBatch === 'skip' && damage.bounds !== undefined) this.#skip(assigned, damage, damage.bounds);
    else failed(assigned, damageError(damage, { topic, partition }));
  }

  /**
   * Its range is covered by a chunk without records: chunks stay contiguous. Told before: who dies in between tells it
   * again.
   */
  #skip(assigned: AssignedPartition, damage: Damage, { first, last, records }: NonNullable<Damage['bounds']>): void {
    const { settings, deliver } = this.#ports;
    const { assignment, next } = assigned;
    settings.onEvent({
      kind: 'corruptBatch',
      assignment,
      first,
      last,
      records,
      error: damageError(damage, assignment),
    });
    assigned.next = last + 1;
    deliver(assigned, {
      assignment,
      afterOffset: next - 1,
      lastOffset: last,
      records: [],
      bytes: 0,
      highWatermark: last + 1,
    });
  }
}
