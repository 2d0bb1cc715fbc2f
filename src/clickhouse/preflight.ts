/**
 * Can these tables keep what was promised? Asked before a record is taken; changes nothing. The checks
 * are in the order people would ask.
 * Imports: clickhouse/client, clickhouse/preflight, clickhouse/schema, errors, preflight.
 */
import { hasCode } from '../errors.js';
import { type Finding, ok, refusal, refusalOf } from '../preflight/finding.js';
import { tlsWarnings } from './client/tls-findings.js';
import { ClickHouseHttp } from './client/http.js';
import { checkOptions, type ClickHouseSinkOptions, databaseOf, type Route } from './options.js';
import type { CheckContext, Needs } from './preflight/context.js';
import { checkLimits, checkMode, checkServer, checkSettings, readDefaults } from './preflight/server.js';
import {
  checkEngine,
  checkGrants,
  checkProvenance,
  checkRowPolicies,
  checkVolatile,
  checkWindow,
  nameOf,
} from './preflight/table.js';
import { checkViews } from './preflight/views.js';
import { plainTable, type Table } from './schema/table.js';
import { requireTable } from './schema/tables.js';

export { type Finding, refusalOf } from '../preflight/finding.js';
export type { Needs } from './preflight/context.js';

/**
 * Looks at the server, its settings, every route's table and the materialized views behind it.
 *
 * @returns All findings; any `refusal` among them means that the start must not go on (see `refusalOf`).
 * @throws `KCR_CONFIG` for options that cannot be used.
 */
export async function checkClickHouse(options: ClickHouseSinkOptions, needs: Needs): Promise<readonly Finding[]> {
  checkOptions(options);
  const http = new ClickHouseHttp(options);
  try {
    const findings: Finding[] = [...tlsWarnings(options.tls)];
    const server = await checkServer(http, needs, findings);
    if (server === undefined) return findings;
    const mode = await checkMode(http, options, needs, server);
    findings.push(...mode);
    if (refusalOf(mode) !== undefined) return findings;
    findings.push(await checkSettings(http, options, needs, server), ...(await checkLimits(http, options, needs)));
    const defaults = await readDefaults(http, findings);
    for (const route of options.routes)
      findings.push(...(await checkRoute({ http, options, needs, defaults, server }, route)));
    return unique(findings);
  } finally {
    http.close();
  }
}

/** Routes may share a table, and views a target. */
function unique(findings: readonly Finding[]): readonly Finding[] {
  return [...new Map(findings.map((finding) => [JSON.stringify(finding), finding])).values()];
}

async function checkRoute(context: CheckContext, route: Route): Promise<Finding[]> {
  const { http, options, needs } = context;
  const name = { database: databaseOf(options, route), table: route.table };
  let table: Table;
  try {
    table = await requireTable(http, name);
  } catch (error) {
    if (!hasCode(error, 'KCR_TABLE_MISSING')) throw error;
    return [
      refusal('KCR_TABLE_MISSING', `table ${plainTable(name.database, name.table)}`, error.detail, error.fields.hint),
    ];
  }
  const grants = await checkGrants(http, table);
  if (needs.delivery !== 'exactly-once') return [ok(`table ${nameOf(table)}`, table.engine), ...grants];
  const suitable = checkEngine(table);
  if (suitable.level === 'refusal') return [suitable, ...grants];
  return [
    suitable,
    ...grants,
    checkWindow(context, table, 'table'),
    ...checkVolatile(table),
    ...checkProvenance(table),
    ...(await checkRowPolicies(http, table)),
    ...(await checkViews(context, table)),
  ];
}
