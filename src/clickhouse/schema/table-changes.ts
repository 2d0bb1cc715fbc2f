/**
 * What two looks at a table differ in, in words for people. Pure. Imports: clickhouse/verify, events.
 */
import type { IngestEvent } from '../../events.js';
import type { TableNow } from '../verify/evidence.js';
import { provenanceStatement, readBackFault } from './provenance-columns.js';
import { plainTable, type Table } from './table.js';

export type TableChange = Omit<Extract<IngestEvent, { kind: 'tableChanged' }>, 'kind' | 'table'>;

interface Seen {
  readonly table: Table;
  readonly now: TableNow;
}

/** The worst first. An alteration that concerns none of this is told as such. */
export function changesOf(before: Seen & { readonly isGone: boolean }, after: Seen): readonly TableChange[] {
  const name = plainTable(after.table.database, after.table.table);
  const found = [
    ...replaced(before, after, name),
    ...window(before.now, after.now, name),
    ...columns(before, after, name),
  ];
  if (before.isGone && before.now.id === after.now.id)
    found.push({ change: 'back', level: 'info', message: 'the table is back', hint: undefined });
  const isAltered =
    before.now.alteredS !== after.now.alteredS ||
    before.now.shape !== after.now.shape ||
    before.now.mutation !== after.now.mutation;
  if (found.length > 0 || !isAltered) return found;
  return [{ change: 'altered', level: 'info', message: 'the table was altered', hint: undefined }];
}

function replaced({ now: before }: Seen, { now }: Seen, name: string): readonly TableChange[] {
  if (before.id === now.id) return [];
  return [
    {
      change: 'replaced',
      level: 'warn',
      message:
        `another table stands under the name now (${before.id ?? 'unknown'} before, ${now.id ?? 'unknown'} ` +
        'now): it was exchanged, or dropped and created again',
      hint:
        'ranges in doubt of the table before are not sent again, their partitions halt: bring that table back ' +
        `under the name ${name}, let "kafka-clickhouse-rx drain" resolve them, then exchange it; ` +
        'or look them up by hand and use "kafka-clickhouse-rx state reset"',
    },
  ];
}

function window(before: TableNow, now: TableNow, name: string): readonly TableChange[] {
  if (before.keepsTokens === now.keepsTokens) return [];
  if (now.keepsTokens)
    return [
      {
        change: 'window',
        level: 'info',
        message: 'the table has a dedup window again; tokens from before are forgotten',
        hint: undefined,
      },
    ];
  return [
    {
      change: 'window',
      level: 'warn',
      message:
        'the table has no dedup window any more: it forgets every token, and nothing is sent a second time before ' +
        'its rows were looked for',
      hint:
        `ALTER TABLE ${name} MODIFY SETTING ` +
        `${now.family === 'replicated' ? 'replicated_deduplication_window' : 'non_replicated_deduplication_window'} = 10000`,
    },
  ];
}

function columns(before: Seen, after: Seen, name: string): readonly TableChange[] {
  if (before.now.columns === after.now.columns) return [];
  const [was, is] = [readBackFault(before.table), readBackFault(after.table)];
  if (is !== undefined) {
    const statement = provenanceStatement(after.table);
    return [
      {
        change: 'columns',
        level: 'warn',
        message: `ranges cannot be read back from the table any more: ${is}`,
        hint:
          statement === undefined
            ? `give ${name} the columns _topic, _partition and _offset`
            : `${statement}; rows that are in the table already will not have the values`,
      },
    ];
  }
  const message =
    was === undefined
      ? 'the provenance columns of the table were altered'
      : 'ranges that are recorded from now on can be read back from the table';
  return [{ change: 'columns', level: 'info', message, hint: undefined }];
}
