/**
 * An insert as the simulated ClickHouse sees it: its rows, how far it has come, what it is answered. Pure.
 * Imports: testing.
 */
import type { Killed } from '../faults.js';
import type { Block, Row } from '../table.js';
import { exception, type Response } from './requests.js';
import type { ServerFault } from './server-faults.js';

/** How the server refuses a row: with its number, as a constraint does, or without a number. */
export type Refuses = 'row' | 'constraint' | 'nameless';

/** Each line is one row. What a row says of its provenance must be so; `odd` is told where it is not. */
export function rowsIn(body: string, hasTopic: boolean, odd: (what: string) => void): readonly Row[] {
  return body
    .split('\n')
    .filter((line) => line !== '')
    .map((line): Row => {
      const { id, p, o, _topic, _partition, _offset } = JSON.parse(line) as {
        id: number;
        p: number;
        o: number;
        _topic?: string;
        _partition?: number;
        _offset?: number;
      };
      const isBlank = _partition === undefined || _offset === undefined || (_topic === undefined && hasTopic);
      if ((_offset ?? o) !== o || (_partition ?? p) !== p)
        odd(`the row of ${p}:${o} says that it is of ${_partition}:${_offset}`);
      return {
        topic: _topic ?? 'simulated',
        partition: p,
        offset: o,
        timestampMs: id,
        value: null,
        ...(isBlank ? { isBlank } : {}),
      };
    });
}

/** As the server says which row it cannot take, counted from 1. */
export function refusalAt(refuses: Refuses, queryId: string, row: number): Response {
  switch (refuses) {
    case 'row':
      return exception(
        117,
        queryId,
        `Cannot read JSON field here: '{"n":oops}': (while reading the value of key n): (at row ${row})\n`,
      );
    case 'constraint':
      return exception(
        469,
        queryId,
        `Constraint \`c\` for table default.t is violated at row ${row}. Expression: (n < 7)`,
      );
    case 'nameless':
      return exception(190, queryId);
  }
}

/** The summary counts what materialized views read, too. */
export function success(queryId: string, rows: number, views: number): Response {
  const summary = JSON.stringify({
    read_rows: String(rows * (1 + views)),
    written_rows: String(rows),
  });
  return { status: 200, headers: { 'x-clickhouse-query-id': queryId, 'x-clickhouse-summary': summary }, text: '' };
}

/** Where a kill strikes, in blocks. */
export function deathBy(killed: Killed): { readonly afterBlocks: number; readonly isTorn: boolean } | undefined {
  return killed === undefined ? undefined : { afterBlocks: killed === 'between' ? 1 : 0, isTorn: killed === 'torn' };
}

interface How {
  readonly killed: Killed;
  readonly fault: ServerFault | undefined;
  readonly isPlain: boolean;
  readonly feedsViewsAgain: boolean;
}

/** The blocks of one insert, and how far it has come. */
export class Work {
  done = 0;

  constructor(
    readonly blocks: readonly Block[],
    readonly token: string | undefined,
    readonly how: How,
  ) {}
}
