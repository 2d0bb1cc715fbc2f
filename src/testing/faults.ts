/**
 * What can go wrong at a port call of a simulated process. Imports: errors, testing/clickhouse.
 */
import type { ErrorCode } from '../errors.js';
import type { ServerFault } from './clickhouse/server-faults.js';

/**
 * The port calls a process makes of its world. `ask`: what the sink that ships asks of the server beside looks into the
 * table.
 */
export type PortName =
  'cluster' | 'log' | 'seek' | 'commit' | 'claim' | 'write' | 'insert' | 'readBack' | 'fill' | 'ask';

/**
 * What becomes of a call, and of the process that makes it.
 *
 * | fate | the effect | the process |
 * | --- | --- | --- |
 * | `die before` | never takes place | dies |
 * | `die after` | takes place | dies before the reply |
 * | `die, lands late` | takes place when the process is long dead | dies |
 * | `lose reply` | takes place | is told that the outcome is unknown |
 * | `kill server` | inserts: the server dies between a token and its part, so the token is known and the rows are not there | is told that the connection broke |
 * | `kill server between` | inserts: the server dies between two ClickHouse partitions, so the first has its rows and its token, and the others neither | is told that the connection broke |
 * | `kill server early` | inserts that wait for others: the server dies before it writes what waits, which never takes place | is told that the connection broke |
 * | `{ landsAfterMs }` | takes place this much later | is told at the usual time that the outcome is unknown |
 * | `{ hangsMs }` | the same, and until then no server knows of it: something on the way holds it | is told at the usual time that the outcome is unknown |
 * | `{ delayMs }` | takes place this much later | waits for it |
 * | `{ freezeMs }` | takes place | stands still for so long: no reply, no timer, no heartbeat; then it goes on |
 * | `{ failWith }` | never takes place | is given this error |
 * | `{ server }` | as the fault says | as the fault says; only where the sink that ships talks to a simulated ClickHouse |
 */
export type Fate =
  | 'die before'
  | 'die after'
  | 'die, lands late'
  | 'lose reply'
  | 'kill server'
  | 'kill server between'
  | 'kill server early'
  | { readonly landsAfterMs: number }
  | { readonly hangsMs: number }
  | { readonly delayMs: number }
  | { readonly freezeMs: number }
  | { readonly failWith: ErrorCode }
  | { readonly server: ServerFault };

/**
 * When the server is killed: before it writes what waits, between an insert's token and its rows, or between its
 * ClickHouse partitions.
 */
export type Killed = 'early' | 'torn' | 'between' | undefined;

/** At the `nth` call of a process (of that port, if one is named), counted from 1. */
export interface Fault {
  readonly port?: PortName;
  readonly nth: number;
  readonly fate: Fate;
}

/** What a caller is told when a reply was lost. */
export const unknownOutcome: Readonly<Record<PortName, ErrorCode>> = {
  cluster: 'KCR_KAFKA_UNREACHABLE',
  log: 'KCR_KAFKA_UNREACHABLE',
  seek: 'KCR_KAFKA_UNREACHABLE',
  commit: 'KCR_KAFKA_UNREACHABLE',
  claim: 'KCR_STORE_UNREACHABLE',
  write: 'KCR_STORE_UNREACHABLE',
  insert: 'KCR_INSERT_IN_DOUBT',
  readBack: 'KCR_CLICKHOUSE_UNREACHABLE',
  fill: 'KCR_INSERT_IN_DOUBT',
  ask: 'KCR_CLICKHOUSE_UNREACHABLE',
};

/**
 * The fate that a plan has for a call: its number in the life of the process, and its number among those of its port.
 */
export function fateOf(plan: readonly Fault[], port: PortName, call: number, callOfPort: number): Fate | undefined {
  for (const fault of plan) {
    if (fault.port === undefined ? fault.nth === call : fault.port === port && fault.nth === callOfPort)
      return fault.fate;
  }
  return undefined;
}
