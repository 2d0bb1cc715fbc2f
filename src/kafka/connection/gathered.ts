/**
 * Calls that wait go together as one call, one at a time. Knows nothing of Kafka. Imports: nothing.
 */
import { breathe } from './wait.js';

export type Outcome<Answer> = { readonly value: Answer } | { readonly error: unknown };

interface Waiting<Item, Answer> {
  readonly item: Item;
  readonly settle: (outcome: Outcome<Answer>) => void;
}

/** So many answers are handed out in one turn of the event loop: whoever waits for one goes on in that turn. */
const ANSWERS_A_TURN = 32;

export interface GatheredConfig<Item, Answer> {
  /** One outcome for each item, in their order; what it throws is the outcome of each. */
  readonly call: (items: readonly Item[]) => Promise<readonly Outcome<Answer>[]>;
  /** How many of those that wait go into the next call, oldest first; at least 1. @default all */
  readonly take?: (waiting: readonly Item[]) => number;
}

/** A call includes only what was asked for before it was made, so its answer is never older than the question. */
export class Gathered<Item, Answer> {
  readonly #config: GatheredConfig<Item, Answer>;
  #waiting: Waiting<Item, Answer>[] = [];
  #isBusy = false;

  constructor(config: GatheredConfig<Item, Answer>) {
    this.#config = config;
  }

  ask(item: Item): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const settle = (outcome: Outcome<Answer>): void => {
        // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- as the call threw it
        if ('error' in outcome) reject(outcome.error);
        else resolve(outcome.value);
      };
      this.#waiting.push({ item, settle });
      if (this.#isBusy) return;
      this.#isBusy = true;
      // What is asked for in the same breath goes along.
      queueMicrotask(() => void this.#run());
    });
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0) {
      const items = this.#waiting.map(({ item }) => item);
      const going = this.#waiting.splice(0, Math.max(1, this.#config.take?.(items) ?? items.length));
      await this.#goTogether(going);
    }
    this.#isBusy = false;
  }

  async #goTogether(going: readonly Waiting<Item, Answer>[]): Promise<void> {
    let outcomes: readonly Outcome<Answer>[];
    try {
      outcomes = await this.#config.call(going.map(({ item }) => item));
    } catch (error) {
      outcomes = going.map(() => ({ error }));
    }
    for (const [i, { settle }] of going.entries()) {
      if (i > 0 && i % ANSWERS_A_TURN === 0) await breathe();
      settle(outcomes[i] ?? { error: new Error('the call gave fewer answers than it was asked for') });
    }
  }
}
