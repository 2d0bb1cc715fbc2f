/**
 * What the contracts of the ports share. No test framework: a check is a name and a function
 * that throws, `for (const { name, run } of stateStoreContract(open)) test(name, run)`. Imports: errors, rxjs.
 */
import { firstValueFrom, from, type ObservableInput } from 'rxjs';
import { IngestError, type ErrorCode } from '../../errors.js';

export interface ContractCheck {
  readonly name: string;
  /** Rejects with what does not hold. */
  readonly run: () => Promise<void>;
}

/** The value of a call, which must be one. */
export function valueOf<T>(call: ObservableInput<T>): Promise<T> {
  return firstValueFrom(from(call));
}

/** @throws when it does not hold. */
export function expectThat(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

/** Equal as JSON, whatever the order of fields. */
export function expectSame(got: unknown, expected: unknown, what: string): void {
  const [is, should] = [canonical(got), canonical(expected)];
  expectThat(is === should, `${what}: expected ${should}, got ${is}`);
}

export async function expectFailure(
  call: () => ObservableInput<unknown>,
  code: ErrorCode,
  what: string,
): Promise<void> {
  let got: unknown;
  try {
    got = await valueOf(call());
  } catch (thrown) {
    if (thrown instanceof IngestError && thrown.code === code) return;
    got = thrown;
  }
  throw new Error(
    `${what}: expected an IngestError ${code}, got ${got instanceof Error ? String(got) : JSON.stringify(got)}`,
    { cause: got },
  );
}

/** Waits until it holds. */
export async function until(what: string, holds: () => boolean, limitMs: number): Promise<void> {
  const endMs = performance.now() + limitMs;
  while (!holds()) {
    expectThat(performance.now() < endMs, `waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function canonical(value: unknown): string {
  return (
    JSON.stringify(value, (_, one: unknown) =>
      typeof one === 'object' && one !== null && !Array.isArray(one)
        ? Object.fromEntries(Object.entries(one).sort(([a], [b]) => (a < b ? -1 : 1)))
        : one,
    ) ?? 'undefined'
  );
}
