/**
 * The contract of a source. Imports: model, ports, rxjs.
 */
import { from, lastValueFrom, type Subscription } from 'rxjs';
import type { Assignment } from '../../model/record.js';
import type { Assigned, Fetched, RecordSource, SourceEvent } from '../../ports.js';
import { expectFailure, expectSame, expectThat, until, valueOf, type ContractCheck } from './check.js';

/** How long the contract waits. */
export interface SourceContractConfig {
  /** How long a source may take until it tells what is waited for, milliseconds. @default 5000 */
  readonly patienceMs?: number;
}

/** Your source, opened as often as the contract needs it. */
export interface SourceUnderTest {
  /** A source over the same records, which begins where the one before it has committed. */
  open(): RecordSource;
}

/** What a source told, in order. */
class Listener {
  readonly events: SourceEvent[] = [];
  isComplete = false;
  error: unknown;
  readonly #subscription: Subscription;

  constructor(
    readonly source: RecordSource,
    readonly patienceMs: number,
  ) {
    this.#subscription = source.events.subscribe({
      next: (event) => this.events.push(event),
      error: (error: unknown) => (this.error = error),
      complete: () => (this.isComplete = true),
    });
  }

  of<K extends SourceEvent['kind']>(kind: K): Extract<SourceEvent, { readonly kind: K }>[] {
    return this.events.filter((event): event is Extract<SourceEvent, { readonly kind: K }> => event.kind === kind);
  }

  get chunks(): readonly Fetched[] {
    return this.of('fetched');
  }

  until(what: string, holds: () => boolean): Promise<void> {
    return until(what, holds, this.patienceMs);
  }

  /** The first assignment of which a record came. */
  async first(): Promise<{ readonly assignment: Assignment; readonly chunk: Fetched['chunk'] }> {
    await this.until('a chunk was delivered', () => this.error !== undefined || this.chunks.length > 0);
    if (this.error !== undefined) throw this.error as Error;
    return this.chunks[0]!;
  }

  leave(): void {
    this.#subscription.unsubscribe();
  }
}

/**
 * Checks for `make`, which gives sources over records of which at least three can be had: more than one offset in some
 * partition.
 */
export function recordSourceContract(
  make: () => SourceUnderTest | Promise<SourceUnderTest>,
  { patienceMs = 5_000 }: SourceContractConfig = {},
): readonly ContractCheck[] {
  const check = (name: string, run: (listen: () => Listener) => Promise<void>): ContractCheck => ({
    name,
    run: async () => {
      const under = await make();
      const listeners: Listener[] = [];
      try {
        await run(() => {
          const listener = new Listener(under.open(), patienceMs);
          listeners.push(listener);
          return listener;
        });
      } finally {
        for (const listener of listeners) listener.leave();
      }
    },
  });
  return [...telling(check), ...asking(check)];
}

type Check = (name: string, run: (listen: () => Listener) => Promise<void>) => ContractCheck;

function telling(check: Check): readonly ContractCheck[] {
  return [
    check('a partition is assigned before its chunks come, under an epoch that grows', async (listen) => {
      const listener = listen();
      await listener.first();
      const open = new Set<number>();
      let last = -Infinity;
      for (const event of listener.events) {
        if (event.kind === 'assigned') {
          expectThat(
            event.assignment.assignmentId > last,
            `epoch ${event.assignment.assignmentId} came behind ${last}`,
          );
          last = event.assignment.assignmentId;
          open.add(last);
        }
        if (event.kind === 'fetched')
          expectThat(
            open.has(event.assignment.assignmentId),
            `a chunk came under epoch ${event.assignment.assignmentId}, which was not assigned`,
          );
      }
    }),
    check(
      'chunks of an assignment are contiguous from its start on, with records that ascend within their range',
      async (listen) => {
        const listener = listen();
        await listener.until(
          'two chunks or three records were delivered',
          () =>
            listener.error !== undefined ||
            listener.chunks.length > 1 ||
            (listener.chunks[0]?.chunk.records.length ?? 0) > 2,
        );
        const next = new Map(
          listener.of('assigned').map(({ assignment }: Assigned) => [assignment.assignmentId, assignment.startOffset]),
        );
        for (const { assignment, chunk } of listener.chunks) {
          expectSame(chunk.afterOffset + 1, next.get(assignment.assignmentId), 'where a chunk begins');
          let before = chunk.afterOffset;
          for (const { offset } of chunk.records) {
            expectThat(
              offset > before && offset <= chunk.lastOffset,
              `offset ${offset} is behind ${before}, in a chunk of ${chunk.afterOffset + 1}-${chunk.lastOffset}`,
            );
            before = offset;
          }
          next.set(assignment.assignmentId, chunk.lastOffset + 1);
        }
      },
    ),
    check('nothing is told any more once it is unsubscribed from', async (listen) => {
      const listener = listen();
      await listener.first();
      listener.leave();
      const told = listener.events.length;
      await new Promise((resolve) => setTimeout(resolve, 50));
      expectSame(listener.events.length, told, 'events told');
    }),
  ];
}

function asking(check: Check): readonly ContractCheck[] {
  return [
    check('the next one begins where was committed', async (listen) => {
      const listener = listen();
      const { assignment, chunk } = await listener.first();
      const nextOffset = chunk.afterOffset + 2;
      await done(listener.source.commit(assignment, nextOffset));
      listener.leave();
      const heir = listen();
      const isIt = (event: Assigned) =>
        event.assignment.topic === assignment.topic && event.assignment.partition === assignment.partition;
      await heir.until('the next one was assigned the partition', () => heir.of('assigned').some(isIt));
      expectSame(heir.of('assigned').find(isIt)?.assignment.startOffset, nextOffset, 'where it begins');
    }),
    check('a commit under an assignment that is over fails with KCR_FENCED', async (listen) => {
      const listener = listen();
      const { assignment, chunk } = await listener.first();
      listener.leave();
      await expectFailure(
        () => listener.source.commit(assignment, chunk.lastOffset + 1),
        'KCR_FENCED',
        'a commit after it has left',
      );
    }),
    check('where it can seek, the next chunk begins there', async (listen) => {
      const listener = listen();
      const { assignment, chunk } = await listener.first();
      if (listener.source.seek === undefined) return;
      const before = listener.chunks.length;
      const offset = chunk.afterOffset + 2;
      await done(listener.source.seek(assignment, offset));
      const next = () =>
        listener.chunks
          .slice(before)
          .find(
            (event) =>
              event.assignment.assignmentId === assignment.assignmentId && event.chunk.afterOffset + 1 === offset,
          );
      await listener.until('a chunk began where it was sent to', () => next() !== undefined);
    }),
    check('where it drains, partitions are revoked, and it completes once they are released', async (listen) => {
      const listener = listen();
      await listener.first();
      if (listener.source.drain === undefined) return;
      listener.source.drain();
      await listener.until(
        'every assignment was revoked',
        () => listener.of('revoked').length === listener.of('assigned').length,
      );
      expectThat(!listener.isComplete, 'it completed before it was released');
      for (const { release } of listener.of('revoked')) release();
      await listener.until('it completed', () => listener.isComplete);
    }),
    check('where it tells its cluster and its log, the log holds what was delivered', async (listen) => {
      const listener = listen();
      const { assignment, chunk } = await listener.first();
      const { source } = listener;
      if (source.cluster !== undefined)
        expectThat((await valueOf(source.cluster())).length > 0, 'the cluster has no name');
      if (source.log === undefined) return;
      const { start, end } = await valueOf(source.log(assignment));
      expectThat(
        start <= chunk.afterOffset + 1 && end > chunk.lastOffset,
        `the log holds ${start} up to ${end}, and ${chunk.afterOffset + 1}-${chunk.lastOffset} was delivered`,
      );
    }),
  ];
}

/** Calls of a source may end without a value. */
async function done(call: ReturnType<RecordSource['commit']>): Promise<void> {
  await lastValueFrom(from(call), { defaultValue: undefined });
}
