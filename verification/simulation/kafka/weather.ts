// Imports: the dice. What goes wrong between a process and a broker while the weather is bad, drawn request by request.
import type { Dice } from '../scenario.js';

export type Fate =
  | { readonly kind: 'none' | 'cut before' | 'cut after' | 'silent before' | 'silent after' }
  /** The connection breaks at once; the request takes effect so much later. */
  | { readonly kind: 'late'; readonly ms: number }
  | { readonly kind: 'slow'; readonly ms: number };

export interface WeatherConfig {
  /** Of a hundred requests so many meet something on their way, and so many are refused. */
  readonly lost: number;
  readonly refused: number;
  /** How long what hangs on its way may hang. */
  readonly longestMs: number;
  /** Requests of these kinds only. @default all */
  readonly only?: readonly string[] | undefined;
}

const NONE: Fate = { kind: 'none' };
export const CALM: WeatherConfig = { lost: 0, refused: 0, longestMs: 0 };

/** The codes with which a broker may refuse a request, and what it does beside. */
const REFUSALS: Readonly<Record<string, readonly number[]>> = {
  FindCoordinator: [15],
  JoinGroup: [14, 15, 16],
  SyncGroup: [14, 16, 27],
  Heartbeat: [14, 15, 16, 22, 25, 82],
  OffsetCommit: [3, 7, 14, 15, 16, 22, 25, 27],
  OffsetFetch: [14, 16],
  ListOffsets: [3, 5, 6, 74, 78],
  Fetch: [3, 5, 6, 56, 74, 75, 78, 100, 103],
  Metadata: [5],
};
/** Of a whole fetch. */
const FETCH_REFUSALS = [-1, 56, 7, 14];

export class Weather {
  config: WeatherConfig = CALM;

  constructor(private readonly dice: Dice) {}

  get isCalm(): boolean {
    return this.config.lost === 0 && this.config.refused === 0;
  }

  isBlackHole(): boolean {
    return !this.isCalm && this.dice.chance(0.3);
  }

  fateOf(api: string): Fate {
    const { lost, longestMs } = this.config;
    if (lost === 0 || !this.#isMeant(api) || !this.dice.chance(lost / 100)) return NONE;
    const kind = this.dice.of(
      'cut before',
      'cut after',
      'cut after',
      'silent before',
      'silent after',
      'late',
      'late',
      'slow',
    );
    return kind === 'late' || kind === 'slow' ? { kind, ms: this.dice.int(1, longestMs) } : { kind };
  }

  /** 0: it is not refused. */
  refusalOf(api: string): number {
    const { refused } = this.config;
    if (refused === 0 || !this.#isMeant(api) || !this.dice.chance(refused / 100)) return 0;
    return this.dice.of(...(REFUSALS[api] ?? [0]));
  }

  refusalOfWholeFetch(): number {
    const { refused } = this.config;
    return refused > 0 && this.#isMeant('Fetch') && this.dice.chance(refused / 200)
      ? this.dice.of(...FETCH_REFUSALS)
      : 0;
  }

  /** Of an answer with code 7: was it done all the same? */
  isDone(): boolean {
    return this.dice.chance(0.5);
  }

  #isMeant(api: string): boolean {
    return this.config.only === undefined || this.config.only.includes(api);
  }
}
