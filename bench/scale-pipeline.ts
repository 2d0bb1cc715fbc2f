// Imports: the built library, since what runs TypeScript as it stands gives every function a property of its own. The
// pipeline of which the group is measured: the sink answers at once, the state is kept in memory.
import { of } from 'rxjs';
import type * as Library from '../src/index.js';
import type { KafkaSource } from '../src/kafka/source.js';
import type * as Scheduler from '../src/pipeline/fair-scheduler.js';
import type { InsertBatch, PreparingSink } from '../src/ports.js';
import { HEARTBEAT_MS } from './scale-requests.js';

const built = <M>(file: string): Promise<M> => import(new URL(`../dist/src/${file}`, import.meta.url).href);
const [{ kafkaSource, exactlyOnce, memoryStore }, { fairScheduler }] = await Promise.all([
  built<typeof Library>('index.js'),
  built<typeof Scheduler>('pipeline/fair-scheduler.js'),
]);

const sink: PreparingSink = {
  prepare: (batch: InsertBatch) => ({
    insert: () => of({ rows: batch.records.length, bytes: batch.bytes }),
    tokenDoubt: () => undefined,
    readBackWhenInDoubt: false,
    readBack: () => of({ missing: [], doubled: [] }),
    insertMissing: () => of({ rows: 0, bytes: 0 }),
    fill: () => of({ rows: 0, bytes: 0 }),
    release: () => undefined,
  }),
  describe: () => ({ tables: ['nowhere'], settings: '' }),
  close: async () => undefined,
};

export interface ScaleGroup {
  readonly brokers: readonly string[];
  readonly group: string;
  readonly owner: string;
  readonly topics: readonly string[];
}

export interface Counts {
  assigned: number;
  /** Partitions that were revoked or lost. */
  rebalanced: number;
  batches: number;
}

export interface Running {
  readonly source: KafkaSource;
  readonly counts: Counts;
  /** Settles when the pipeline does. */
  readonly ended: Promise<void>;
}

export function run({ brokers, group, owner, topics }: ScaleGroup, onAssigned: () => void = () => undefined): Running {
  const counts: Counts = { assigned: 0, rebalanced: 0, batches: 0 };
  const source = kafkaSource({
    brokers,
    groupId: group,
    topics,
    fromBeginning: true,
    heartbeatIntervalMs: HEARTBEAT_MS,
    log: tell,
  });
  const onEvent = ({ kind }: { readonly kind: string }): void => {
    if (kind === 'assigned') {
      counts.assigned++;
      onAssigned();
    }
    if (kind === 'revoked' || kind === 'lost') counts.rebalanced++;
  };
  const config = { group, owner, batch: { count: 1000, maxWaitMs: 1000 }, onEvent, scheduler: fairScheduler() };
  const ended = new Promise<void>((resolve, reject) => {
    exactlyOnce(source, sink, memoryStore(), config).subscribe({
      next: (outcome) => (outcome.kind === 'halted' ? reject(outcome.error) : (counts.batches += 1)),
      error: reject,
      complete: resolve,
    });
  });
  return { source, counts, ended };
}

function tell(level: string, message: string, fields: Readonly<Record<string, unknown>>): void {
  if (level === 'warn' || level === 'error') console.error(level, message, JSON.stringify(fields).slice(0, 300));
}
