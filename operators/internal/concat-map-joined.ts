/**
 * Room: a helper of reconcileWithState. `concatMap` over batches, of which those that wait for their turn become one.
 * Only the model may enter.
 */
import { EMPTY, concatMap, defer, tap, type Observable, type OperatorFunction } from 'rxjs';
import { joinBatches } from '../../src/model/batch.js';
import type { Batch } from '../../src/model/record.js';

export interface JoinLimits {
  /** Records of a joined batch. */
  readonly count: number;
  /** Bytes (keys and values) of a joined batch. */
  readonly bytes: number;
}

/** Runs one projection after the other, each over as many adjacent waiting batches as fit; without limits, over one. */
export function concatMapJoined<R>(project: (batch: Batch) => Observable<R>, limits?: JoinLimits): OperatorFunction<Batch, R> {
  return (batches) =>
    defer(() => {
      const waiting: Batch[] = [];
      return batches.pipe(
        tap((batch) => void waiting.push(batch)),
        // One turn for each batch that came; those whose batch went with an earlier one have nothing to do.
        concatMap(() => (waiting.length === 0 ? EMPTY : project(takeJoined(waiting, limits)))),
      );
    });
}

function takeJoined(waiting: Batch[], limits: JoinLimits = { count: 0, bytes: 0 }): Batch {
  const parts = [waiting.shift()!];
  let { bytes, records: { length: count } } = parts[0]!;
  for (let next = waiting[0]; next?.afterOffset === parts.at(-1)!.lastOffset; next = waiting[0]) {
    bytes += next.bytes;
    count += next.records.length;
    if (count > limits.count || bytes > limits.bytes) break;
    parts.push(next);
    waiting.shift();
  }
  return joinBatches(parts);
}
