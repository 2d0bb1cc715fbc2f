// Every fault of the chaos run. Each does its harm, undoes it, and says whether an effect of it was seen: what a worker
// told, a restart, a takeover. One whose effect was not seen proves nothing and is counted apart.
import type { Fault, Setting } from './fault.js';
import { groupFaults } from './group-faults.js';
import { serverFaults } from './server-faults.js';
import { tableFaults } from './table-faults.js';
import type { Control } from './told.js';
import { wireFaults } from './wire-faults.js';
import { workerFaults } from './worker-faults.js';

/** Every kind that makes sense with this store, this table and these servers. */
export function faultsOf(setting: Setting): readonly Fault[] {
  return [
    ...workerFaults,
    ...serverFaults(setting),
    ...wireFaults('clickhouse'),
    ...(setting.store === 'keeper' ? wireFaults('keeper') : []),
    ...tableFaults,
    ...groupFaults,
  ];
}

/** Those that the guard is needed against. */
export function faultsAgainst(control: Control, setting: Setting): readonly Fault[] {
  const needed: Record<Control, readonly string[]> = {
    tokens: ['W2', 'W3'],
    'at-least-once': ['W2', 'W3'],
    // It shows without any.
    tombstones: ['W3'],
    'read-back': ['ClickHouse killed before the rename', 'ClickHouse killed'],
  };
  return faultsOf(setting).filter(({ kind }) => needed[control].includes(kind));
}
