/**
 * A helper of reconcileWithState: what it refuses, and what it tells again of what was left out.
 * Imports: errors, events, model.
 */
import { IngestError } from '../../src/errors.js';
import type { IngestEvent } from '../../src/events.js';
import type { Assignment, KafkaRecord } from '../../src/model/record.js';
import type { Intent } from '../../src/model/state.js';

const longestVersion = 100;

export function checkTransformVersion(version: string | undefined): void {
  if (version === undefined || (version.length > 0 && version.length <= longestVersion)) return;
  throw new IngestError(
    'KCR_CONFIG',
    `Expected \`transformVersion\` to have 1 to ${longestVersion} characters, got ${version.length}`,
  );
}

/**
 * A record may have become rows of other ClickHouse partitions, or another number of rows: under the recorded token
 * they would double, or be lost.
 */
export function otherTransform(
  { topic, partition }: Assignment,
  { first, last, transformVersion: was, tables }: Intent,
  now: string | undefined,
): IngestError {
  return new IngestError(
    'KCR_TRANSFORM',
    `The range in doubt was recorded for the transform version "${was}", and it is ` +
      `${now === undefined ? 'none' : `"${now}"`} now: its rows could be others than those that ` +
      'may be in the table',
    {
      topic,
      partition,
      first,
      last,
      table: tables[0],
      hint:
        `go back to the transform and its version "${was}", let everything in doubt be resolved ` +
        '("kafka-clickhouse-rx drain"), then change both; where the change makes the very same ' +
        'rows of these records, keep the version',
    },
  );
}

/** Who recorded it as left out may have died before it was told. */
export function leftOut(assignment: Assignment, offset: number, records: readonly KafkaRecord[]): IngestEvent {
  const error = new IngestError('KCR_POISON', 'The record was left out of its range when that was recorded', {
    topic: assignment.topic,
    partition: assignment.partition,
    offset,
  });
  return { kind: 'excluded', assignment, record: records.find((one) => one.offset === offset), error, replay: true };
}

export function gapError(
  assignment: Assignment,
  { expected, found }: { expected: number; found: number },
): IngestError {
  return new IngestError(
    'KCR_OFFSET_GAP',
    `The log goes on at offset ${found}, but ${expected} was expected: ${found - expected} offsets are gone`,
    {
      topic: assignment.topic,
      partition: assignment.partition,
      first: expected,
      last: found - 1,
      hint: 'retention or a truncation took them before they were read; set onGap to "continue" to go on behind them',
    },
  );
}
