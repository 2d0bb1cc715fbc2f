// Subscribes to a source, keeps what it tells, and checks the contract of the port while it does.
import { setTimeout as sleep } from 'node:timers/promises';
import { firstValueFrom, from, type Subscription } from 'rxjs';
import { expect, onTestFinished } from 'vitest';
import { kafkaSource, type KafkaSource, type KafkaSourceOptions } from '../../src/kafka/source.js';
import type { Assignment, Chunk, KafkaRecord } from '../../src/model/record.js';
import type { LogEnds, Revoked, SourceEvent } from '../../src/ports.js';

const LIMIT_MS = 60_000;

export interface Behaviour {
  /** What to do with a revoked partition. @default releases at once */
  readonly onRevoked?: (event: Revoked, watch: Watch) => void;
  /** @default says of each chunk that it is done */
  readonly onChunk?: (chunk: Chunk, watch: Watch) => void;
  readonly onEvent?: (event: SourceEvent, watch: Watch) => void;
}

export interface LogLine {
  readonly level: string;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** For one test: at its end the subscription is ended, and the contract of the port must not have been breached. */
export function watchInTest(options: KafkaSourceOptions, behaviour: Behaviour = {}): Watch {
  const watching = new Watch(options, behaviour);
  onTestFinished(() => {
    watching.unsubscribe();
    expect(watching.breaches).toEqual([]);
  });
  return watching;
}

export class Watch {
  readonly source: KafkaSource;
  readonly events: SourceEvent[] = [];
  readonly log: LogLine[] = [];
  /** Breaches of the port's contract. */
  readonly breaches: string[] = [];
  error: Error | undefined;
  isComplete = false;
  readonly #behaviour: Behaviour;
  readonly #subscription: Subscription;
  readonly #state = new Map<number, { next: number | undefined; isOpen: boolean; isFailed: boolean }>();

  constructor(options: KafkaSourceOptions, behaviour: Behaviour = {}) {
    this.#behaviour = behaviour;
    this.source = kafkaSource({
      log: (level, message, fields) => this.log.push({ level, message, fields }),
      ...options,
    });
    this.#subscription = this.source.events.subscribe({
      next: (event) => this.#take(event),
      error: (error: Error) => (this.error = error),
      complete: () => (this.isComplete = true),
    });
  }

  #take(event: SourceEvent): void {
    this.events.push(event);
    this.#check(event);
    this.#behaviour.onEvent?.(event, this);
    if (event.kind === 'fetched') {
      if (this.#behaviour.onChunk) this.#behaviour.onChunk(event.chunk, this);
      else this.source.done(event.assignment, event.chunk.lastOffset);
    }
    if (event.kind === 'revoked') {
      if (this.#behaviour.onRevoked) this.#behaviour.onRevoked(event, this);
      else event.release();
    }
  }

  #check(event: SourceEvent): void {
    const { assignmentId, topic, partition } = event.assignment;
    const known = this.#state.get(assignmentId);
    const breach = (what: string) => this.breaches.push(`${topic}/${partition} epoch ${assignmentId}: ${what}`);
    if (event.kind === 'assigned') {
      if (known !== undefined) breach('assigned twice');
      if ([...this.#state.keys()].some((earlier) => earlier >= assignmentId)) breach('epoch does not grow');
      this.#state.set(assignmentId, { next: undefined, isOpen: true, isFailed: false });
      return;
    }
    if (known === undefined) return void breach(`${event.kind} before assigned`);
    if (event.kind === 'failed') {
      if (!known.isOpen || known.isFailed) breach('failed after its end');
      known.isFailed = true;
    } else if (event.kind === 'fetched') {
      const { chunk } = event;
      if (!known.isOpen || known.isFailed) breach('fetched after failed, revoked or lost');
      if (known.next !== undefined && chunk.afterOffset + 1 !== known.next)
        breach(`chunk begins at ${chunk.afterOffset + 1}, not at ${known.next}`);
      if (chunk.lastOffset <= chunk.afterOffset) breach('empty range');
      let last = chunk.afterOffset;
      for (const { offset } of chunk.records) {
        if (offset <= last || offset > chunk.lastOffset) breach(`offset ${offset} out of order or range`);
        last = offset;
      }
      known.next = chunk.lastOffset + 1;
    } else {
      if (event.kind === 'revoked' && !known.isOpen) breach('revoked twice');
      known.isOpen = false;
    }
  }

  /** After a seek the next chunk begins there. */
  async seek(assignment: Assignment, offset: number): Promise<void> {
    await firstValueFrom(from(this.source.seek(assignment, offset)), { defaultValue: undefined });
    const state = this.#state.get(assignment.assignmentId);
    if (state !== undefined) state.next = offset;
  }

  commit(assignment: Assignment, next: number, metadata?: string): Promise<void> {
    return firstValueFrom(from(this.source.commit(assignment, next, metadata)), { defaultValue: undefined });
  }

  commitOnce(assignment: Assignment, next: number, metadata = ''): Promise<void> {
    return firstValueFrom(from(this.source.commitOnce(assignment, next, metadata)), { defaultValue: undefined });
  }

  logEnds(assignment: Assignment): Promise<LogEnds> {
    return firstValueFrom(from(this.source.log(assignment)));
  }

  committed(assignment: Assignment): Promise<{ readonly next: number | undefined; readonly metadata: string }> {
    return firstValueFrom(from(this.source.committed(assignment)));
  }

  of<Kind extends SourceEvent['kind']>(kind: Kind): Extract<SourceEvent, { kind: Kind }>[] {
    return this.events.filter((event): event is Extract<SourceEvent, { kind: Kind }> => event.kind === kind);
  }

  get chunks(): Chunk[] {
    return this.of('fetched').map(({ chunk }) => chunk);
  }

  get records(): KafkaRecord[] {
    return this.chunks.flatMap(({ records }) => [...records]);
  }

  get values(): string[] {
    return this.records.map(({ value }) => value?.toString() ?? '');
  }

  /** The partitions that are ours now. */
  get owned(): Assignment[] {
    const gone = new Set(
      this.events
        .filter(({ kind }) => kind === 'revoked' || kind === 'lost')
        .map(({ assignment }) => assignment.assignmentId),
    );
    return this.of('assigned')
      .map(({ assignment }) => assignment)
      .filter(({ assignmentId }) => !gone.has(assignmentId));
  }

  /** Fails with what the source said when it never comes true. */
  async until(condition: (watch: this) => boolean, limitMs = LIMIT_MS): Promise<void> {
    for (const deadline = Date.now() + limitMs; !condition(this); await sleep(10)) {
      if (this.error !== undefined) throw this.error;
      if (Date.now() > deadline)
        throw new Error(`It did not come true within ${limitMs} ms: ${condition.toString()}\n${this.#summary()}`);
    }
  }

  #summary(): string {
    const told = this.events.map(
      (event) =>
        `${event.kind} ${event.assignment.partition}${event.kind === 'fetched' ? ` to ${event.chunk.lastOffset}` : ''}`,
    );
    return [...told.slice(-20), `${this.records.length} records in all`, ...this.lines.slice(-30)].join('\n');
  }

  /** What the source wrote to its log, details left out. */
  get lines(): string[] {
    return this.log.filter(({ level }) => level !== 'debug').map((line) => JSON.stringify(line));
  }

  unsubscribe(): void {
    this.#subscription.unsubscribe();
  }
}
