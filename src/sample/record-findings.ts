/**
 * Some records of each topic, compared with the tables before a start.
 * Imports: abort, config, errors, kafka, preflight.
 */
import { limitOf } from '../abort.js';
import { clickHouseOptions, topicsOf } from '../config/adapter-options.js';
import type { CheckedConfig } from '../config/config.js';
import { asIngestError, IngestError } from '../errors.js';
import type { GroupPartition } from '../kafka/group-admin.js';
import type { Finding } from '../preflight/finding.js';
import { dataFindings } from './findings.js';
import { takeSamples } from './take.js';

export type RecordsWanted = 'judge' | 'start' | 'skip';

/** Where a run would go on; undefined: where the log begins. */
type StandingPartition = GroupPartition & { readonly resume: number | undefined };

/** A look that fails refuses nothing: the records can be read later. */
export async function recordFindings(
  config: CheckedConfig,
  partitions: readonly StandingPartition[] | undefined,
  {
    tables,
    records,
    limitMs,
    signal,
  }: {
    readonly tables: readonly Finding[];
    readonly records: RecordsWanted;
    /** For all of it, milliseconds. */
    readonly limitMs: number;
    readonly signal: AbortSignal | undefined;
  },
): Promise<readonly Finding[]> {
  // Without the server or its tables there is nothing to compare with, and that is told.
  if (records === 'skip' || partitions === undefined || tables[0]?.level === 'refusal') return [];
  const limit = limitOf(
    limitMs,
    () =>
      new IngestError(
        'KCR_CLICKHOUSE_UNREACHABLE',
        `reading some and comparing them with their tables took more than ${limitMs / 1000} s`,
      ),
    signal,
  );
  try {
    const samples = await takeSamples(
      { ...config.kafka, topics: topicsOf(config) },
      partitions.map((each) => ({ ...each, next: each.resume ?? each.logStart })),
      limit.signal,
    );
    const transforms = new Map(config.routes.map(({ topic, transform }) => [topic, transform]));
    const { onPoison, onTombstone = onPoison === 'exclude' ? 'skip' : 'halt' } = config;
    const topicsWithRecords = new Set(
      partitions.filter(({ logStart, stableEnd }) => stableEnd > logStart).map(({ topic }) => topic),
    );
    const findings = await dataFindings(
      { clickHouse: clickHouseOptions(config), transforms, onPoison, onTombstone, topicsWithRecords },
      samples,
      limit.signal,
    );
    if (records === 'judge') return findings;
    return findings.map(({ code, ...finding }) =>
      code === 'KCR_POISON' ? { ...finding, level: 'warning' } : code === undefined ? finding : { code, ...finding },
    );
  } catch (thrown) {
    return [
      {
        level: 'warning',
        what: 'records',
        detail: `they could not be looked at: ${asIngestError(thrown, 'KCR_KAFKA', 'reading some failed').detail}`,
      },
    ];
  } finally {
    limit.clear();
  }
}
