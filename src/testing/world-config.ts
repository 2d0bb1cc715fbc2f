/**
 * What is said of a simulated world and of the lives in it, and what a pipeline is given. Types only.
 * Imports: model, ports, rxjs.
 */
import type { SchedulerLike } from 'rxjs';
import type { KafkaRecord } from '../model/record.js';
import type { GroupSource, PreparingSink, StateStore } from '../ports.js';
import type { Fault } from './faults.js';
import type { SimulatedLog } from './log.js';
import type { Pace } from './process.js';
import type { Ignored } from './sink.js';
import type { TableConfig } from './table.js';

export interface WorldConfig {
  /** @default 'simulated' */
  readonly topic?: string;
  /** Records that each partition begins with; more come by `log.produce`. @default [10] */
  readonly partitions?: readonly number[];
  /** The topic, where it is more than records and holes. @default an empty one */
  readonly log?: SimulatedLog;
  readonly table?: TableConfig;
  /** Rows that a record becomes, where a transform drops or multiplies records. @default one */
  readonly rowsOf?: (record: KafkaRecord) => number;
  /** A call's way to the server and back, milliseconds. @default 4 */
  readonly latencyMs?: number;
  /** Between two fetches, milliseconds. @default 3 */
  readonly fetchMs?: number;
  /** After which the group gives up a member that is dead or frozen, milliseconds. @default 30 */
  readonly sessionMs?: number;
  /** For how long a rebalance waits for partitions to be released, milliseconds. @default 60 */
  readonly drainMs?: number;
  /** How long inserts wait at the server for others, milliseconds, where a life lets them wait. @default 10 */
  readonly coalesceMs?: number;
  /** When the request of a process that died lands that was to land late, milliseconds. @default 100 */
  readonly lateMs?: number;
  /** Told what happens, line by line. */
  readonly tell?: (line: string) => void;
  /** @default asyncScheduler, which RxJS's `TestScheduler` turns to virtual time in its run mode */
  readonly scheduler?: SchedulerLike;
  /** Decides when a step takes place instead of time. */
  readonly pace?: Pace;
}

/** One life of one process. */
export interface Life {
  /** What goes wrong in it. @default nothing */
  readonly faults?: readonly Fault[];
  /** Records that a fetch brings at most: other sizes, other cuts. @default 3 */
  readonly chunkSize?: number;
  /**
   * Offsets that may have been delivered and not be done, all partitions together: the source's budget. @default
   * Infinity
   */
  readonly room?: number;
  /** As of `exactlyOnce`; the source jumps behind what retention took under `continue`. @default 'halt' */
  readonly onGap?: 'halt' | 'continue';
  /**
   * As of `exactlyOnce`; the source waits for a seek where its offset is beyond the log, under `restart`. @default
   * 'halt'
   */
  readonly onReset?: 'halt' | 'restart';
  /** Rows of a block that the table makes of this process's inserts, as unpinned settings would. @default Infinity */
  readonly blockRows?: number;
  /** Inserts of up to four rows wait at the server for others, as with `insertMode: 'coalesced'`. @default false */
  readonly asyncInserts?: boolean;
  /**
   * Takes what several inserts were refused for together for what is wrong with each, as our sink does not. @default
   * false
   */
  readonly isCredulous?: boolean;
  /** What a look into the table does not mind, as our sink does. @default nothing */
  readonly ignores?: Ignored;
}

/** What a pipeline is given: the ports of one process, and its clock. */
export interface Process {
  /** Unique in its world: `a`, `b`, … */
  readonly name: string;
  readonly source: GroupSource;
  readonly store: StateStore;
  readonly sink: PreparingSink;
  /** Stands still while the process is frozen. Give it to the pipeline when it is not run by a `TestScheduler`. */
  readonly scheduler: SchedulerLike;
  /** As by SIGKILL. */
  kill(): void;
  /** As by SIGSTOP, and SIGCONT after `ms`. */
  freeze(ms: number): void;
}
