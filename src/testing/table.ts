/**
 * The simulated table, as ClickHouse keeps it: tokens by block and by ClickHouse partition, a window of them, the
 * targets of materialized views. What was measured of the real one is in
 * `docs/guarantees.md`.
 * Imports: errors.
 */
import { IngestError } from '../errors.js';
import { AlterableTable, type TableConfig } from './alterable-table.js';
import { blocksOf, type Block, type Row } from './blocks.js';
import { refusalError } from './refusal.js';
import { TokenWindow } from './token-window.js';

export type { Part, SavedTable, TableConfig } from './alterable-table.js';
export { rowOf, type Block, type Row } from './blocks.js';

/** When an insert takes place, and where the server dies in it. */
export interface InsertOptions {
  readonly nowMs: number;
  /** The server dies after it has noted the token of this block, counted from 0, and before the rows are there. */
  readonly dieAtBlock?: number | undefined;
  /** The server dies before it begins with this block, counted from 0; the ones before are written. */
  readonly dieBeforeBlock?: number | undefined;
  readonly blockRows?: number | undefined;
}

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

/** A table and the targets of its views. It outlives every process. */
export class SimulatedTable extends AlterableTable {
  readonly views: ReadonlyMap<string, Row[]>;
  readonly #viewWindows: ReadonlyMap<string, TokenWindow>;
  #isMended = false;

  constructor(config: TableConfig = {}) {
    const { dedupWindow = 10_000, dedupWindowMs = Infinity, views = [] } = config;
    super(config, new TokenWindow(dedupWindow, dedupWindowMs));
    this.views = new Map(views.map((name) => [name, []]));
    this.#viewWindows = new Map(views.map((name) => [name, new TokenWindow(dedupWindow, dedupWindowMs)]));
  }

  /** From now on no row is refused any more: somebody altered the table. */
  mend(): void {
    this.#isMended = true;
  }

  /** Would the table refuse this row? */
  isPoison(row: Row): boolean {
    return !this.#isMended && this.config.isPoison?.(row) === true;
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
    const blocks = blocksOf(rows, this.config.partitionBy);
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
    return blocksOf(this.#kept(rows), this.config.partitionBy, blockRows);
  }

  /** One block: its token first, then its rows, then the views. `isTorn`: the server dies behind the token. */
  land(
    [name, block]: Block,
    token: string | undefined,
    { nowMs, isTorn = false, feedsViewsAgain = false }: Landing,
  ): void {
    const isNew = token === undefined || !this.definition.keepsTokens || this.window.take(`${token}|${name}`, nowMs);
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
   * Several inserts as one block for each ClickHouse partition: each has its own token there, and what is known of them
   * is left out. A refused row refuses all of them: its number is given, counted from 1 over the rows of all.
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
      for (const [name, block] of this.blocksOf(rows))
        blocks.set(name, [...(blocks.get(name) ?? []), { token, index, rows: block }]);
    });
    for (const [name, parts] of blocks) {
      const noted = dieAtInsert === undefined ? parts : parts.filter(({ index }) => index <= dieAtInsert);
      const fresh = noted.filter(
        ({ token }) => !isKept || !this.definition.keepsTokens || this.window.take(`${token}|${name}`, nowMs),
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
   * Another writer's blocks push the oldest tokens out of the window. That takes seconds, of which no time is made
   * here: the server's next one begins.
   */
  fillWindow(blocks: number, nowMs: number): void {
    this.aheadMs += (1_000 - ((nowMs + this.aheadMs) % 1_000)) % 1_000;
    for (let i = 0; i < blocks; i++) {
      const block = `other|${nowMs}|${i}`;
      this.window.take(block, nowMs);
      this.#noteBlock(1, nowMs);
      for (const window of this.#viewWindows.values()) window.take(block, nowMs);
    }
  }

  /** The blocks whose tokens are remembered, the oldest first. */
  knownBlocks(): readonly string[] {
    return this.window.blocks();
  }

  /** A column that is not there is not written. */
  #kept(rows: readonly Row[]): readonly Row[] {
    return this.definition.hasProvenance ? rows : rows.map((row): Row => ({ ...row, isBlank: true }));
  }
}
