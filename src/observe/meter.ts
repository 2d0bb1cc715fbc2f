/**
 * What an ingestion does at this moment, kept up to date from its events, its outcomes and the calls of its ports. One
 * meter an ingestion; status, metrics and the page read it. Imports: errors, events, model, ports.
 */
import type { IngestError } from '../errors.js';
import type { IngestEvent, Outcome } from '../events.js';
import type { Assignment } from '../model/record.js';
import { partitionName } from '../model/partition-name.js';
import type { InsertBatch } from '../ports.js';
import { notice, type Notice, type Noteworthy } from './notice.js';
import { Notices } from './notices.js';
import { Rate } from './rate.js';
import { RecentDurations } from './recent-durations.js';
import { countEvent, countOutcome, noTotals, type Totals } from './totals.js';

/** A call of a port that takes its time. */
export type Call = 'claim' | 'write' | 'insert' | 'readBack' | 'fill' | 'commit';

/** `starting`: the checks are under way. `draining`: nothing new is taken. `over`: the outcomes have ended. */
export type Phase = 'starting' | 'running' | 'draining' | 'over';

/** A batch on its way into the table. */
export interface OpenBatch {
  /** When its range was recorded, or else when it was prepared, milliseconds since the epoch. */
  readonly sinceMs: number;
  /** Of its last record, milliseconds since the epoch; undefined: it has none. */
  readonly lastTimestampMs: number | undefined;
  /** An attempt at it was not answered as it should be, or a former process left it so. */
  isInDoubt: boolean;
}

/** What is known of one partition while it is assigned. */
export interface PartitionFacts {
  readonly assignment: Assignment;
  readonly since: number;
  /** The last offset that is settled (exactly-once) or delivered. */
  doneUpTo: number | undefined;
  /** The next offset, as the group has it. */
  committed: number | undefined;
  /** Ranges that are recorded and not settled. */
  pending: number;
  /** By their last offset. */
  readonly open: Map<number, OpenBatch>;
  /** Calls that are under way. */
  readonly calls: Map<Call, number>;
  readonly rows: Rate;
  /** Of the last record that was delivered, milliseconds since the epoch. */
  lastTimestampMs: number | undefined;
  isDraining: boolean;
  halted: HaltFacts | undefined;
}

export interface HaltFacts {
  readonly error: IngestError;
  readonly sinceMs: number;
  readonly healsInMs: number | undefined;
}

/** Called with the duration and the end of each call of a port. */
export interface CallEnd {
  readonly call: Call;
  readonly topic: string;
  readonly partition: number;
  readonly seconds: number;
  readonly error: IngestError | undefined;
}

/** What may be listened to. Called synchronously; must not throw. */
export interface MeterListener {
  /** Something happened on the way. */
  event?(event: IngestEvent): void;
  /** A batch was delivered, or a partition halted. */
  outcome?(outcome: Outcome): void;
  /** A call to a server has ended, well or not. */
  call?(end: CallEnd): void;
  /** A batch is about to be inserted; again with each attempt where the sink is one function. */
  batch?(batch: InsertBatch): void;
  /**
   * Something was noted for people: an event beyond ordinary life, or a halt; with its count when it was noted before.
   */
  noted?(notice: Notice): void;
}

/** Ordinary life is not noted. */
const ordinary: ReadonlySet<string> = new Set(['stateWritten', 'filtered', 'released', 'claimed']);

export class Meter {
  startedAtMs: number;
  phase: Phase = 'starting';
  readonly totals: Totals = noTotals();
  readonly rows: Rate;
  readonly bytes: Rate;
  /** How long the last inserts took, seconds. */
  readonly inserts = new RecentDurations();
  /** Words, not events: those hold on to what was fetched. */
  readonly #notices = new Notices();
  readonly #listeners = new Set<MeterListener>();
  readonly #now: () => number;
  readonly #partitions = new Map<number, PartitionFacts>();
  readonly #current = new Map<string, PartitionFacts>();
  /** Halts outlive their assignment while the partition waits to be tried again. */
  readonly #halts = new Map<string, HaltFacts>();

  /** `now`: milliseconds since the epoch. */
  constructor(now: () => number = Date.now) {
    this.#now = now;
    this.startedAtMs = now();
    this.rows = new Rate(this.startedAtMs);
    this.bytes = new Rate(this.startedAtMs);
  }

  get nowMs(): number {
    return this.#now();
  }

  /** The last hundred, oldest first. */
  get noted(): readonly Notice[] {
    return this.#notices.all;
  }

  get partitions(): Iterable<PartitionFacts> {
    return this.#partitions.values();
  }

  /** Gives what ends it. */
  listen(listener: MeterListener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  find(topic: string, partition: number): PartitionFacts | undefined {
    return this.#current.get(partitionName({ topic, partition }));
  }

  event(event: IngestEvent): void {
    countEvent(this.totals, event);
    if (!ordinary.has(event.kind)) this.#note(event);
    if ('assignment' in event) this.#ofPartition(event);
    for (const listener of this.#listeners) listener.event?.(event);
  }

  #ofPartition(event: Exclude<IngestEvent, { kind: 'kafka' | 'tableChanged' }>): void {
    const { assignment } = event;
    if (event.kind === 'assigned') return this.#assigned(assignment);
    const facts = this.#partitions.get(assignment.assignmentId);
    if (facts === undefined) return;
    switch (event.kind) {
      case 'claimed':
        facts.doneUpTo = event.settled ?? facts.doneUpTo;
        facts.pending = event.inDoubt;
        return;
      case 'stateWritten':
        facts.pending = event.pending;
        return;
      case 'retry':
        if (event.error.code === 'KCR_INSERT_IN_DOUBT') for (const batch of facts.open.values()) batch.isInDoubt = true;
        return;
      case 'revoked':
        facts.isDraining = true;
        return;
      case 'healed':
        this.#halts.delete(partitionName(assignment));
        facts.halted = undefined;
        return;
      case 'released':
      case 'lost':
        this.#partitions.delete(assignment.assignmentId);
        if (this.#current.get(partitionName(assignment)) === facts) this.#current.delete(partitionName(assignment));
        if (event.kind === 'released') this.#halts.delete(partitionName(assignment));
        return;
      default:
    }
  }

  #assigned(assignment: Assignment): void {
    if (this.phase === 'starting') this.phase = 'running';
    const since = this.#now();
    const facts: PartitionFacts = {
      assignment,
      since,
      doneUpTo: assignment.startOffset - 1,
      committed: assignment.committed,
      pending: 0,
      open: new Map(),
      calls: new Map(),
      rows: new Rate(since),
      lastTimestampMs: undefined,
      isDraining: false,
      halted: this.#halts.get(partitionName(assignment)),
    };
    this.#partitions.set(assignment.assignmentId, facts);
    this.#current.set(partitionName(assignment), facts);
  }

  outcome(outcome: Outcome): void {
    countOutcome(this.totals, outcome);
    const nowMs = this.#now();
    const facts = this.#partitions.get(outcome.assignment.assignmentId);
    if (outcome.kind === 'halted') {
      const halt = { error: outcome.error, sinceMs: nowMs, healsInMs: outcome.healsInMs };
      this.#halts.set(partitionName(outcome.assignment), halt);
      if (facts !== undefined) facts.halted = halt;
      this.#note(outcome);
    } else {
      this.rows.add(outcome.rows, nowMs);
      this.bytes.add(outcome.bytes, nowMs);
      if (facts !== undefined) {
        facts.rows.add(outcome.rows, nowMs);
        this.#delivered(facts, outcome.lastOffset);
      }
    }
    for (const listener of this.#listeners) listener.outcome?.(outcome);
  }

  /** Whoever delivers has not halted, whoever mended it. */
  #delivered(facts: PartitionFacts, lastOffset: number): void {
    facts.doneUpTo = lastOffset;
    for (const [last, { lastTimestampMs }] of facts.open) {
      if (last > lastOffset) continue;
      facts.lastTimestampMs = lastTimestampMs ?? facts.lastTimestampMs;
      facts.open.delete(last);
    }
    this.#halts.delete(partitionName(facts.assignment));
    facts.halted = undefined;
  }

  /** A batch is about to be inserted. */
  batch(batch: InsertBatch): void {
    for (const listener of this.#listeners) listener.batch?.(batch);
  }

  /** A call begins; what it gives is called once when it ends. */
  call(call: Call, topic: string, partition: number): (error?: IngestError) => void {
    const facts = this.find(topic, partition);
    const startedMs = performance.now();
    count(facts, call, 1);
    return (error) => {
      count(facts, call, -1);
      const seconds = (performance.now() - startedMs) / 1000;
      if (call === 'insert') this.inserts.add(seconds, this.#now());
      for (const listener of this.#listeners) listener.call?.({ call, topic, partition, seconds, error });
    };
  }

  /** A subscription begins; totals go on. */
  begin(): void {
    this.phase = 'starting';
    this.startedAtMs = this.#now();
  }

  drain(): void {
    if (this.phase !== 'over') this.phase = 'draining';
  }

  end(): void {
    this.phase = 'over';
    this.#partitions.clear();
    this.#current.clear();
  }

  #note(event: Noteworthy): void {
    const noted = this.#notices.add(notice(event, this.#now()));
    for (const listener of this.#listeners) listener.noted?.(noted);
  }
}

function count(facts: PartitionFacts | undefined, call: Call, change: 1 | -1): void {
  if (facts !== undefined) facts.calls.set(call, (facts.calls.get(call) ?? 0) + change);
}
