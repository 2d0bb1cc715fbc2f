/**
 * The body of an insert, made piece by piece while it is sent: a batch of any size takes two small pieces of memory,
 * which stay in the processor's cache, and the event loop is held up for one piece at a time. Imports: nothing.
 */
import type { RowWriter } from './encode.js';

/**
 * What is sent. A piece is written again when the next but one is asked for: by then nobody may look at it any more.
 */
export interface BodyPieces {
  /** The last piece was given. */
  readonly isOver: boolean;
  next(): Uint8Array;
}

/** The two pieces are used in turn. A row that is larger than a piece gets memory of its own. */
export class RowBody implements BodyPieces {
  readonly #rows: RowWriter;
  readonly #pieces: readonly [Buffer, Buffer];
  #turn: 0 | 1 = 1;

  constructor(rows: RowWriter, pieces: readonly [Buffer, Buffer]) {
    this.#rows = rows;
    this.#pieces = pieces;
  }

  get isOver(): boolean {
    return this.#rows.isOver;
  }

  next(): Uint8Array {
    this.#turn = this.#turn === 0 ? 1 : 0;
    const { nextBound } = this.#rows;
    const piece = this.#pieces[this.#turn];
    const target = nextBound > piece.length ? Buffer.allocUnsafeSlow(nextBound) : piece;
    return target.subarray(0, this.#rows.fill(target));
  }
}

/** A body that is there as a whole. */
export function wholeBody(data: Uint8Array): BodyPieces {
  let isOver = false;
  return {
    get isOver() {
      return isOver;
    },
    next: () => {
      isOver = true;
      return data;
    },
  };
}
