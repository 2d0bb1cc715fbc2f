/**
 * Room: what a run comes to: its totals, its worst error, and whether anything of it still goes on. Pure.
 */
import { IngestError, errorCodes, type ErrorCode } from '../errors.js';
import type { IngestEvent, Outcome } from '../events.js';
import type { Assignment } from '../model/record.js';

/** With which `run` ends when nothing waits for a person, but a partition had halted that is begun anew by itself. */
const EXIT_HEALING = 9;

export interface Totals {
  batches: number;
  rows: number;
  bytes: number;
  replayed: number;
  retries: number;
  stateWrites: number;
  filtered: number;
  /** Offsets that were gone before they were read. */
  gone: number;
  abandoned: number;
  /** Record batches that could not be believed and were left out, as the policy for them says. */
  corruptBatches: number;
  /** Records left out of their batches, as the policy for poison says. */
  excluded: number;
  /** Records whose timestamp `_timestamp` could not hold. */
  timesOutside: number;
  /** Records without a value that were skipped. */
  tombstones: number;
  /** Partitions that began anew, their topic having been created anew or truncated. */
  restarted: number;
  halted: number;
  /** Partitions that had halted and went on. */
  healed: number;
}

export class Tally {
  readonly totals: Totals = {
    batches: 0,
    rows: 0,
    bytes: 0,
    replayed: 0,
    retries: 0,
    stateWrites: 0,
    filtered: 0,
    gone: 0,
    corruptBatches: 0,
    abandoned: 0,
    excluded: 0,
    tombstones: 0,
    timesOutside: 0,
    restarted: 0,
    halted: 0,
    healed: 0,
  };
  worst: IngestError | undefined;
  #hasBegun = false;
  readonly #going = new Set<number>();
  readonly #halted = new Set<number>();
  /** Partitions that will be begun anew, and the generation in which they halted. */
  readonly #healing = new Map<string, number>();

  event(event: IngestEvent, isDraining: boolean): void {
    switch (event.kind) {
      case 'assigned':
        this.#hasBegun = true;
        this.#going.add(event.assignment.assignmentId);
        // What this member had been given before may be another's now.
        for (const [name, generation] of this.#healing)
          if (generation < event.assignment.generation) this.#healing.delete(name);
        break;
      case 'healed':
        this.totals.healed += 1;
        this.#healing.delete(nameOf(event.assignment));
        break;
      case 'revoked':
        // Another member tries it again, or this one of the next generation.
        if (!isDraining) this.#healing.delete(nameOf(event.assignment));
        break;
      case 'lost':
        if (isDraining) this.fail(notDrained(event.assignment));
        this.#end(event.assignment.assignmentId);
        break;
      case 'released':
        this.#end(event.assignment.assignmentId);
        break;
      case 'retry':
        this.totals.retries += 1;
        break;
      case 'stateWritten':
        this.totals.stateWrites += 1;
        break;
      case 'filtered':
        this.totals.filtered += event.records;
        break;
      case 'gap':
        this.totals.gone += event.found - event.expected;
        break;
      case 'tombstones':
        if (!event.replay) this.totals.tombstones += event.records;
        break;
      case 'timesOutside':
        this.totals.timesOutside += event.records;
        break;
      case 'corruptBatch':
        this.totals.corruptBatches += 1;
        break;
      case 'abandoned':
        this.totals.abandoned += event.rows;
        break;
      case 'excluded':
        this.totals.excluded += 1;
        break;
      case 'restarted':
        this.totals.restarted += 1;
        break;
      default:
    }
  }

  #end(assignmentId: number): void {
    this.#going.delete(assignmentId);
    this.#halted.delete(assignmentId);
  }

  outcome(outcome: Outcome): void {
    if (outcome.kind === 'halted') {
      this.totals.halted += 1;
      this.#going.delete(outcome.assignment.assignmentId);
      if (outcome.healsInMs !== undefined)
        return void this.#healing.set(nameOf(outcome.assignment), outcome.assignment.generation);
      this.#halted.add(outcome.assignment.assignmentId);
      this.fail(outcome.error);
      return;
    }
    this.totals.batches += 1;
    this.totals.rows += outcome.rows;
    this.totals.bytes += outcome.bytes;
    if (outcome.replay) this.totals.replayed += 1;
  }

  /** The first error decides the exit code; a defect of the program outranks it. */
  fail(error: IngestError): void {
    if (this.worst === undefined || errorCodes[error.code].exitCode === 1) this.worst = error;
  }

  /** What the program ends with. */
  get exitCode(): number {
    if (this.worst === undefined) return this.#healing.size === 0 ? 0 : EXIT_HEALING;
    return this.#hasBegun ? exitCodeOnceBegun(this.worst.code) : errorCodes[this.worst.code].exitCode;
  }

  /** Partitions were assigned, and each of them has halted for good. */
  isAllHalted(): boolean {
    return this.#halted.size > 0 && this.#going.size === 0 && this.#healing.size === 0;
  }
}

function nameOf({ topic, partition }: Assignment): string {
  return `${topic}/${partition}`;
}

/** 3 is a refused start, of which no record was taken: a server or a topic that is gone later is 5. */
export function exitCodeOnceBegun(code: ErrorCode): number {
  const { exitCode } = errorCodes[code];
  return exitCode === 3 ? 5 : exitCode;
}

export function notDrained({ topic, partition }: Partial<Assignment> = {}): IngestError {
  return new IngestError('KCR_DRAIN_TIMEOUT', 'The drain did not end in time: what was in flight is in doubt', {
    topic,
    partition,
    hint: 'start again, and it is resolved; if drains need longer, raise kafka.drainTimeoutMs',
  });
}
