// The watcher at the ports: what it calls a violation, and what not.
import { expect, test } from 'vitest';
import { emptyState, type Intent, type PartitionState } from '../../src/model/state.js';
import type { InsertBatch, StateKey } from '../../src/ports.js';
import { SimulatedLog, SimulatedTable } from '../../src/testing/index.js';
import { rowOf } from '../../src/testing/blocks.js';
import { InvariantChecker } from '../../src/testing/invariant-checker.js';
import { insertBatch, intent, p0 } from '../support/fakes.js';

const key: StateKey = { cluster: 'c1', group: 'g', topic: p0.topic, partition: p0.partition };
const inDoubt = (...pending: readonly Intent[]): PartitionState => ({ ...emptyState, settled: 9, pending });

/** Of a process that claims, records 10 and 11, and inserts 11: the two are under way at once. */
function toldOf(claimedAgainBy: string, state: PartitionState): readonly string[] {
  const log = new SimulatedLog(p0.topic, 1);
  log.produce(0, ...Array.from({ length: 12 }, () => ({})));
  const watch = new InvariantChecker(log, new SimulatedTable(), () => 1);
  const claim = (owner: string, found: PartitionState): void => watch.claimed({ key, owner, state: found, version: 1 });
  const second: InsertBatch = insertBatch(10, 11, { intent: intent(11, 11), token: 't' });
  claim('a#1', inDoubt());
  watch.written(key, inDoubt(intent(10, 10), intent(11, 11)));
  claim(claimedAgainBy, state);
  watch.inserting('insert', {
    ...second,
    assignment: { ...second.assignment, assignmentId: Number(claimedAgainBy.at(-1)) },
  });
  return watch.violations.map(({ invariant }) => invariant).filter((invariant) => invariant === 'I3');
}

const both = inDoubt(intent(10, 10), intent(11, 11));

test('I3: whoever claims what another one left in doubt inserts the older range first', () => {
  expect(toldOf('b#2', both)).toEqual(['I3']);
});

test('a claim that lands again finds what its own process has recorded since: that was not in doubt at the claim', () => {
  expect(toldOf('a#1', both)).toEqual([]);
});

/** What is told when 10-11 is recorded in other parts, while a row of 10 is in the table. */
function toldOfParts(begin: (log: SimulatedLog) => void): readonly string[] {
  const log = new SimulatedLog(p0.topic, 1);
  log.produce(0, ...Array.from({ length: 12 }, () => ({})));
  const table = new SimulatedTable();
  const watch = new InvariantChecker(log, table, () => 1);
  const ofTopic = (...pending: readonly Intent[]): PartitionState => ({ ...inDoubt(...pending), topicId: log.topicId });
  watch.claimed({ key, owner: 'a#1', state: ofTopic(intent(10, 11)), version: 1 });
  table.insert([rowOf(p0.topic, p0.partition, log.records(0)[10]!)], 't', { nowMs: 0 });
  begin(log);
  watch.written(key, ofTopic(intent(10, 10), intent(11, 11)));
  return watch.violations.map(({ invariant }) => invariant);
}

test('I16: a range of which a row is in the table is recorded in no other parts', () => {
  expect(toldOfParts(() => undefined)).toEqual(['I16']);
});

test('a row of a record that the topic has no more is in no part, and cannot come twice', () => {
  expect(toldOfParts((log) => log.retainFrom(0, 11))).toEqual([]);
});
