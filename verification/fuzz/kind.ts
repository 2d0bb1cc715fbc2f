// What a fuzzer of one kind is: cases by number, each wholly decided by the seed.

export const kindNames = ['values', 'neighbourhoods', 'batches', 'answers'] as const;
export type KindName = (typeof kindNames)[number];

/** How long no case may end before the one under way is looked at as a hang, milliseconds. A suspect is tried again alone. */
export const hangMs: Readonly<Record<KindName, number>> = {
  values: 5_000,
  batches: 8_000,
  answers: 15_000,
  neighbourhoods: 120_000,
};

/** One case in which the product and the oracle differ. */
export interface Finding {
  /** What is wrong, in words that are the same for every input that fails in this way, but for numbers and quotes. */
  readonly what: string;
  /** The input as short as it could be made, escaped or in base64. */
  readonly input: string;
}

export interface Kind {
  /** Cases that may be under way at once. */
  readonly concurrency: number;
  run(caseNumber: number): Finding | undefined | Promise<Finding | undefined>;
  /** At the end of a run: what could be judged only together, and what was opened is closed. */
  close?(): Promise<void>;
}

export interface KindOptions {
  readonly seed: number;
  /** The product is replaced by one that is broken on purpose, to see that the fuzzer can fail. */
  readonly control: boolean;
  /** The reader of record batches never ends where a marker stands, to see that the watch can tell. */
  readonly loopsAtMarkers?: boolean;
  /** Address of a ClickHouse; only the kind `neighbourhoods` needs one. */
  readonly clickhouseUrl?: string | undefined;
  /** Findings are made short. @default true */
  readonly shrink?: boolean;
}

/** A kind's code is loaded only where it runs: some open sockets or start WebAssembly. */
export async function openKind(name: KindName, options: KindOptions): Promise<Kind> {
  switch (name) {
    case 'values':
      return (await import('./values/kind.js')).openValues(options);
    case 'batches':
      return (await import('./batches/kind.js')).openBatches(options);
    case 'answers':
      return (await import('./answers/kind.js')).openAnswers(options);
    case 'neighbourhoods':
      return (await import('./neighbourhoods/kind.js')).openNeighbourhoods(options);
  }
}

/** Findings of one fault look alike: the text without what differs from case to case. */
export function signatureOf({ what }: Pick<Finding, 'what'>): string {
  return what.replace(/"(?:[^"\\]|\\.)*"/g, '"…"').replace(/\d+/g, '#');
}
