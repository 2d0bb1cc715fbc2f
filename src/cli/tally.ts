/**
 * What a run comes to: its totals, its worst error, and whether anything of it still goes on. Pure.
 * Imports: errors, events, model, observe.
 */
import { IngestError, errorCodes, type ErrorCode } from '../errors.js';
import type { IngestEvent, Outcome } from '../events.js';
import { partitionName } from '../model/partition-name.js';
import type { Assignment } from '../model/record.js';
import { countEvent, countOutcome, noTotals, type Totals } from '../observe/totals.js';

/**
 * With which `run` ends when nothing waits for a person, but a partition had halted that is started again by itself.
 */
const EXIT_HEALING = 9;

export class Tally {
  readonly totals: Totals = noTotals();
  worst: IngestError | undefined;
  #hasBegun = false;
  readonly #going = new Set<number>();
  readonly #halted = new Set<number>();
  /** Partitions that will be started again, and the generation in which they halted. */
  readonly #healing = new Map<string, number>();

  event(event: IngestEvent, isDraining: boolean): void {
    countEvent(this.totals, event);
    switch (event.kind) {
      case 'assigned':
        this.#hasBegun = true;
        this.#going.add(event.assignment.assignmentId);
        // What this member had been given before may be another's now.
        for (const [name, generation] of this.#healing)
          if (generation < event.assignment.generation) this.#healing.delete(name);
        break;
      case 'healed':
        this.#healing.delete(partitionName(event.assignment));
        break;
      case 'revoked':
        // Another member tries it again, or this one of the next generation.
        if (!isDraining) this.#healing.delete(partitionName(event.assignment));
        break;
      case 'lost':
        if (isDraining) this.fail(notDrained(event.assignment));
        this.#end(event.assignment.assignmentId);
        break;
      case 'released':
        this.#end(event.assignment.assignmentId);
        break;
      default:
    }
  }

  #end(assignmentId: number): void {
    this.#going.delete(assignmentId);
    this.#halted.delete(assignmentId);
  }

  outcome(outcome: Outcome): void {
    countOutcome(this.totals, outcome);
    if (outcome.kind === 'halted') {
      this.#going.delete(outcome.assignment.assignmentId);
      if (outcome.healsInMs !== undefined)
        return void this.#healing.set(partitionName(outcome.assignment), outcome.assignment.generation);
      this.#halted.add(outcome.assignment.assignmentId);
      this.fail(outcome.error);
      return;
    }
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
