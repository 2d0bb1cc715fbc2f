// What ClickHouse makes of one value by itself: an insert of nothing else, by plain HTTP, into a twin of the table that
// has no provenance columns.
import type { PlainServer, ServerAnswer } from './server.js';
import { PROBE_N, type FuzzRecord } from './records.js';
import type { FuzzTable } from './tables.js';

/** What a value is by itself. */
export interface Verdict {
  /** The rows it became: `n`, and `v` as the server writes it. None: it was refused. */
  readonly rows: readonly Row[];
  /** Why it was refused. */
  readonly code: number | undefined;
}

export interface Row {
  readonly n: number;
  readonly v: string;
}

/**
 * As the product's inserts are read; docs/guarantees.md and src/clickhouse/insert/settings.ts say why. Written down here once
 * more, since the oracle takes nothing from the product.
 */
const settings: Readonly<Record<string, string>> = {
  async_insert: '0',
  date_time_input_format: 'best_effort',
  input_format_skip_unknown_fields: '1',
  input_format_parallel_parsing: '0',
};

interface Probe {
  readonly id: string;
  readonly answer: Promise<ServerAnswer>;
}

export class Probes {
  readonly #server: PlainServer;
  readonly #prefix: string;
  /** By table and template, or by table and value. */
  readonly #verdicts = new Map<string, Verdict>();
  readonly #running = new Map<string, Probe>();
  #count = 0;

  constructor(server: PlainServer, prefix: string) {
    this.#server = server;
    this.#prefix = prefix;
  }

  async createTwin(table: FuzzTable): Promise<void> {
    await this.#server.run(
      `CREATE OR REPLACE TABLE ${this.#twin(table)} (n UInt32, v ${table.type}, probe String DEFAULT queryID()) ENGINE = Memory`,
    );
  }

  /** Begins to ask, unless it is known or asked already. */
  begin(table: FuzzTable, record: FuzzRecord): void {
    const key = keyOf(table, record);
    if (this.#verdicts.has(key) || this.#running.has(key)) return;
    const id = `${this.#prefix}-${++this.#count}`;
    const params = { ...settings, query: `INSERT INTO ${this.#twin(table)} FORMAT JSONEachRow`, query_id: id };
    const answer = this.#server.send(params, record.probe);
    answer.catch(() => undefined);
    this.#running.set(key, { id, answer });
  }

  /** Waits for everything that was begun. */
  async settle(all: readonly FuzzTable[]): Promise<void> {
    const running = [...this.#running];
    this.#running.clear();
    const answers = await Promise.all(
      running.map(async ([key, { id, answer }]) => ({ key, id, answer: await answer })),
    );
    const rows = new Map<string, Row[]>();
    const asked = all.filter((table) => running.some(([key]) => key.startsWith(`${table.name} `)));
    for (const table of asked)
      for (const [id, row] of await this.#read(table)) rows.set(id, [...(rows.get(id) ?? []), row]);
    for (const { key, id, answer } of answers)
      this.#verdicts.set(
        key,
        answer.isGood ? { rows: rows.get(id) ?? [], code: undefined } : { rows: [], code: answer.code },
      );
  }

  /** Of a value that was begun and settled. */
  verdict(table: FuzzTable, record: FuzzRecord): Verdict {
    const found = this.#verdicts.get(keyOf(table, record));
    if (found === undefined) throw new Error('a value was never asked about');
    if (record.template === undefined) return found;
    return { ...found, rows: found.rows.map((row) => (row.n === PROBE_N ? { ...row, n: record.n } : row)) };
  }

  /** Values that are like no other are not kept for longer than their round. */
  forgetSingles(): void {
    for (const key of this.#verdicts.keys()) if (key.includes(' value ')) this.#verdicts.delete(key);
  }

  async #read(table: FuzzTable): Promise<(readonly [string, Row])[]> {
    const body = await this.#server.run(
      `SELECT probe, n, ${table.read} FROM ${this.#twin(table)} FORMAT JSONCompactEachRow`,
    );
    await this.#server.run(`TRUNCATE TABLE ${this.#twin(table)}`);
    return linesOf(body).map((line) => {
      const [probe, n] = JSON.parse(line) as [string, number];
      return [probe, { n, v: restOf(line, 2) }] as const;
    });
  }

  #twin({ name }: FuzzTable): string {
    return `${this.#prefix}_${name}_twin`;
  }
}

function keyOf({ name }: FuzzTable, { template, value }: FuzzRecord): string {
  return template === undefined ? `${name} value ${value.toString('latin1')}` : `${name} template ${template}`;
}

/** Bytes as letters: what is no UTF-8 can be compared, too. */
export function linesOf(body: Buffer): string[] {
  return body
    .toString('latin1')
    .split('\n')
    .filter((line) => line !== '');
}

/** What a line holds behind its first `skip` values, none of which has a comma. */
export function restOf(line: string, skip: number): string {
  let at = 0;
  for (let left = skip; left > 0; left--) at = line.indexOf(',', at) + 1;
  return line.slice(at);
}
