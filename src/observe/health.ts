/**
 * Whether an ingestion lives and is ready, for those who restart processes and send them work. Pure. Imports: nothing.
 */
import type { IngestStatus } from './status.js';

export interface Health {
  readonly isGood: boolean;
  /** One sentence. */
  readonly why: string;
}

/**
 * A process that answers lives: ClickHouse away, a partition halted or Kafka away are no reasons to kill it, since a
 * restart only adds doubt. It is dead when its ingestion is over.
 */
export function liveness({ phase }: Pick<IngestStatus, 'phase'>): Health {
  return phase === 'over' ? { isGood: false, why: 'the ingestion is over' } : { isGood: true, why: `it is ${phase}` };
}

/** Not ready: while it starts or drains, and when every partition of it has halted. */
export function readiness({ phase, partitions }: Pick<IngestStatus, 'phase' | 'partitions'>): Health {
  if (phase !== 'running') return { isGood: false, why: `it is ${phase}` };
  const halted = partitions.filter((each) => each.halted !== undefined);
  if (partitions.length > 0 && halted.length === partitions.length)
    return { isGood: false, why: `all ${halted.length} partitions have halted` };
  return {
    isGood: true,
    why: halted.length === 0 ? 'it is running' : `${halted.length} of ${partitions.length} partitions have halted`,
  };
}
