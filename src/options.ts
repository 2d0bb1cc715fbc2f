/**
 * What every adapter checks of its options, and how it says so. Each rule stands in the adapter that it is about; the
 * configuration's schema is made of the same limits and calls the same checks. Imports: errors.
 */
import { IngestError } from './errors.js';

/** An option that cannot be used. */
export interface OptionFault {
  /** Its name; a dot stands before what lies within it. */
  readonly option: string;
  /** What is wrong, or, where `got` says what came instead, what it is expected to be. */
  readonly what: string;
  /** Only of what holds no secret. */
  readonly got?: unknown;
  readonly hint?: string;
}

export function optionRefused(fault: OptionFault): IngestError {
  const { option, what, got, hint } = fault;
  const message = 'got' in fault ? `Expected \`${option}\` to be ${what}, got ${shown(got)}` : `\`${option}\`: ${what}`;
  return new IngestError('KCR_CONFIG', message, hint === undefined ? {} : { hint });
}

/** @throws `KCR_CONFIG` where there is one. */
export function refuseFault(fault: OptionFault | undefined): void {
  if (fault !== undefined) throw optionRefused(fault);
}

function shown(value: unknown): string {
  return JSON.stringify(value) ?? String(value);
}

/** The most that an integer may be; the least is 1. */
export type Limits = Readonly<Record<string, number>>;

/** Of every duration, milliseconds: a day. */
export const MAX_DURATION_MS = 86_400_000;

/** The first of the options that is given and is no positive integer up to its limit. */
export function limitFault(options: object, limits: Limits): OptionFault | undefined {
  for (const [option, most] of Object.entries(limits)) {
    const got = (options as Readonly<Record<string, unknown>>)[option];
    if (got === undefined || (Number.isInteger(got) && (got as number) >= 1 && (got as number) <= most)) continue;
    return { option, what: `a positive integer of at most ${most}`, got };
  }
  return undefined;
}

/** The first of the options that is given and is none of its words. */
export function wordFault(
  options: object,
  words: Readonly<Record<string, readonly string[]>>,
): OptionFault | undefined {
  for (const [option, allowed] of Object.entries(words)) {
    const got = (options as Readonly<Record<string, unknown>>)[option];
    if (got === undefined || allowed.includes(got as string)) continue;
    return { option, what: allowed.map((word) => `"${word}"`).join(' or '), got };
  }
  return undefined;
}
