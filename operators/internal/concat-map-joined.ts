/**
 * A helper of reconcileWithState. `concatMap` over batches, of which those that wait for their turn become one.
 * Imports: model, rxjs, stages.
 */
import { EMPTY, concatMap, defer, tap, type Observable, type OperatorFunction } from 'rxjs';
import { joinBatches } from '../../src/model/batch.js';
import type { Batch } from '../../src/model/record.js';
import type { Cut } from '../../src/stages.js';

export interface JoinLimits {
  /** Records of a joined batch. */
  readonly count: number;
  /** Bytes (keys and values) of a joined batch. */
  readonly bytes: number;
}

type CutBatch = Batch & { readonly cut?: Cut };

/**
 * Runs one projection after the other, each over as many adjacent waiting batches as fit; `limits` of undefined: those
 * they were cut by.
 */
export function concatMapJoined<R>(
  project: (batch: Batch) => Observable<R>,
  limits?: JoinLimits,
): OperatorFunction<CutBatch, R> {
  return (batches) =>
    defer(() => {
      const waiting: CutBatch[] = [];
      return batches.pipe(
        tap((batch) => void waiting.push(batch)),
        // One turn for each batch that came; those whose batch went with an earlier one have nothing to do.
        concatMap(() => (waiting.length === 0 ? EMPTY : project(takeJoined(waiting, limits)))),
      );
    });
}

function takeJoined(waiting: CutBatch[], given: JoinLimits | undefined): Batch {
  const parts = [waiting.shift()!];
  const limits = given ?? parts[0]!.cut ?? { count: 0, bytes: 0 };
  let {
    bytes,
    records: { length: count },
  } = parts[0]!;
  for (let next = waiting[0]; next?.afterOffset === parts.at(-1)!.lastOffset; next = waiting[0]) {
    bytes += next.bytes;
    count += next.records.length;
    if (count > limits.count || bytes > limits.bytes) break;
    parts.push(next);
    waiting.shift();
  }
  return joinBatches(parts);
}
