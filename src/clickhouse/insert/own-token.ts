/**
 * The token of a batch that no intent was recorded for, in at-least-once and at-most-once: it lives as long as this
 * process, and keeps a lost reply from doubling the rows. Imports: Node.
 */
import { randomUUID } from 'node:crypto';
import { sameRun, type ServerIdentity } from './settings.js';
import type { SinkContext } from './sink-context.js';

/**
 * A plain MergeTree writes a token to its log before the part is there, so a kill in between makes a retry answer 200
 * with the rows missing. Nothing is read back here: a token is sent again only to the very run of the server that had
 * it first.
 */
export class OwnToken {
  readonly #context: Pick<SinkContext, 'server' | 'identify'>;
  #token = newToken();
  #sentTo: ServerIdentity | undefined;

  constructor(context: Pick<SinkContext, 'server' | 'identify'>) {
    this.#context = context;
  }

  /** For the next attempt; `mayHaveLanded`: one before it may have. */
  async take(mayHaveLanded: boolean): Promise<string> {
    const now = mayHaveLanded ? await this.#whoIsThere() : this.#context.server;
    if (mayHaveLanded && !isSameRun(this.#sentTo, now)) this.#token = newToken();
    this.#sentTo = now;
    return this.#token;
  }

  /** After a later attempt was answered: why that proves nothing; undefined: it does. */
  async fault(): Promise<string | undefined> {
    if (isSameRun(this.#sentTo, await this.#whoIsThere())) return undefined;
    return (
      'the server was restarted while the insert was made again, or cannot be asked: what it answered may be ' +
      'about rows that it has lost'
    );
  }

  async #whoIsThere(): Promise<ServerIdentity | undefined> {
    try {
      return await this.#context.identify();
    } catch {
      return undefined;
    }
  }
}

function isSameRun(before: ServerIdentity | undefined, now: ServerIdentity | undefined): boolean {
  return now !== undefined && sameRun(before, now);
}

function newToken(): string {
  return `kcr-own:${randomUUID()}`;
}
