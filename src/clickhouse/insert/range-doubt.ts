/**
 * What a sink knows of the attempts at one range, and the last word before something of it is sent. The stage asks
 * before an attempt; since then there was a wait for a slot, and perhaps a process that was frozen. Decides for the
 * simulated sink, too. No clock, no wire. Imports: clickhouse/verify, errors, model, ports.
 */
import { hasCode, IngestError } from '../../errors.js';
import type { Intent } from '../../model/state.js';
import type { InsertBatch } from '../../ports.js';
import { isSameTable, type TableDoubt, type TableNow } from '../verify/evidence.js';
import { type Known, sendingDoubt } from './token-doubt.js';

/** What a token is judged by, its table included. */
export interface KnownNow extends Known {
  readonly table: TableNow;
}

export class RangeDoubt {
  readonly #intent: Intent | undefined;
  /** An attempt of this process or of one before it may have landed. */
  #mayHaveLanded: boolean;
  /** When the table was asked for the range last, and what it was. */
  #looked: { readonly atMs: number; readonly table: TableNow } | undefined;

  constructor({ intent, token, replay }: Pick<InsertBatch, 'intent' | 'token' | 'replay'>) {
    this.#intent = token === undefined ? undefined : intent;
    this.#mayHaveLanded = replay;
  }

  get mayHaveLanded(): boolean {
    return this.#mayHaveLanded;
  }

  /**
   * Why the table must be asked before the range is sent; undefined: the token tells. Nothing was promised where
   * nothing is recorded.
   */
  why(known: KnownNow, nowMs: number): TableDoubt | undefined {
    if (this.#intent === undefined) return undefined;
    return sendingDoubt(this.#intent, known, nowMs, this.#mayHaveLanded ? known.table : undefined);
  }

  /**
   * Is the token relied on where a look shows nothing? To be asked again with what is known then. Only a doubt about
   * the token may be overruled; who asks for another reason wants to know what is there.
   */
  trusting(asked: string | undefined, known: KnownNow, nowMs: number): (then: KnownNow, thenMs: number) => boolean {
    const isAboutToken = this.why(known, nowMs)?.why === asked;
    return (then, thenMs) => isAboutToken && this.why(then, thenMs)?.mayTrust !== false;
  }

  /** Why nothing may be sent now; undefined: it may. `seen`: the table as it is taken for at the moment. */
  lastWord(known: KnownNow, nowMs: number, seen: TableNow = known.table): string | undefined {
    const doubt = this.why(known, nowMs);
    if (doubt === undefined) return undefined;
    const looked = this.#looked;
    const isFresh = looked !== undefined && nowMs - looked.atMs <= known.budgetMs && isSameTable(looked.table, seen);
    return isFresh ? undefined : `not sent before the table was asked: ${doubt.why}`;
  }

  noteLook(atMs: number, table: TableNow): void {
    this.#looked = { atMs, table };
  }

  /** Of an attempt. Also of what was refused blocks of other ClickHouse partitions may be there. */
  noteFailure(error: unknown): void {
    if (hasCode(error, 'KCR_INSERT_IN_DOUBT') || (error instanceof IngestError && error.fields.mayHaveLanded === true))
      this.#mayHaveLanded = true;
  }
}
