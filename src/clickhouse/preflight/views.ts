/**
 * Materialized views: what they write into must know a repeated insert too, down the chain.
 * Imports: clickhouse/insert, clickhouse/schema, preflight.
 */
import { type Finding, ok, refusal, warning } from '../../preflight/finding.js';
import { isBefore } from '../insert/async-insert.js';
import type { Table, TableName } from '../schema/table.js';
import { findTable, findTarget } from '../schema/tables.js';
import { volatileIn } from '../schema/volatile.js';
import type { CheckContext } from './context.js';
import { checkVolatile, checkWindow, nameOf } from './table.js';

/** The first release in which a materialized view's token is made from its source's token by the server alone. */
const OLDEST_WITH_VIEWS = [24, 7] as const;

/** Down the chain: a view's target may have views of its own. */
export async function checkViews(context: CheckContext, table: Table): Promise<Finding[]> {
  const findings: Finding[] = [];
  const { version } = context.server;
  if (table.views.length > 0 && isBefore(version, OLDEST_WITH_VIEWS)) {
    const detail =
      `ClickHouse ${version} makes the tokens of materialized views in another way than ` +
      `${OLDEST_WITH_VIEWS.join('.')} and later: their rows may be lost or doubled when an ` +
      'insert is repeated';
    findings.push(
      refusal('KCR_PREFLIGHT', `views of ${nameOf(table)}`, detail, 'upgrade the server, or choose at-least-once'),
    );
  }
  const seen = new Set<string>([nameOf(table)]);
  const queue: { readonly view: TableName; readonly source: Table }[] = table.views.map((view) => ({
    view,
    source: table,
  }));
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    const { view } = next;
    const name = await findTarget(context.http, view);
    const target = name === undefined ? undefined : await findTable(context.http, name);
    if (target === undefined) {
      findings.push(
        warning(
          `view ${nameOf(view)}`,
          'its target cannot be seen, so neither can its dedup window',
          'GRANT SHOW TABLES on its database',
        ),
      );
      continue;
    }
    if (seen.has(nameOf(target))) continue;
    seen.add(nameOf(target));
    findings.push(...checkTarget(context, view, target), ...(await checkViewQuery(context, view, target)));
    queue.push(...target.views.map((further) => ({ view: further, source: target })));
  }
  if (table.family === 'plain' && table.views.length > 0) {
    const detail =
      'after ClickHouse was killed during an insert the table itself is read back, the targets of its views are not';
    findings.push(
      warning(`views of ${nameOf(table)}`, detail, 'use replicated tables where a view must survive that too'),
    );
  }
  return findings;
}

/** What a view makes of a block must be the same when the block comes again. */
async function checkViewQuery({ http }: CheckContext, view: TableName, target: Table): Promise<Finding[]> {
  if (!target.columns.some(({ inPartitionKey }) => inPartitionKey)) return [];
  const query = (await findTable(http, view))?.createQuery ?? '';
  const called = volatileIn(query.slice(query.indexOf(' AS SELECT ') + 1));
  if (called === undefined) return [];
  const detail =
    `its query calls ${called}(): if the PARTITION BY of ${nameOf(target)} depends on that, a ` +
    'repeated insert may go into another ClickHouse partition there and double its rows';
  return [warning(`view ${nameOf(view)}`, detail, 'partition the target by what the records bring')];
}

function checkTarget(context: CheckContext, view: TableName, target: Table): Finding[] {
  if (target.family !== 'none') return [checkWindow(context, target, 'view target'), ...checkVolatile(target)];
  // Nothing is kept in a Null table; what counts is behind it.
  if (target.engine === 'Null') return [ok(`view ${nameOf(view)}`, `writes into ${nameOf(target)}, engine Null`)];
  const detail =
    `writes into ${nameOf(target)}, whose engine ${target.engine} keeps no dedup tokens: a repeated ` +
    'insert doubles its rows there';
  return [
    refusal('KCR_TABLE_UNSUITABLE', `view ${nameOf(view)}`, detail, 'give the view a target of the MergeTree family'),
  ];
}
