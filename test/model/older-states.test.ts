// States as older versions wrote them: they are read, and what is in doubt in them is replayed under the very token.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { decodeState, encodeState, stateLimits, type StateName } from '../../src/model/state-codec.js';
import type { Intent, TableRecord } from '../../src/model/state.js';
import { dedupToken } from '../../src/model/token.js';

interface OlderState {
  readonly title: string;
  readonly key: StateName;
  readonly text: string;
  readonly tokens: readonly string[];
}

const states = JSON.parse(readFileSync(new URL('states-v2.json', import.meta.url), 'utf8')) as OlderState[];
const tokensOf = (key: StateName, text: string): string[] => {
  const { state } = decodeState(text, key);
  return state.pending.map((intent) => dedupToken({ ...key, ...state, intent }));
};

describe.each(states)('a state of format 2: $title', ({ key, text, tokens }) => {
  test('C6: is replayed under exactly the tokens it was recorded with, also after it was written again', () => {
    expect(tokensOf(key, text)).toStrictEqual(tokens);
    expect(tokensOf(key, encodeState(decodeState(text, key), key))).toStrictEqual(tokens);
  });

  test('says nothing of what its rows were written to, and takes nothing recorded later for older than it is', () => {
    const { state } = decodeState(text, key);
    const first = state.pending[0]?.first;
    for (const intent of state.pending) {
      expect([intent.floor ?? intent.first, intent.written, intent.tokenForm]).toStrictEqual([
        first,
        undefined,
        undefined,
      ]);
    }
  });

  test('keeps every other field', () => {
    const {
      pending,
      v: _,
      settled,
      isAnew,
      ...rest
    } = JSON.parse(text) as {
      readonly v: number;
      readonly pending: readonly Record<string, unknown>[];
      readonly settled: number | null;
      readonly isAnew?: true;
    };
    const { state, owner, write } = decodeState(text, key);
    expect({ ...state, owner, write }).toMatchObject(rest);
    expect(state.settled).toBe(settled ?? undefined);
    expect(state.isOffsetReused).toBe(isAnew);
    expect(state.pending).toMatchObject(pending.map(({ excluded: __, ...range }) => range));
  });
});

test('written again, a state takes no more room than it did', () => {
  for (const { key, text } of states)
    expect([key, Buffer.byteLength(encodeState(decodeState(text, key), key)) - Buffer.byteLength(text)]).toStrictEqual([
      key,
      expect.toSatisfy((more: number) => more <= 0),
    ]);
});

test('a state of format 1 is read', () => {
  const [{ key, text }] = states as [OlderState];
  const { topicId: _, ...first } = JSON.parse(text) as Record<string, unknown>;
  expect(decodeState(JSON.stringify({ ...first, v: 1 }), key).state).toStrictEqual({
    settled: undefined,
    pending: [],
    incarnation: 0,
    topicId: undefined,
  });
});

describe('what fitted before fits still, with all that is recorded now', () => {
  const written: TableRecord = {
    id: '2057c3d3-b2a4-43fb-bc9b-b39db421d703',
    columns: 'tposkh-1f3c9a',
    shape: '90aa31c4',
    alteredS: 1_794_990_000,
    mutation: 123_456,
  };
  const now = (intent: Intent): Intent => ({ ...intent, written, tokenForm: 2 });
  // Most records of one range that the policy for poison leaves out.
  const reachable = states.filter(({ text }) =>
    decodeState(text, states[0]!.key).state.pending.every(({ excluded }) => excluded.length <= 100),
  );

  test.each(reachable)('$title', ({ key, text }) => {
    const { state } = decodeState(text, key);
    const pending = state.pending.map(now);
    const encoded = encodeState({ state: { ...state, pending }, owner: 'o', write: 'w' }, key);
    expect(decodeState(encoded, key).state.pending).toStrictEqual(pending);
    expect(Buffer.byteLength(encoded)).toBeLessThanOrEqual(stateLimits.bytes);
  });

  test('sixteen ranges between which the table was altered and the server restarted each time', () => {
    const { key, text } = states.find(({ title }) => title === 'sixteen ranges in doubt')!;
    const { state } = decodeState(text, key);
    const pending = state.pending.slice(0, 8).map((intent, n) => ({
      ...now(intent),
      settings: `${intent.settings}${n}`,
      written: { ...written, alteredS: 1_794_990_000 + n },
    }));
    expect(() => encodeState({ state: { ...state, pending }, owner: 'o', write: 'w' }, key)).not.toThrow();
  });
});
