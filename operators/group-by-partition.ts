/**
 * Stage 2 of 6: groupByPartition. The lifetimes: one inner stream for each tenure of a partition. Only ports and the
 * model may enter.
 */
import { EMPTY, Observable, Subject, defer, from, type ObservableInput, type OperatorFunction, type Subscriber, type Subscription } from 'rxjs';
import { IngestError, asIngestError, hasCode, mayHeal } from '../src/errors.js';
import { noReport, type Halted, type Report } from '../src/events.js';
import type { Assignment, Chunk } from '../src/model/record.js';
import type { RecordSource, SourceEvent } from '../src/ports.js';

/** One tenure of one partition. */
export interface PartitionStream {
  readonly assignment: Assignment;
  /** Hot: subscribe to it when the project is called. Completes when the partition is revoked. */
  readonly chunks: Observable<Chunk>;
}

/** What a project emits: it must say how far it has got, so that the source may fetch on. */
export interface Covered {
  readonly lastOffset: number;
}

export interface HealConfig {
  /** Before a partition that has halted is begun anew for the first time, milliseconds. @default 10000 */
  readonly minDelayMs?: number;
  /** The wait doubles from halt to halt up to this, until a batch is delivered again, milliseconds. @default 300000 */
  readonly maxDelayMs?: number;
}

export interface GroupByPartitionConfig {
  /**
   * A partition that halts for what can be mended from outside (rights, settings, a table, a server) is begun anew after a
   * while; `false`: it stays halted, like one that halts for a record. @default {}
   */
  readonly heal?: HealConfig | false;
  /**
   * Called when a partition halts, before what it has under way is discarded; `heals`: it is begun anew by itself, here or
   * by its next owner. Until the result ends the partition is neither released nor begun
   * anew, so it must end soon; what it emits and its error are ignored. It is unsubscribed when the partition is lost. For
   * `Ledger.halt`. @default nothing is done
   */
  readonly onHalt?: (halted: Halted, heals: boolean) => ObservableInput<unknown>;
  readonly report?: Report;
}

/**
 * Runs `project` once for each tenure of a partition and merges what comes of them. There is no limit on how many run
 * at once, since a limit would starve partitions; inserts are limited in the sink.
 *
 * In plain words: every partition gets a pipeline of its own, which lives as long as the partition is ours.
 *
 * ```
 * events:  -A-B-a-x-b-R---y-L-|     A, B: partitions 1 and 2 are assigned; a, b: chunks of 1; x, y: chunks of 2
 *          groupByPartition(source, p => p.chunks.pipe(concatMap(insert)))      an insert takes four frames
 *          ---------a-x-b-----|     R: 1 is revoked, b is finished, then the source is released
 *                                   L: 2 is lost, y is discarded
 * ```
 *
 * - **revoked**: `chunks` completes; when the inner stream has completed too, the source is released.
 * - **lost**: the inner stream is unsubscribed at once, before any later tenure of the partition begins.
 * - **error** of an inner stream: its partition halts. `{ kind: 'halted', assignment, error }` is emitted, no more of
 *   the partition is fetched, the others go on. Nothing was skipped: the next owner begins at the same record. For what
 *   can be mended from outside it is begun anew after a while (`heal`), told by `healsInMs`.
 *   An error that says the partition is somebody else's (`KCR_FENCED`) only discards the tenure, and the source is
 *   asked to renew it, should the group still say it is ours.
 * - **failed**: the source cannot go on with the partition; it halts likewise.
 * - every value `project` emits returns its bytes to the source's budget, so emit one for each batch.
 */
export function groupByPartition<T extends Covered>(
  source: Pick<RecordSource, 'done' | 'halt' | 'renew'>,
  project: (partition: PartitionStream) => ObservableInput<T>,
  config: GroupByPartitionConfig = {},
): OperatorFunction<SourceEvent, T | Halted> {
  const { report = noReport, heal = {}, onHalt = () => EMPTY } = config;
  return (events) =>
    new Observable<T | Halted>((subscriber) => {
      const tenures = new Tenures(source, project, { report, heal, onHalt }, subscriber);
      const outer = events.subscribe({
        next: (event) => tenures.on(event),
        error: (error: unknown) => subscriber.error(error),
        complete: () => tenures.completeAll(),
      });
      return () => {
        outer.unsubscribe();
        tenures.discardAll();
      };
    });
}

interface Tenure {
  readonly assignment: Assignment;
  readonly chunks: Subject<Chunk>;
  /** The project has subscribed to its chunks, be it that it has left them since. */
  isHeard: boolean;
  inner?: Subscription;
  release?: () => void;
  /** Of its halt. */
  note?: Subscription;
  isOver: boolean;
}

class Tenures<T extends Covered> {
  readonly #open = new Map<number, Tenure>();
  /** How often partitions have halted without a batch being delivered since, by their names. */
  readonly #halts = new Map<string, number>();
  /** Tenures that have halted, until `onHalt` has ended. */
  readonly #halting = new Map<number, Tenure>();
  #isSourceDone = false;

  constructor(
    private readonly source: Pick<RecordSource, 'done' | 'halt' | 'renew'>,
    private readonly project: (partition: PartitionStream) => ObservableInput<T>,
    private readonly config: Required<GroupByPartitionConfig>,
    private readonly subscriber: Subscriber<T | Halted>,
  ) {}

  on(event: SourceEvent): void {
    const tenure = this.#open.get(event.assignment.epoch);
    if (event.kind !== 'fetched') this.config.report({ kind: event.kind, assignment: event.assignment });
    switch (event.kind) {
      case 'assigned':
        return this.#begin(event.assignment);
      case 'fetched':
        return tenure === undefined ? undefined : this.#deliver(tenure, event.chunk);
      case 'failed':
        return tenure === undefined ? undefined : this.#halt(tenure, event.error);
      case 'revoked':
        return tenure === undefined ? this.#revokeHalted(event.assignment.epoch, event.release) : this.#finish(tenure, event.release);
      case 'lost':
        if (tenure !== undefined) this.#discard(tenure);
        this.#endHalting(event.assignment.epoch);
        return this.#completeWhenEmpty();
    }
  }

  completeAll(): void {
    this.#isSourceDone = true;
    for (const tenure of [...this.#open.values()]) {
      // One that is being revoked keeps its release: the source may still wait for it.
      if (tenure.release === undefined) this.#finish(tenure, () => undefined);
    }
    this.#completeWhenEmpty();
  }

  discardAll(): void {
    for (const tenure of [...this.#open.values()]) this.#discard(tenure);
    for (const epoch of [...this.#halting.keys()]) this.#endHalting(epoch);
  }

  #begin(assignment: Assignment): void {
    const tenure: Tenure = { assignment, chunks: new Subject(), isHeard: false, isOver: false };
    this.#open.set(assignment.epoch, tenure);
    const chunks = defer(() => {
      tenure.isHeard = true;
      return tenure.chunks;
    });
    const inner$ = new Observable<T>((inner) => from(this.project({ assignment, chunks })).subscribe(inner));
    const inner = inner$.subscribe({
      next: (value) => {
        if (tenure.isOver) return;
        this.source.done(assignment, value.lastOffset);
        this.#healed(assignment);
        this.subscriber.next(value);
      },
      error: (thrown: unknown) => this.#halt(tenure, thrown),
      complete: () => {
        const isByItself = tenure.release === undefined && !tenure.isOver;
        if (isByItself) this.source.halt(assignment);
        this.#end(tenure);
        if (isByItself) this.config.report({ kind: 'finished', assignment });
      },
    });
    tenure.inner = inner;
    if (tenure.isOver) inner.unsubscribe();
  }

  #deliver(tenure: Tenure, chunk: Chunk): void {
    if (tenure.release !== undefined) return;
    if (tenure.chunks.observed) return tenure.chunks.next(chunk);
    // A pipeline that has left its chunks, by an error or of its own will, finishes what it took and wants no more.
    if (tenure.isHeard) return this.source.halt(tenure.assignment);
    this.#halt(tenure, new IngestError('KCR_INTERNAL', 'the project has not subscribed to its chunks', {
      ...tenure.assignment,
      hint: 'subscribe to partition.chunks when the project is called; chunks are not kept for later',
    }));
  }

  #finish(tenure: Tenure, release: () => void): void {
    tenure.release = release;
    tenure.chunks.complete();
  }

  #halt(tenure: Tenure, thrown: unknown): void {
    const { assignment } = tenure;
    if (tenure.isOver) return;
    const error = asIngestError(thrown, 'KCR_INTERNAL', 'the pipeline of a partition threw', assignment);
    this.source.halt(assignment);
    if (hasCode(error, 'KCR_FENCED')) {
      this.#discard(tenure);
      this.#release(tenure);
      // Is it ours nevertheless, somebody must claim it again: a claim that came late belongs to a process that is gone.
      if (tenure.release === undefined) this.source.renew(assignment);
      return this.#completeWhenEmpty();
    }
    const healsInMs = this.#healsIn(error, tenure);
    const halted: Halted = { kind: 'halted', assignment, error, ...(healsInMs === undefined ? {} : { healsInMs }) };
    this.#halting.set(assignment.epoch, tenure);
    let isToldOrNoted = false;
    const afterBoth = () => {
      const isFirst = !isToldOrNoted;
      isToldOrNoted = true;
      if (isFirst || !this.#halting.delete(assignment.epoch)) return;
      const isRevoked = tenure.release !== undefined;
      this.#release(tenure);
      if (healsInMs !== undefined && !isRevoked) this.source.renew(assignment, healsInMs);
      this.#completeWhenEmpty();
    };
    // Before the discard: what it writes comes behind a write that is under way, which would be given up otherwise.
    tenure.note = defer(() => from(this.config.onHalt(halted, healsInMs !== undefined))).subscribe({ error: afterBoth, complete: afterBoth });
    this.#discard(tenure);
    // Told before the release, which may let the source complete: after that nothing can be told.
    this.subscriber.next(halted);
    afterBoth();
  }

  /** Released only when it has been noted that it halted; nothing of it is left to finish. */
  #revokeHalted(epoch: number, release: () => void): void {
    const tenure = this.#halting.get(epoch);
    if (tenure === undefined) return release();
    tenure.release = release;
  }

  #endHalting(epoch: number): void {
    const tenure = this.#halting.get(epoch);
    this.#halting.delete(epoch);
    tenure?.note?.unsubscribe();
  }

  #healsIn(error: IngestError, { assignment, release }: Tenure): number | undefined {
    const { heal } = this.config;
    if (heal === false || !mayHeal(error)) return undefined;
    if (release !== undefined) return 0;
    const { minDelayMs = 10_000, maxDelayMs = 300_000 } = heal;
    const halts = this.#halts.get(nameOf(assignment)) ?? 0;
    this.#halts.set(nameOf(assignment), halts + 1);
    return Math.min(maxDelayMs, minDelayMs * 2 ** Math.min(halts, 30));
  }

  #healed(assignment: Assignment): void {
    const attempts = this.#halts.get(nameOf(assignment));
    if (attempts === undefined) return;
    this.#halts.delete(nameOf(assignment));
    this.config.report({ kind: 'healed', assignment, attempts });
  }

  /** The inner stream completed by itself. */
  #end(tenure: Tenure): void {
    if (tenure.isOver) return;
    tenure.isOver = true;
    this.#open.delete(tenure.assignment.epoch);
    this.#release(tenure);
    this.#completeWhenEmpty();
  }

  #release({ assignment, release }: Tenure): void {
    if (release === undefined) return;
    release();
    this.config.report({ kind: 'released', assignment });
  }

  #discard(tenure: Tenure): void {
    tenure.isOver = true;
    this.#open.delete(tenure.assignment.epoch);
    tenure.inner?.unsubscribe();
  }

  #completeWhenEmpty(): void {
    if (this.#isSourceDone && this.#open.size + this.#halting.size === 0) this.subscriber.complete();
  }
}

function nameOf({ topic, partition }: Assignment): string {
  return `${topic}/${partition}`;
}
