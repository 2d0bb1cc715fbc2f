/**
 * What the simulated table is, and what becomes of it when somebody alters, exchanges or drops it.
 * Imports: clickhouse/verify.
 */
import type { TableNow } from '../clickhouse/verify/evidence.js';
import type { Alteration, TableDefinition } from './alteration.js';
import { counted, type Row } from './blocks.js';
import type { Refusal } from './refusal.js';
import type { TokenWindow } from './token-window.js';

/** What the simulated table remembers, refuses and forgets. */
export interface TableConfig {
  /** Blocks whose tokens are remembered, the oldest forgotten first. @default 10000 */
  readonly dedupWindow?: number;
  /** How long a token is remembered, milliseconds; undefined: for as long as the window has room. */
  readonly dedupWindowMs?: number;
  /**
   * How long the sink relies on a token, milliseconds. @default as the sink that ships: ten minutes, at most half of
   * the above
   */
  readonly budgetMs?: number;
  /** Names of the tables that materialized views fill from this one. @default [] */
  readonly views?: readonly string[];
  /** PARTITION BY: rows of one insert that differ in it are blocks of their own. @default one partition */
  readonly partitionBy?: (row: Row) => string;
  /** The table has provenance columns, by which a range can be read back. @default true */
  readonly provenance?: boolean;
  /** Among the provenance columns is `_topic`. @default true */
  readonly hasTopic?: boolean;
  /** The server says when the table was altered last. @default true */
  readonly tellsTime?: boolean;
  /**
   * A plain MergeTree can forget the rows but not the token when it is killed; a replicated one cannot. @default
   * 'plain'
   */
  readonly family?: 'plain' | 'replicated';
  /** A row the server refuses, with the whole insert. @default none */
  readonly isPoison?: (row: Row) => boolean;
  /** What is said of such a row. @default 'named' */
  readonly refusal?: Refusal;
  /** A row is refused when its block is written: the blocks before it have landed. @default false */
  readonly refusesLate?: boolean;
  /**
   * Rows of a block: settings that are not pinned would cut an insert into several.
   * @default Infinity: one block
   */
  readonly blockRows?: number;
  /** Does the server forget the tokens of inserts that it writes together, as old ones do? @default false */
  readonly forgetsTogether?: boolean;
}

/** A block that was written: by the server's clock, milliseconds. */
export interface Part {
  readonly atMs: number;
  readonly rows: number;
}

/** What a table holds at a moment. */
export interface SavedTable {
  readonly rows: readonly Row[];
  readonly startedMs: number;
  readonly tokens: ReadonlyMap<string, number>;
}

/** One name, behind which there may be another table from time to time. */
export class AlterableTable {
  readonly config: TableConfig;
  readonly rows: Row[] = [];
  /** When the server that has it was started; a kill is followed by a start. */
  startedMs = 0;
  protected readonly window: TokenWindow;
  #definition: TableDefinition;
  /** Behind the name of another table, while the tables are exchanged. */
  #exchanged:
    | {
        readonly rows: readonly Row[];
        readonly definition: TableDefinition;
        readonly tokens: ReadonlyMap<string, number>;
        readonly parts: readonly Part[];
      }
    | undefined;
  /** Of tables that were dropped. */
  readonly #dropped: (readonly Row[])[] = [];
  #tables = 1;
  #alterations = 0;

  constructor(config: TableConfig, window: TokenWindow) {
    this.config = config;
    this.window = window;
    this.#definition = {
      id: 'table 1',
      hasProvenance: config.provenance ?? true,
      keepsTokens: true,
      more: 0,
      alteredS: 0,
      mutation: 0,
      isHidden: false,
      isGone: false,
    };
  }

  /** What the table is at this moment: its columns and its uuid. */
  get definition(): TableDefinition {
    return this.#definition;
  }

  /** Inserts that a server is at. */
  busy = 0;
  /** Blocks that were written, ours and those of others, the oldest first. */
  parts: readonly Part[] = [];
  /** By how much the server's clock is ahead, milliseconds. */
  aheadMs = 0;

  /** As a process that looks at it sees it. */
  now(): TableNow {
    const { id, hasProvenance, keepsTokens, more, alteredS, mutation } = this.#definition;
    const { family = 'plain', tellsTime = true } = this.config;
    return {
      id,
      columns: hasProvenance ? 'tpo-1' : '',
      shape: `${hasProvenance ? 'with' : 'without'} provenance and ${more}`,
      ...(tellsTime ? { alteredS } : {}),
      mutation,
      family,
      keepsTokens,
    };
  }

  /** Every row that was ever written, where nobody deleted it: of tables that were exchanged or dropped, too. */
  get everywhere(): readonly Row[] {
    return this.tables.flat();
  }

  /** The same, table by table. */
  get tables(): readonly (readonly Row[])[] {
    return [this.rows, ...(this.#exchanged === undefined ? [] : [this.#exchanged.rows]), ...this.#dropped];
  }

  /** Changes the table, as somebody would while an ingestion runs. */
  alter(alteration: Alteration): void {
    const alteredS = ++this.#alterations;
    switch (alteration) {
      case 'add provenance':
        return this.#define({ alteredS, hasProvenance: true });
      case 'drop provenance':
      case 'drop and add provenance':
        if (!this.#definition.hasProvenance) return;
        this.rows.splice(0, this.rows.length, ...this.rows.map((row): Row => ({ ...row, isBlank: true })));
        return this.#define({ alteredS, mutation: alteredS, hasProvenance: alteration === 'drop and add provenance' });
      case 'add column':
        return this.#define({ alteredS, more: alteredS });
      case 'remove window':
      case 'toggle window':
        this.window.restore(new Map());
        return this.#define({ alteredS, keepsTokens: alteration === 'toggle window' });
      case 'restore window':
        return this.#define({ alteredS, keepsTokens: true });
      case 'exchange':
        return this.#exchange(alteredS);
      case 'recreate':
        this.#dropped.push(this.rows.splice(0));
        this.parts = [];
        this.window.restore(new Map());
        return this.#define({ alteredS, mutation: 0, id: `table ${++this.#tables}` });
      case 'hide rows':
        return this.#define({ isHidden: true });
      case 'rename away':
      case 'rename back':
        return this.#define({ isGone: alteration === 'rename away' });
    }
  }

  #define(change: Partial<TableDefinition>): void {
    this.#definition = { ...this.#definition, ...change };
  }

  #exchange(alteredS: number): void {
    const before = {
      rows: [...this.rows],
      definition: this.#definition,
      tokens: this.window.save(),
      parts: this.parts,
    };
    const other = this.#exchanged ?? {
      rows: [],
      definition: { ...this.#definition, id: `table ${++this.#tables}`, alteredS, mutation: 0 },
      tokens: new Map<string, number>(),
      parts: [],
    };
    this.#exchanged = before;
    this.rows.splice(0, this.rows.length, ...other.rows);
    this.#definition = other.definition;
    this.parts = other.parts;
    this.window.restore(other.tokens);
  }

  /** As `ALTER TABLE … DELETE WHERE 1`: tokens are kept. */
  deleteRows(): void {
    this.rows.length = 0;
  }

  /** Without views, parts, and what was mended or altered: the worlds that are explored to the end have neither. */
  save(): SavedTable {
    return { rows: [...this.rows], startedMs: this.startedMs, tokens: this.window.save() };
  }

  /** Puts rows and tokens back to what `save` gave. */
  restore({ rows, startedMs, tokens }: SavedTable): void {
    this.parts = [];
    this.rows.splice(0, this.rows.length, ...rows);
    this.startedMs = startedMs;
    this.window.restore(tokens);
  }

  /** Rows by offset, as `SELECT _offset, count() … GROUP BY _offset` tells them. */
  count(topic: string, partition: number, first: number, last: number): ReadonlyMap<number, number> {
    return this.#definition.isHidden
      ? new Map()
      : counted(this.rows, topic, partition, first, last, (row) => row.isBlank !== true);
  }

  /** Rows by offset, whether or not they can be seen, and in whichever table they are. */
  countAll(topic: string, partition: number, first: number, last: number): ReadonlyMap<number, number> {
    return counted(this.everywhere, topic, partition, first, last, () => true);
  }
}
