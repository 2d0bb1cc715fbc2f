/**
 * Room: how many inserts are in flight, and the buffers they are sent from. One slot is one permit and one buffer:
 * a fresh buffer for every body costs more processor time, in page faults, than making the body itself.
 */
import { IngestError } from '../errors.js';

/** The right to have one insert in flight. */
export interface Slot {
  /** A buffer of at least this size; what it held before is gone. */
  buffer(bytes: number): Buffer;
  /** To be called once, when nobody looks at the buffer's bytes any more. */
  free(): void;
}

interface Waiting {
  readonly grant: (slot: Slot) => void;
}

export class InsertSlots {
  readonly #retainBytes: number;
  readonly #buffers: Buffer[] = [];
  readonly #waiting = new Set<Waiting>();
  #left: number;

  /** A buffer that has grown beyond `retainBytes` is not kept for the next insert. */
  constructor(count: number, retainBytes: number) {
    this.#left = count;
    this.#retainBytes = retainBytes;
  }

  /** In the order of asking. Rejects with the signal's reason when that comes first. */
  async take(signal: AbortSignal): Promise<Slot> {
    signal.throwIfAborted();
    if (this.#left > 0) {
      this.#left--;
      return this.#slot();
    }
    return new Promise((resolve, reject) => {
      const aborted = (): void => {
        this.#waiting.delete(waiting);
        reject(signal.reason as Error);
      };
      const waiting: Waiting = {
        grant: (slot) => {
          signal.removeEventListener('abort', aborted);
          resolve(slot);
        },
      };
      this.#waiting.add(waiting);
      signal.addEventListener('abort', aborted, { once: true });
    });
  }

  #slot(): Slot {
    let buffer = this.#buffers.pop();
    let freed = false;
    return {
      buffer: (bytes) => {
        if (buffer === undefined || buffer.length < bytes) buffer = Buffer.allocUnsafeSlow(grown(bytes));
        return buffer;
      },
      free: () => {
        if (freed) throw new IngestError('KCR_INTERNAL', 'an insert slot was freed twice');
        freed = true;
        if (buffer !== undefined && buffer.length <= this.#retainBytes) this.#buffers.push(buffer);
        this.#next();
      },
    };
  }

  #next(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#left++;
      return;
    }
    this.#waiting.delete(next);
    next.grant(this.#slot());
  }
}

const SMALLEST_BUFFER = 65_536;

/** Doubling, so that a buffer that grows with its batches is replaced seldom. */
function grown(bytes: number): number {
  let size = SMALLEST_BUFFER;
  while (size < bytes) size *= 2;
  return size;
}
