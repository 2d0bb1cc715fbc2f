/**
 * Whether a line is written, or counted with others of its kind: what befalls three hundred
 * partitions at once is one fact. Pure. Imports: model.
 */
import { partitionNames } from '../../model/partition-name.js';

export interface Place {
  readonly topic: string;
  readonly partition: number;
}

export interface RepeatsConfig {
  /** A kind that repeats is told once in this time at first, milliseconds. @default 10000 */
  readonly windowMs?: number;
  /** While it goes on the time doubles up to this, milliseconds. @default 120000 */
  readonly maxWindowMs?: number;
  /** Kinds that are counted at once; the lines of further ones are written. @default 200 */
  readonly maxKinds?: number;
}

/** Lines of one kind that were counted, not written. */
export interface Counted<Line> {
  readonly times: number;
  /** How many partitions they were about. */
  readonly partitions: number;
  /** Their names, for people: "flights/0-7, flights/12". */
  readonly names: string;
  /** The last one, as an example. */
  readonly last: Line;
}

interface Kind<Line> {
  windowMs: number;
  endMs: number;
  inFullLeft: number;
  times: number;
  places: Map<string, Set<number>>;
  last: Line | undefined;
}

export class Repeats<Line> {
  readonly #kinds = new Map<string, Kind<Line>>();
  readonly #windowMs: number;
  readonly #maxWindowMs: number;
  readonly #maxKinds: number;

  constructor({ windowMs = 10_000, maxWindowMs = 120_000, maxKinds = 200 }: RepeatsConfig = {}) {
    this.#windowMs = windowMs;
    this.#maxWindowMs = Math.max(windowMs, maxWindowMs);
    this.#maxKinds = maxKinds;
  }

  /** True when the line is to be written; else it is counted. The first `inFull` of a kind are written. */
  isWritten(kind: string, line: Line, place: Place | undefined, inFull: number, nowMs: number): boolean {
    let known = this.#kinds.get(kind);
    if (known === undefined) {
      if (this.#kinds.size >= this.#maxKinds) return true;
      known = {
        windowMs: this.#windowMs,
        endMs: nowMs + this.#windowMs,
        inFullLeft: inFull,
        times: 0,
        places: new Map(),
        last: undefined,
      };
      this.#kinds.set(kind, known);
    }
    if (known.inFullLeft > 0) {
      known.inFullLeft -= 1;
      return true;
    }
    known.times += 1;
    known.last = line;
    if (place !== undefined) {
      const partitions = known.places.get(place.topic) ?? new Set();
      known.places.set(place.topic, partitions.add(place.partition));
    }
    return false;
  }

  /** What was counted in windows that are over by now; a kind of which nothing more came begins afresh. */
  due(nowMs: number): readonly Counted<Line>[] {
    const over = [...this.#kinds].filter(([, { endMs }]) => endMs <= nowMs);
    return over.flatMap(([name, kind]) => {
      const { times, places, last } = kind;
      if (last === undefined) {
        this.#kinds.delete(name);
        return [];
      }
      const windowMs = Math.min(this.#maxWindowMs, kind.windowMs * 2);
      Object.assign(kind, {
        windowMs,
        endMs: nowMs + windowMs,
        inFullLeft: 0,
        times: 0,
        places: new Map(),
        last: undefined,
      });
      const partitions = [...places.values()].reduce((sum, { size }) => sum + size, 0);
      return [{ times, partitions, names: partitionNames(places), last }];
    });
  }
}
