/**
 * Which record batches of a fetch belong to aborted transactions. Pure: the algorithm of Kafka's Java consumer
 * (`CompletedFetch`), since kafkajs's own leaks aborted records when transactions interleave. Imports: nothing.
 */

export interface AbortedTransaction {
  readonly producerId: bigint;
  readonly firstOffset: number;
}

/** What the filter needs to know of a record batch. A batch is of one producer, and wholly in a transaction or not. */
export interface TransactionalBatch {
  readonly producerId: bigint;
  readonly lastOffset: number;
  readonly transactional: boolean;
  /** A control batch that ends a transaction by aborting it. */
  readonly abortMarker: boolean;
}

/**
 * A function to be asked for each batch of the fetch, in the order of the log: is it aborted? The broker lists the
 * aborted transactions by their last offset; they are taken up by their first.
 */
export function abortedFilter(transactions: readonly AbortedTransaction[]): (batch: TransactionalBatch) => boolean {
  if (transactions.length === 0) return () => false;
  const ahead = [...transactions].sort((a, b) => a.firstOffset - b.firstOffset);
  const producers = new Set<bigint>();
  let taken = 0;
  return (batch) => {
    for (let next = ahead[taken]; next !== undefined && next.firstOffset <= batch.lastOffset; next = ahead[++taken]) {
      producers.add(next.producerId);
    }
    if (batch.abortMarker) {
      producers.delete(batch.producerId);
      return false;
    }
    return batch.transactional && producers.has(batch.producerId);
  };
}
