/**
 * What the server would make of rows, asked without inserting any: the table function `format` reads
 * them with the table's columns and an insert's settings. Nothing lands, no token is used.
 * Imports: Node, clickhouse/client, clickhouse/schema, errors, model.
 */
import { randomUUID } from 'node:crypto';
import { IngestError } from '../../errors.js';
import { truthfulLooks } from '../client/look-settings.js';
import type { Records } from '../../model/record.js';
import { wholeBody } from './body.js';
import { rowAtFault, serverReason } from '../client/classify-error.js';
import { type Provenance, RowEncoder } from './encode.js';
import { type ClickHouseHttp, type ClickHouseWire, quoteIdentifier } from '../client/http.js';
import { type Answer, ConnectionFailure } from '../client/answer.js';
import type { Settings } from './settings.js';
import type { Column, Table } from '../schema/table.js';

/** A query's text is parsed within this limit; the rows are most of it. */
const QUERY_ROOM_BYTES = 1024 * 1024;

/** Settings without which a structure that names such types is refused, also one that a table has. */
const SELECT_TYPES = "SELECT name FROM system.settings WHERE match(name, '^(allow|enable)_.*type') AND type = 'Bool'";

const allowed = (names: readonly string[]): Settings => Object.fromEntries(names.map((name) => [name, '1']));

export async function typesAllowed(http: Pick<ClickHouseWire, 'select'>, signal: AbortSignal): Promise<Settings> {
  const rows = await http.select<{ name: string }>(SELECT_TYPES, {}, signal);
  return allowed(rows.map(({ name }) => name));
}

export interface RefusedRow {
  /** Of the rows that were asked about, counted from 0. */
  readonly index: number;
  readonly reason: string;
  readonly code: number | undefined;
}

export class RowTrial {
  readonly #http: ClickHouseHttp;
  readonly #settings: Settings;
  readonly #types: Settings;
  readonly #signal: AbortSignal | undefined;

  /** `settings`: of every question. `types`: of those that name the table's columns. */
  private constructor(http: ClickHouseHttp, settings: Settings, types: Settings, signal: AbortSignal | undefined) {
    this.#http = http;
    this.#settings = settings;
    this.#types = types;
    this.#signal = signal;
  }

  /**
   * `settings`: those of an insert without a token. Asks which types the server must be told to allow, since the table
   * has them.
   */
  static async open(http: ClickHouseHttp, settings: Settings, signal?: AbortSignal): Promise<RowTrial> {
    const pins = Object.keys(truthfulLooks)
      .map((name) => `'${name}'`)
      .join(', ');
    const rows = await http.select<{ name: string }>(`${SELECT_TYPES} OR name IN (${pins})`);
    const known = rows.map(({ name }) => name);
    const pinned = Object.fromEntries(
      known.flatMap((name) => (name in truthfulLooks ? [[name, truthfulLooks[name]!]] : [])),
    );
    return new RowTrial(
      http,
      { ...settings, ...pinned },
      allowed(known.filter((name) => !(name in truthfulLooks))),
      signal,
    );
  }

  /** The first row that cannot be inserted; undefined: each can be read. Constraints and views are not tried. */
  async refusal(table: Table, rows: Buffer, further: Settings = {}): Promise<RefusedRow | undefined> {
    const answer = await this.#ask(
      'SELECT ignore(*) FROM ',
      structureOf(table),
      { rows, tail: ' FORMAT Null' },
      further,
    );
    return answer.code === undefined ? undefined : this.#refused(answer);
  }

  /** How many of the rows can be read. */
  async readable(table: Table, rows: Buffer): Promise<number> {
    const answer = await this.#ask(
      'SELECT count(ignore(*)) AS n FROM ',
      structureOf(table),
      { rows, tail: ' FORMAT JSONEachRow' },
      { input_format_allow_errors_ratio: '1', input_format_skip_unknown_fields: '1' },
    );
    return answer.code === undefined ? Number(linesOf<{ n: number }>(answer.text)[0]?.n ?? 0) : 0;
  }

  /**
   * The types that the server would give the fields of the rows, by the field's name, for `ALTER TABLE … ADD COLUMN`.
   * Undefined: it finds none that fits all of them.
   */
  async types(rows: Buffer): Promise<ReadonlyMap<string, string> | undefined> {
    const answer = await this.#ask('DESCRIBE ', undefined, { rows, tail: ' FORMAT JSONEachRow' });
    if (answer.code !== undefined) return undefined;
    const found = linesOf<{ name: string; type: string }>(answer.text);
    return new Map(found.map(({ name, type }) => [name, type.replaceAll(/\s+/g, ' ').replaceAll('( ', '(')]));
  }

  /** What a SELECT gives over what the server makes of the rows: `{rows}` in its text stands for them. */
  async select<Row>(sql: string, table: Table, rows: Buffer, params: Settings): Promise<readonly Row[] | RefusedRow> {
    const [head = '', tail = ''] = sql.split('{rows}');
    const answer = await this.#ask(head, structureOf(table), { rows, tail: `${tail} FORMAT JSONEachRow` }, params);
    return answer.code === undefined ? linesOf<Row>(answer.text) : this.#refused(answer);
  }

  /** @throws when it is not a row that was refused. */
  #refused({ code, text }: Answer): RefusedRow {
    const row = rowAtFault(code, text);
    const reason = serverReason(text);
    if (row !== undefined && row > 0) return { index: row - 1, reason, code };
    throw new IngestError(
      'KCR_PREFLIGHT',
      `ClickHouse at ${this.#http.address} could not be asked what it makes of records: ${reason}`,
      { serverCode: code },
    );
  }

  async #ask(
    head: string,
    structure: string | undefined,
    { rows, tail }: { readonly rows: Buffer; readonly tail: string },
    further: Settings = {},
  ): Promise<Answer> {
    const body = Buffer.concat([Buffer.from(head), rowsAsTable(structure, rows), Buffer.from(tail)]);
    const types = structure === undefined ? {} : this.#types;
    const params = {
      ...this.#settings,
      ...types,
      ...further,
      query_id: `kcr-look-${randomUUID()}`,
      max_query_size: querySizeOf(rows),
      output_format_json_quote_64bit_integers: '0',
    };
    const answer = await this.#http
      .send({ params, body: wholeBody(body), signal: this.#signal })
      .answer.catch((error: unknown) => {
        if (!(error instanceof ConnectionFailure)) throw error;
        throw new IngestError(
          'KCR_CLICKHOUSE_UNREACHABLE',
          `ClickHouse did not answer what it makes of records: ${error.message}`,
          { hint: error.hint, cause: error },
        );
      });
    if (answer.code !== undefined) return answer;
    if (answer.foreign !== undefined)
      throw new IngestError(
        'KCR_CLICKHOUSE_UNREACHABLE',
        `At ${this.#http.address} another server or a proxy answers: ${answer.foreign.why}`,
        { hint: answer.foreign.hint },
      );
    if (answer.status === 200) return answer;
    throw new IngestError(
      'KCR_CLICKHOUSE_UNREACHABLE',
      `ClickHouse at ${this.#http.address} answered HTTP status ${answer.status}: ${answer.text.slice(0, 200)}`,
    );
  }
}

/** Of a text that rows stand in. */
export function querySizeOf(rows: Buffer): string {
  return String(rows.length + QUERY_ROOM_BYTES);
}

/** What stands behind FROM. Without a structure the server finds one out. */
export function rowsAsTable(structure: string | undefined, rows: Buffer): Buffer {
  // A text that no value has ends the rows, whatever is in them.
  const mark = `$kcr_${randomUUID().replaceAll('-', '')}$`;
  const columns = structure === undefined ? '' : `${quoteText(structure)}, `;
  return Buffer.concat([Buffer.from(`format('JSONEachRow', ${columns}${mark}`), rows, Buffer.from(`${mark})`)]);
}

/** As they are sent by an insert. `records` are of one topic and partition, and each is one JSON object. */
export function rowsOf(records: Records, provenance: Provenance, topic: string, partition: number): Buffer {
  const encoder = new RowEncoder(provenance, topic, partition);
  const pieces: Buffer[] = [];
  for (const writer = encoder.rows(records); !writer.isOver;) {
    const piece = Buffer.allocUnsafe(writer.nextBound);
    pieces.push(piece.subarray(0, writer.fill(piece)));
  }
  return Buffer.concat(pieces);
}

/** Columns that an insert fills from the row: not those that the server always makes up itself. */
export function isInsertable({ defaultKind }: Column): boolean {
  return defaultKind !== 'MATERIALIZED' && defaultKind !== 'ALIAS';
}

/** `format` does not read EPHEMERAL columns, so here they are columns like others. */
export function structureOf({ columns }: Table): string {
  return columns
    .map(({ name, type, defaultKind, defaultExpression }) => {
      const kind = defaultKind === 'EPHEMERAL' ? 'DEFAULT' : defaultKind;
      return `${quoteIdentifier(name)} ${type}${kind === '' ? '' : ` ${kind} ${defaultExpression}`}`;
    })
    .join(', ');
}

export function quoteText(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}

function linesOf<Row>(text: string): Row[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Row);
}
