/**
 * A look into the simulated table for one range, with what it may conclude as with the sink that ships.
 * Imports: clickhouse/insert, clickhouse/verify, errors, ports.
 */
import { allOffsets, compareRows } from '../clickhouse/verify/compare-rows.js';
import {
  evidenceOf,
  withoutEvidence,
  witnessRange,
  WITNESSES,
  type Evidence,
  type TableNow,
} from '../clickhouse/verify/evidence.js';
import { parseFingerprint, sameRun } from '../clickhouse/insert/settings.js';
import { IngestError } from '../errors.js';
import type { InsertBatch, ReadBack } from '../ports.js';
import { overlooking, serverOf, unreachable, type Ignored, type SinkSurroundings } from './sink-world.js';

/** A look and what the table was then. */
export interface Looked extends ReadBack {
  readonly now: TableNow;
}

export function look(
  world: SinkSurroundings,
  batch: InsertBatch,
  {
    asked,
    trusts,
    ignores,
  }: {
    readonly asked: string | undefined;
    readonly trusts: (now: TableNow) => boolean;
    readonly ignores: Ignored | undefined;
  },
): Looked {
  const {
    assignment: { topic, partition },
    afterOffset,
    lastOffset,
    records,
    token,
    intent,
  } = batch;
  const { table } = world;
  if (world.isTableDown()) throw unreachable();
  const now = table.now();
  const evidence = evidenceFor(batch, now, ignores);
  const halt = (why: string): never => {
    throw new IngestError('KCR_READ_BACK', `whether the range is in the table cannot be verified: ${why}`, {
      topic,
      partition,
    });
  };
  const unproven = (why: string): Looked => {
    const isSameRun =
      asked === undefined &&
      sameRun(intent === undefined ? undefined : parseFingerprint(intent.settings), serverOf(table));
    switch (withoutEvidence(asked === undefined ? 'after' : 'before', { mayTrust: trusts(now), isSameRun })) {
      case 'settle':
        return { missing: [], doubled: [], now };
      case 'send':
        return { missing: allOffsets(records), doubled: [], isUnproven: true, now };
      case 'halt':
        return halt(why);
    }
  };
  if (evidence.kind === 'elsewhere') return halt(evidence.why);
  if (evidence.kind === 'none') return unproven(evidence.why);
  if (token !== undefined && world.isRunning(token))
    throw new IngestError('KCR_INSERT_IN_DOUBT', 'an earlier attempt of this insert is still running', {
      topic,
      partition,
    });
  const { missing, doubled, partial } = compareRows(
    records,
    table.count(topic, partition, afterOffset + 1, lastOffset),
  );
  if (partial !== undefined)
    return halt(`of offset ${partial.offset} ${partial.rows} of ${partial.expected} rows are there`);
  const older = intent === undefined ? undefined : witnessRange(intent);
  const isWitnessed = () =>
    older !== undefined && table.count(topic, partition, older.first, older.last).size >= WITNESSES;
  if (missing.length > 0 && evidence.kind === 'witness' && !isWitnessed()) return unproven(evidence.why);
  return { missing, doubled, now };
}

function evidenceFor({ isOffsetReused, intent }: InsertBatch, now: TableNow, ignores: Ignored | undefined): Evidence {
  if (isOffsetReused === true) return { kind: 'none', why: 'the partition was started again' };
  if (ignores === 'columns' && now.columns !== '') return { kind: 'full' };
  return evidenceOf(intent, intent === undefined ? now : overlooking(now, intent, ignores));
}
