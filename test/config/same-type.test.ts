// The compiler refuses a schema that does not take what the documented type says, and the other way round.
import { expect, test } from 'vitest';
import type { IngestConfig } from '../../src/config/ingest-config.js';
import type { Same } from '../../src/config/same-type.js';

/** Compiles only where the two are the same. */
const same = <A, B>(..._proof: Same<A, B> extends true ? [] : ['they differ']): true => true;

interface Sample {
  readonly needed: string;
  readonly optional?: number | undefined;
  readonly list: readonly { readonly word: 'a' | 'b' }[];
  readonly either: false | { readonly ms?: number };
  readonly call?: (of: string) => number;
}

test('what says the same compiles, whatever is readonly or may be given as undefined', () => {
  expect(
    same<
      Sample,
      {
        needed: string;
        optional?: number;
        list: { word: 'a' | 'b' }[];
        either: { ms?: number | undefined } | false;
        call?: (of: string) => number;
      }
    >(),
  ).toBe(true);
  expect(same<IngestConfig, IngestConfig>()).toBe(true);
});

test('what differs does not', () => {
  type With<K extends keyof Sample, T> = Omit<Sample, K> & Record<K, T>;
  // @ts-expect-error a key more, though it may be left out
  same<Sample, Sample & { readonly more?: string }>();
  // @ts-expect-error a key less
  same<Sample, Omit<Sample, 'optional'>>();
  // @ts-expect-error a key that may be left out in one only
  same<Sample, Omit<Sample, 'needed'> & { readonly needed?: string }>();
  // @ts-expect-error a word more
  same<Sample, With<'list', readonly { readonly word: 'a' | 'b' | 'c' }[]>>();
  // @ts-expect-error another value in one kind of a union
  same<Sample, With<'either', false | { readonly ms?: string }>>();
  // @ts-expect-error another function
  same<Sample, Omit<Sample, 'call'> & { readonly call?: (of: number) => number }>();
  // @ts-expect-error a type of anything
  same<Sample, With<'needed', unknown>>();
  // @ts-expect-error what a configuration has
  same<IngestConfig, Omit<IngestConfig, 'onTombstone'>>();
  // @ts-expect-error and within it
  same<IngestConfig, Omit<IngestConfig, 'heal'> & { readonly heal?: false | { readonly minDelayMs?: number } }>();
  expect(same<Sample, Sample>()).toBe(true);
});
