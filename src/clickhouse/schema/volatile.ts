/**
 * Expressions that give another value each time they are asked: what they fill differs between an insert and its
 * repetition. Pure. Imports: nothing.
 */
import type { Column } from './table.js';

/** Time, chance, and what belongs to one query, one block or one host; names as ClickHouse has them, in any case. */
const volatile = new RegExp(
  `\\b(${[
    'now(?:64)?',
    'nowInBlock(?:64)?',
    'today',
    'yesterday',
    'curdate',
    'current_date',
    'current_timestamp',
    'localtime',
    'localtimestamp',
    'UTC_?timestamp',
    'rand\\w*',
    'fuzzBits',
    'array(?:Shuffle|PartialShuffle|RandomSample)',
    'generate(?:UUIDv[47]|ULID|SnowflakeID|SerialID|RandomStructure)',
    'dateTimeToUUIDv7',
    '(?:current_?|initial_?)?query_?(?:ID|StartTime|start_time)',
    'connection_?Id',
    'transactionID',
    'rowNumberIn(?:All)?Blocks?',
    'rowNumberInBlock',
    'block(?:Number|Size|SerializedSize)',
    '(?:full)?HostName',
    'FQDN',
    'serverUUID',
    'getMacro',
    'uptime',
    'version',
    'revision',
    'buildId',
    'tcpPort',
    'shardNum',
  ].join('|')})\\s*\\(`,
  'i',
);
/** They may have another value by the time of the repetition, or may not. */
const changeable =
  /\b(dict(?:Get|Has|IsIn)\w*|joinGet\w*|currentUser|current_user|user|currentDatabase|getSetting\w*)\s*\(/i;

/** The function that makes an expression volatile; undefined: none that is known. */
export function volatileIn(expression: string): string | undefined {
  return volatile.exec(withoutStrings(expression))?.[1];
}

export interface VolatileColumn {
  readonly column: Column;
  /** Such as `now()`, or the column whose value it takes. */
  readonly because: string;
  /** It is filled again with each insert; else only by what may change meanwhile, as a dictionary does. */
  readonly always: boolean;
}

/** Columns whose value the server makes up, when the row has none. `filled`: names of those that every row brings. */
export function volatileColumns(columns: readonly Column[], filled: ReadonlySet<string>): readonly VolatileColumn[] {
  const candidates = columns.filter(
    ({ name, defaultKind }) => !filled.has(name) && ['DEFAULT', 'MATERIALIZED', 'EPHEMERAL'].includes(defaultKind),
  );
  const found = new Map<string, VolatileColumn>();
  const judge = (column: Column): VolatileColumn | undefined => {
    const bare = withoutStrings(column.defaultExpression);
    const own = volatile.exec(bare)?.[1];
    if (own !== undefined) return { column, because: `${own}()`, always: true };
    const via = [...found.values()].find((other) =>
      new RegExp(`(^|[^\\w.])\`?${escaped(other.column.name)}\`?([^\\w(]|$)`).test(bare),
    );
    if (via !== undefined) return { column, because: `${via.because} through ${via.column.name}`, always: via.always };
    const outside = changeable.exec(bare)?.[1];
    return outside === undefined ? undefined : { column, because: `${outside}()`, always: false };
  };
  // An expression may name a column that stands after it.
  for (let before = -1; found.size > before;) {
    before = found.size;
    for (const column of candidates) {
      const judged = found.has(column.name) ? undefined : judge(column);
      if (judged !== undefined) found.set(column.name, judged);
    }
  }
  return [...found.values()];
}

function withoutStrings(expression: string): string {
  return expression.replace(/'(?:[^'\\]|\\.|'')*'/gs, "''");
}

function escaped(name: string): string {
  return name.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
