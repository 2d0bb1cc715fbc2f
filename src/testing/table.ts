/**
 * Room: the simulated table, as ClickHouse keeps it: tokens by block and by ClickHouse partition, a window of them, the
 * targets of materialized views. Only the model and errors may enter. What was measured of the real one is in
 * `docs/guarantees.md`.
 */
import type { TableNow } from '../clickhouse/verify/evidence.js';
import { IngestError } from '../errors.js';
import type { KafkaRecord } from '../model/record.js';
import type { Alteration, TableDefinition } from './alteration.js';
import { refusalError, type Refusal } from './refusal.js';
import { TokenWindow } from './token-window.js';

/** A row, by what its provenance columns say. */
export interface Row {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  /** The record's timestamp, unique in a simulated world. */
  readonly timestampMs: number;
  readonly value: Buffer | null;
  /** Its provenance columns are empty: it was sent without them, or they were dropped since. */
  readonly isBlank?: true;
}

export interface TableConfig {
  /** Blocks whose tokens are remembered, the oldest forgotten first. @default 10000 */
  readonly dedupWindow?: number;
  /** How long a token is remembered, milliseconds; undefined: for as long as the window has room. */
  readonly dedupWindowMs?: number;
  /** How long the sink relies on a token, milliseconds. @default as the sink that ships: ten minutes, at most half of the above */
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
  /** A plain MergeTree can forget the rows but not the token when it is killed; a replicated one cannot. @default 'plain' */
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

export interface InsertOptions {
  readonly nowMs: number;
  /** The server dies after it has noted the token of this block, counted from 0, and before the rows are there. */
  readonly dieAtBlock?: number | undefined;
  /** The server dies before it begins with this block, counted from 0; the ones before are written. */
  readonly dieBeforeBlock?: number | undefined;
  readonly blockRows?: number | undefined;
}

/** A block that was written: by the server's clock, milliseconds. */
export interface Part {
  readonly atMs: number;
  readonly rows: number;
}

/** A block of an insert, and the part of its token that tells it from the others. */
export type Block = readonly [name: string, rows: readonly Row[]];

export interface Landing {
  readonly nowMs: number;
  readonly isTorn?: boolean;
  /** Its views' tokens do not count. */
  readonly feedsViewsAgain?: boolean;
}

/** One of several inserts that are written together. */
export interface Together {
  readonly rows: readonly Row[];
  readonly token: string;
}

/** What a table holds at a moment. */
export interface SavedTable {
  readonly rows: readonly Row[];
  readonly startedMs: number;
  readonly tokens: ReadonlyMap<string, number>;
}

/** A table and the targets of its views. It outlives every process. */
export class SimulatedTable {
  readonly config: TableConfig;
  readonly rows: Row[] = [];
  /** When the server that has it was started; a kill is followed by a start. */
  startedMs = 0;
  readonly views: ReadonlyMap<string, Row[]>;
  readonly #window: TokenWindow;
  readonly #viewWindows: ReadonlyMap<string, TokenWindow>;
  #isMended = false;
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

  constructor(config: TableConfig = {}) {
    const { dedupWindow = 10_000, dedupWindowMs = Infinity, views = [] } = config;
    this.config = config;
    this.#window = new TokenWindow(dedupWindow, dedupWindowMs);
    this.views = new Map(views.map((name) => [name, []]));
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
    this.#viewWindows = new Map(views.map((name) => [name, new TokenWindow(dedupWindow, dedupWindowMs)]));
  }

  /** From now on no row is refused any more: somebody altered the table. */
  mend(): void {
    this.#isMended = true;
  }

  isPoison(row: Row): boolean {
    return !this.#isMended && this.config.isPoison?.(row) === true;
  }

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
        this.#window.restore(new Map());
        return this.#define({ alteredS, keepsTokens: alteration === 'toggle window' });
      case 'restore window':
        return this.#define({ alteredS, keepsTokens: true });
      case 'exchange':
        return this.#exchange(alteredS);
      case 'recreate':
        this.#dropped.push(this.rows.splice(0));
        this.parts = [];
        this.#window.restore(new Map());
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
      tokens: this.#window.save(),
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
    this.#window.restore(other.tokens);
  }

  /** As `ALTER TABLE … DELETE WHERE 1`: tokens are kept. */
  deleteRows(): void {
    this.rows.length = 0;
  }

  /**
   * All blocks or, when the server dies in between, the first ones. A refused row refuses the whole insert, or all from
   * its block on. Errors: as `refusal` says, `KCR_INSERT_IN_DOUBT` when the server died.
   */
  insert(
    rows: readonly Row[],
    token: string | undefined,
    { nowMs, dieAtBlock, dieBeforeBlock, blockRows = this.config.blockRows }: InsertOptions,
  ): void {
    const blocks = this.blocksOf(rows, blockRows);
    const refusedBlock = blocks.findIndex(([, block]) => block.some((row) => this.isPoison(row)));
    if (refusedBlock >= 0) {
      const { refusal = 'named', refusesLate = false, partitionBy } = this.config;
      if (refusesLate) this.#land(blocks.slice(0, refusedBlock), token, nowMs);
      throw refusalError(
        refusal,
        blocks[refusedBlock]![1].find((row) => this.isPoison(row))!,
        partitionBy !== undefined,
      );
    }
    this.#land(blocks.slice(0, dieBeforeBlock), token, nowMs, dieAtBlock);
    if (dieBeforeBlock !== undefined) this.#die();
  }

  /** Would an insert of these rows change nothing? */
  refusesAll(rows: readonly Row[]): boolean {
    const blocks = this.#blocks(rows);
    const refusedBlock = blocks.findIndex(([, block]) => block.some((row) => this.isPoison(row)));
    return this.config.refusesLate === true ? refusedBlock === 0 : refusedBlock >= 0;
  }

  #land(blocks: readonly Block[], token: string | undefined, nowMs: number, dieAtBlock?: number): void {
    blocks.forEach((block, index) => {
      this.land(block, token, { nowMs, isTorn: index === dieAtBlock });
      if (index === dieAtBlock) this.#die();
    });
  }

  #die(): never {
    this.startedMs += 60_000;
    throw new IngestError('KCR_INSERT_IN_DOUBT', 'the server died in the middle of the insert');
  }

  /** The blocks that an insert of these rows is cut into, with what their tokens are told apart by. */
  blocksOf(rows: readonly Row[], blockRows?: number): readonly Block[] {
    return this.#blocks(this.#kept(rows), blockRows);
  }

  /** One block: its token first, then its rows, then the views. `isTorn`: the server dies behind the token. */
  land(
    [name, block]: Block,
    token: string | undefined,
    { nowMs, isTorn = false, feedsViewsAgain = false }: Landing,
  ): void {
    const isNew = token === undefined || !this.#definition.keepsTokens || this.#window.take(`${token}|${name}`, nowMs);
    if (isTorn) return;
    if (isNew) this.#write(block, nowMs);
    // A view is given the block also when the table has it already; its own target's window decides.
    for (const [view, target] of this.views) {
      if (token === undefined || feedsViewsAgain || this.#viewWindows.get(view)!.take(`${token}|${name}`, nowMs))
        target.push(...block);
    }
  }

  /** Takes a block away again, as a server does with a part that Keeper does not know. Its token was never noted. */
  drop([, block]: Block): void {
    const gone = new Set(block);
    const isGone = (row: Row): boolean => gone.delete(row);
    this.rows.splice(0, this.rows.length, ...this.rows.filter((row) => !isGone(row)));
  }

  /**
   * Several inserts as one block for each ClickHouse partition: each has its own token there, and what is known of them is
   * left out. A refused row refuses all of them: its number is given, counted from 1 over the rows of all.
   *
   * `dieAtInsert`: the server dies after it has noted the tokens of the first block up to that of this insert, and
   * before the rows are there.
   */
  insertTogether(
    inserts: readonly Together[],
    { nowMs, dieAtInsert }: { readonly nowMs: number; readonly dieAtInsert?: number },
  ): number | undefined {
    const refused = inserts.flatMap(({ rows }) => rows).findIndex((row) => this.isPoison(row));
    if (refused >= 0) return refused + 1;
    const isKept = this.config.forgetsTogether !== true;
    const blocks = new Map<
      string,
      { readonly token: string; readonly index: number; readonly rows: readonly Row[] }[]
    >();
    inserts.forEach(({ rows, token }, index) => {
      for (const [name, block] of this.#blocks(this.#kept(rows)))
        blocks.set(name, [...(blocks.get(name) ?? []), { token, index, rows: block }]);
    });
    for (const [name, parts] of blocks) {
      const noted = dieAtInsert === undefined ? parts : parts.filter(({ index }) => index <= dieAtInsert);
      const fresh = noted.filter(
        ({ token }) => !isKept || !this.#definition.keepsTokens || this.#window.take(`${token}|${name}`, nowMs),
      );
      if (dieAtInsert !== undefined) {
        this.startedMs += 60_000;
        return undefined;
      }
      if (fresh.length > 0)
        this.#write(
          fresh.flatMap(({ rows }) => rows),
          nowMs,
        );
      for (const [view, target] of this.views) {
        for (const { token, rows } of parts)
          if (!isKept || this.#viewWindows.get(view)!.take(`${token}|${name}`, nowMs)) target.push(...rows);
      }
    }
    return undefined;
  }

  #write(block: readonly Row[], nowMs: number): void {
    this.rows.push(...block);
    this.#noteBlock(block.length, nowMs);
  }

  #noteBlock(rows: number, nowMs: number): void {
    this.parts = [...this.parts, { atMs: nowMs + this.aheadMs, rows }];
  }

  /**
   * Another writer's blocks push the oldest tokens out of the window. That takes seconds, of which no time is made here: the
   * server's next one begins.
   */
  fillWindow(blocks: number, nowMs: number): void {
    this.aheadMs += (1_000 - ((nowMs + this.aheadMs) % 1_000)) % 1_000;
    for (let i = 0; i < blocks; i++) {
      const block = `other|${nowMs}|${i}`;
      this.#window.take(block, nowMs);
      this.#noteBlock(1, nowMs);
      for (const window of this.#viewWindows.values()) window.take(block, nowMs);
    }
  }

  /** The blocks whose tokens are remembered, the oldest first. */
  knownBlocks(): readonly string[] {
    return this.#window.blocks();
  }

  /** Without views, parts, and what was mended or altered: the worlds that are explored to the end have neither. */
  save(): SavedTable {
    return { rows: [...this.rows], startedMs: this.startedMs, tokens: this.#window.save() };
  }

  restore({ rows, startedMs, tokens }: SavedTable): void {
    this.parts = [];
    this.rows.splice(0, this.rows.length, ...rows);
    this.startedMs = startedMs;
    this.#window.restore(tokens);
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

  /** A column that is not there is not written. */
  #kept(rows: readonly Row[]): readonly Row[] {
    return this.#definition.hasProvenance ? rows : rows.map((row): Row => ({ ...row, isBlank: true }));
  }

  #blocks(rows: readonly Row[], blockRows = Infinity): readonly Block[] {
    const { partitionBy } = this.config;
    if (partitionBy === undefined && rows.length <= blockRows) return [['all|0', rows]];
    const cut =
      blockRows === Infinity
        ? [rows]
        : Array.from({ length: Math.ceil(rows.length / blockRows) }, (_, i) =>
            rows.slice(i * blockRows, (i + 1) * blockRows),
          );
    return cut.flatMap((part, ordinal) => {
      const groups = new Map<string, Row[]>();
      for (const row of part) {
        const key = partitionBy?.(row) ?? 'all';
        const group = groups.get(key);
        if (group === undefined) groups.set(key, [row]);
        else group.push(row);
      }
      return [...groups].map(([key, block]) => [`${key}|${ordinal}`, block] as const);
    });
  }
}

function counted(
  rows: readonly Row[],
  topic: string,
  partition: number,
  first: number,
  last: number,
  isSeen: (row: Row) => boolean,
): ReadonlyMap<number, number> {
  const found = new Map<number, number>();
  for (const row of rows) {
    if (row.topic !== topic || row.partition !== partition || row.offset < first || row.offset > last || !isSeen(row))
      continue;
    found.set(row.offset, (found.get(row.offset) ?? 0) + 1);
  }
  return found;
}

/** The row that a record becomes. */
export function rowOf(topic: string, partition: number, { offset, timestampMs, value }: KafkaRecord): Row {
  return { topic, partition, offset, timestampMs, value };
}
