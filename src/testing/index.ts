/**
 * Public entry `kafka-clickhouse-rx/testing`: a world to test one's own pipeline in, with everything that can go wrong.
 * Needs no server, no test framework, and runs in virtual time. Imports: testing/contracts.
 */
export { SimulatedWorld, type Life, type Process, type SavedServers, type WorldConfig } from './world.js';
export { checkExactlyOnce, type Comparison, type Verdict } from './check.js';
export { type Fate, type Fault, type PortName } from './faults.js';
export { SimulatedLog, type Value } from './log.js';
export { type Ignored } from './sink.js';
export { type Alteration } from './alteration.js';
export { type Refusal } from './refusal.js';
export { SimulatedTable, type InsertOptions, type Row, type TableConfig } from './table.js';
export { type Invariant, type Violation } from './invariant-checker.js';
export { type ConsumerGroup } from './group.js';
export { type Member } from './member.js';
export { type Outcome, type Pace, type SimulatedProcess, type Step } from './process.js';

/** What your own ports must keep, as checks for any test framework. */
export { type ContractCheck } from './contracts/check.js';
export { recordSourceContract, type SourceContractConfig, type SourceUnderTest } from './contracts/record-source.js';
export {
  batchSinkContract,
  type RowOrigin,
  type SinkContractConfig,
  type SinkUnderTest,
} from './contracts/batch-sink.js';
export { stateStoreContract, type StateStoreContractConfig } from './contracts/state-store.js';
