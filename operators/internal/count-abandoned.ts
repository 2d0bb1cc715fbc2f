/**
 * A helper of at-most-once. Between its commit and its insert a batch is in no table and in no group's future: if the
 * partition ends then, it is lost. Imports: errors, events, model, rxjs.
 */
import { Observable, type OperatorFunction } from 'rxjs';
import { IngestError, asIngestError } from '../../src/errors.js';
import type { Delivered, IngestEvent, OnEvent } from '../../src/events.js';
import { indexAfter } from '../../src/model/batch.js';
import type { Batch } from '../../src/model/record.js';

/**
 * `deliver` over batches; when it ends by an error, or nobody waits for it any more, what has come in
 * committed and was neither delivered nor told as abandoned is told as `abandoned`. `deliver` is given the report to
 * use.
 *
 * In plain words: counts what fell off the belt.
 */
export function countAbandoned<
  T extends Batch & { readonly isCommitted?: true },
  D extends Pick<Delivered, 'lastOffset'>,
>(deliver: (onEvent: OnEvent) => OperatorFunction<T, D>, onEvent: OnEvent): OperatorFunction<T, D> {
  return (committed) =>
    new Observable<D>((subscriber) => {
      const waiting = new Waiting();
      const telling: OnEvent = (event) => {
        if (event.kind === 'abandoned') waiting.told(event);
        onEvent(event);
      };
      const tellRest = (error: IngestError): void => {
        for (const rest of waiting.take(error)) onEvent(rest);
      };
      const batches = new Observable<T>((inner) =>
        committed.subscribe({
          next: (batch) => {
            if (batch.isCommitted === true) waiting.add(batch);
            inner.next(batch);
          },
          error: (thrown: unknown) => inner.error(thrown),
          complete: () => inner.complete(),
        }),
      );
      const running = batches.pipe(deliver(telling)).subscribe({
        next: (delivered) => {
          waiting.delivered(delivered.lastOffset);
          subscriber.next(delivered);
        },
        error: (thrown: unknown) => {
          tellRest(asIngestError(thrown, 'KCR_INTERNAL', 'the pipeline of a partition threw'));
          subscriber.error(thrown);
        },
        complete: () => subscriber.complete(),
      });
      return () => {
        running.unsubscribe();
        tellRest(
          new IngestError(
            'KCR_INSERT_IN_DOUBT',
            'the partition was given up before the insert of what was committed had ended',
          ),
        );
      };
    });
}

type Abandoned = Extract<IngestEvent, { kind: 'abandoned' }>;

/** Batches that came in and of which no end is known, ascending. */
class Waiting {
  /** `toldFrom`: from this offset on it was told as abandoned, while those before it may still go on. */
  #batches: { readonly batch: Batch; toldFrom: number }[] = [];
  #deliveredUpTo = -Infinity;

  add(batch: Batch): void {
    this.#batches.push({ batch, toldFrom: batch.lastOffset + 1 });
  }

  delivered(lastOffset: number): void {
    this.#deliveredUpTo = lastOffset;
    while (this.#batches[0] !== undefined && this.#batches[0].batch.lastOffset <= lastOffset) this.#batches.shift();
  }

  /** What was told is the end of a batch, or all of several. */
  told({ first, last }: Abandoned): void {
    for (const waiting of this.#batches) {
      const { lastOffset } = waiting.batch;
      if (lastOffset >= first && lastOffset <= last) waiting.toldFrom = first;
    }
  }

  /** The rest, one event for each stretch: the first batch may have been inserted in part, and some may be told. */
  take(error: IngestError): readonly Abandoned[] {
    const stretches: Abandoned[] = [];
    for (const {
      batch: { assignment, afterOffset, records },
      toldFrom,
    } of this.#batches.splice(0)) {
      const after = Math.max(afterOffset, this.#deliveredUpTo);
      const last = toldFrom - 1;
      if (last <= after) continue;
      const rows = indexAfter(records, last) - indexAfter(records, after);
      const before = stretches.at(-1);
      const isNext = before?.last === after;
      if (isNext) stretches.pop();
      stretches.push({
        kind: 'abandoned',
        assignment,
        first: isNext ? before.first : after + 1,
        last,
        rows: rows + (isNext ? before.rows : 0),
        error,
      });
    }
    return stretches;
  }
}
