/**
 * What is in doubt, resolved; nothing new is taken. For the moments before an upgrade, a change of the route or of
 * the store. A member of the group like any other, with the stages of exactly-once; it ends by itself.
 * Imports: abort, config, errors, events, pipeline, rxjs.
 */
import { lastValueFrom, takeUntil, tap, timer } from 'rxjs';
import { within } from '../abort.js';
import type { CheckedConfig } from '../config/config.js';
import { IngestError } from '../errors.js';
import type { Delivered, IngestEvent, Outcome } from '../events.js';
import { openPorts, pipelineOf, type OpenPorts } from '../pipeline/ingest.js';

export interface DrainOptions {
  /** For all of it, the checks before the start included. */
  readonly timeoutMs: number;
  /** Called with what happens on the way. */
  readonly onEvent?: (event: IngestEvent) => void;
}

export interface Drained {
  /** Ranges that were in doubt and are settled now, in the order in which they were. */
  readonly resolved: readonly Delivered[];
  /** Partitions this process was given, by their last assignment. */
  readonly given: readonly { readonly topic: string; readonly partition: number }[];
  /** Partitions that halted, and why. */
  readonly halted: readonly { readonly topic: string; readonly partition: number; readonly error: IngestError }[];
  readonly isLate: boolean;
}

const CLOSE_LIMIT_MS = 1000;

/**
 * @throws what a check before the start refuses, and what the source cannot go on after; `KCR_DRAIN_TIMEOUT` when the
 * servers had not answered those checks when time was up.
 */
export async function drain(config: CheckedConfig, { timeoutMs, onEvent }: DrainOptions): Promise<Drained> {
  const endMs = performance.now() + timeoutMs;
  const ports = await openInTime(config, timeoutMs);
  const progress = new DrainProgress(() => ports.source.drain());
  const outcomes = pipelineOf(ports, config, {
    onlyInDoubt: true,
    onEvent: (event) => {
      progress.event(event);
      onEvent?.(event);
    },
  });
  const time = timer(Math.max(0, endMs - performance.now()));
  let isLate = false;
  try {
    await lastValueFrom(
      outcomes.pipe(
        tap((outcome) => progress.outcome(outcome)),
        takeUntil(time.pipe(tap(() => (isLate = true)))),
      ),
      { defaultValue: undefined },
    );
  } finally {
    await within(ports.close(), CLOSE_LIMIT_MS);
  }
  return { ...progress.result, isLate };
}

async function openInTime(config: CheckedConfig, timeoutMs: number): Promise<OpenPorts> {
  const starting = new AbortController();
  const late = () =>
    starting.abort(
      new IngestError(
        'KCR_DRAIN_TIMEOUT',
        `The servers had not answered within ${timeoutMs / 1000} s: nothing was resolved`,
        {
          hint: 'look at them with "check"; then drain again',
        },
      ),
    );
  const limit = setTimeout(late, timeoutMs);
  try {
    return await openPorts(config, { signal: starting.signal });
  } finally {
    clearTimeout(limit);
  }
}

/** Sees when every partition of this process is through. Pure but for the call of `through`. */
export class DrainProgress {
  readonly #through: () => void;
  readonly #assignments = new Map<number, 'open' | 'over'>();
  readonly #given = new Map<string, { readonly topic: string; readonly partition: number }>();
  readonly #halted = new Map<string, Drained['halted'][number]>();
  readonly #resolved: Delivered[] = [];

  constructor(through: () => void) {
    this.#through = through;
  }

  get result(): Omit<Drained, 'isLate'> {
    return { resolved: this.#resolved, given: [...this.#given.values()], halted: [...this.#halted.values()] };
  }

  event(event: IngestEvent): void {
    // A generation that gives us nothing: the group has more members than partitions.
    if (event.kind === 'kafka')
      return event.fields['partitions'] === 0 && this.#assignments.size === 0 ? this.#through() : undefined;
    if (event.kind === 'tableChanged') return;
    const { assignmentId, topic, partition } = event.assignment;
    switch (event.kind) {
      case 'assigned':
        this.#assignments.set(assignmentId, 'open');
        this.#given.set(`${topic}/${partition}`, { topic, partition });
        this.#halted.delete(`${topic}/${partition}`);
        return;
      case 'finished':
        return this.#over(assignmentId);
      case 'lost':
      case 'released':
        // Given away before it was through: it will be assigned again, or to another member.
        this.#assignments.delete(assignmentId);
        return;
      default:
    }
  }

  outcome(outcome: Outcome): void {
    const { assignment } = outcome;
    if (outcome.kind === 'delivered') {
      if (outcome.replay) this.#resolved.push(outcome);
      return;
    }
    const { topic, partition, assignmentId } = assignment;
    this.#halted.set(`${topic}/${partition}`, { topic, partition, error: outcome.error });
    this.#over(assignmentId);
  }

  #over(assignmentId: number): void {
    this.#assignments.set(assignmentId, 'over');
    if ([...this.#assignments.values()].every((state) => state === 'over')) this.#through();
  }
}
