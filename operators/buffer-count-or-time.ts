/**
 * Stage 3 of 6: bufferCountOrTime. Chunks become batches. Imports: errors, model, rxjs, stages.
 */
import {
  Observable,
  asyncScheduler,
  timer,
  type OperatorFunction,
  type SchedulerLike,
  type Subscriber,
  type Subscription,
} from 'rxjs';
import { IngestError } from '../src/errors.js';
import { joinBatches, recordBytes, splitBatch } from '../src/model/batch.js';
import { cursorOver } from '../src/model/packed-records.js';
import type { Batch, Chunk } from '../src/model/record.js';
import type { BufferedBatch, Cut } from '../src/stages.js';

/** A batch is one block in ClickHouse; these keep it well below the block size that every insert pins. */
export const batchLimits = { maxCount: 1_000_000, maxBytes: 256 * 1024 * 1024, maxWaitMs: 3_600_000 } as const;

export const bufferDefaults = { count: 100_000, bytes: 32 * 1024 * 1024, maxWaitMs: 1_000 } as const;

/** Where a batch is cut: whichever limit is reached first. */
export interface BufferConfig {
  /** Records at which a batch is cut. @default 100000 */
  readonly count?: number;
  /** Bytes (keys and values) at which a batch is cut; a single record may be larger. @default 33554432 (32 MiB) */
  readonly bytes?: number;
  /** A batch is cut this long after its first chunk came, milliseconds. @default 1000 */
  readonly maxWaitMs?: number;
  /** @default asyncScheduler */
  readonly scheduler?: SchedulerLike;
}

/**
 * Joins contiguous chunks of one partition into batches, cut by count, by bytes or by time, whichever strikes first.
 * What is left when the source completes is flushed; on an error it is not.
 *
 * In plain words: waits for a full tray, but never longer than `maxWaitMs`.
 *
 * ```
 * source:  -a-b-c-----d-----|     one record each
 *          bufferCountOrTime({ count: 2, maxWaitMs: 3 })
 *          ---B----C-----D--|     B = ab by count, C = c by time, D = d by time
 * ```
 *
 * Time-based cuts are safe with exactly-once because `reconcileWithState` records the range before it is inserted.
 * A batch never spans a gap between chunks (a seek): the part before it is flushed first. Behind a chunk that is the
 * last for now (`isLastForNow`: the source has no room) what there is is flushed at once: nothing more would come.
 *
 * @throws `KCR_CONFIG` for limits outside of `batchLimits`.
 */
export function bufferCountOrTime<C extends Batch & Pick<Partial<Chunk>, 'isLastForNow'>>(
  config: BufferConfig = {},
): OperatorFunction<C, BufferedBatch> {
  const {
    count = bufferDefaults.count,
    bytes = bufferDefaults.bytes,
    maxWaitMs = bufferDefaults.maxWaitMs,
    scheduler = asyncScheduler,
  } = config;
  expectLimit('count', count, batchLimits.maxCount);
  expectLimit('bytes', bytes, batchLimits.maxBytes);
  expectLimit('maxWaitMs', maxWaitMs, batchLimits.maxWaitMs);
  return (chunks) =>
    new Observable<BufferedBatch>((subscriber) => {
      const buffer = new Buffering(count, bytes, maxWaitMs, scheduler, subscriber);
      const outer = chunks.subscribe({
        next: (chunk) => buffer.add(chunk, chunk.isLastForNow === true),
        error: (error: unknown) => subscriber.error(error),
        complete: () => {
          buffer.flush();
          subscriber.complete();
        },
      });
      return () => {
        outer.unsubscribe();
        buffer.stopWaiting();
      };
    });
}

class Buffering {
  #parts: Batch[] = [];
  readonly #arrived: { readonly chunk: Batch; readonly isLastForNow: boolean }[] = [];
  #count = 0;
  #bytes = 0;
  #waiting: Subscription | undefined;
  #follows: number | undefined;

  constructor(
    private readonly maxCount: number,
    private readonly maxBytes: number,
    private readonly maxWaitMs: number,
    private readonly scheduler: SchedulerLike,
    private readonly subscriber: Subscriber<BufferedBatch>,
  ) {}

  add(chunk: Batch, isLastForNow: boolean): void {
    // A batch that is taken may bring the next chunk about: that one waits until this one is cut.
    if (this.#arrived.push({ chunk, isLastForNow }) > 1) return;
    for (let next = this.#arrived[0]; next !== undefined && !this.subscriber.closed; next = this.#arrived[0]) {
      this.#cut(next.chunk);
      if (next.isLastForNow) this.flush();
      this.#arrived.shift();
    }
  }

  #cut(chunk: Batch): void {
    const previous = this.#parts.at(-1);
    if (previous !== undefined && previous.lastOffset !== chunk.afterOffset) this.flush();
    let rest: Batch | undefined = chunk;
    while (rest !== undefined && !this.subscriber.closed) {
      const cut: number = this.#cutOffset(rest);
      const [head, beyond]: [Batch | undefined, Batch | undefined] = splitBatch(rest, cut);
      if (head !== undefined) this.#take(head);
      if (this.#isFull() || beyond !== undefined) this.flush();
      rest = beyond;
    }
  }

  flush(): void {
    this.stopWaiting();
    if (this.#parts.length === 0) return;
    const batch = joinBatches(this.#parts);
    this.#parts = [];
    this.#count = 0;
    this.#bytes = 0;
    const cut: Cut = { count: this.maxCount, bytes: this.maxBytes, follows: this.#follows };
    this.#follows = batch.lastOffset;
    this.subscriber.next({ ...batch, cut } as BufferedBatch);
  }

  stopWaiting(): void {
    this.#waiting?.unsubscribe();
    this.#waiting = undefined;
  }

  #take(part: Batch): void {
    this.#parts.push(part);
    this.#count += part.records.length;
    this.#bytes += part.bytes;
    this.#waiting ??= timer(this.maxWaitMs, this.scheduler).subscribe({
      next: () => this.flush(),
      error: (error: unknown) => this.subscriber.error(error),
    });
  }

  #isFull(): boolean {
    return this.#count >= this.maxCount || this.#bytes >= this.maxBytes;
  }

  /** Where in `chunk` the batch that is being filled ends: at its last offset if it all fits. */
  #cutOffset(chunk: Batch): number {
    const { records } = chunk;
    if (this.#count + records.length <= this.maxCount && this.#bytes + chunk.bytes <= this.maxBytes)
      return chunk.lastOffset;
    let bytes = this.#bytes;
    const roomFor = this.maxCount - this.#count;
    let before = chunk.afterOffset;
    const cursor = cursorOver(records);
    for (let count = 1; cursor.next(); count++) {
      bytes += recordBytes(cursor);
      const isOver = bytes > this.maxBytes && this.#count + count > 1;
      if (isOver) return before;
      before = cursor.offset;
      if (count >= roomFor || bytes >= this.maxBytes) return count === records.length ? chunk.lastOffset : before;
    }
    return chunk.lastOffset;
  }
}

function expectLimit(name: string, value: number, max: number): void {
  if (Number.isInteger(value) && value >= 1 && value <= max) return;
  throw new IngestError('KCR_CONFIG', `Expected \`batch.${name}\` to be an integer from 1 to ${max}, got ${value}`);
}
