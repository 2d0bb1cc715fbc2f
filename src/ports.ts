/**
 * What the stages need of the outside world, one small file each in `ports/`. Adapters implement them (`kafka/`,
 * `clickhouse/`, `state/`), tests fake them.
 *
 * Every call returns an `ObservableInput`: an adapter gives promises, a fake gives `timer` or `cold`, which is what
 * lets marble tests run the stages in virtual time. A call takes effect when it is subscribed to. Imports: ports.
 */
export type * from './ports/record-source.js';
export type * from './ports/batch-sink.js';
export type * from './ports/partition.js';
export type * from './ports/state-store.js';
